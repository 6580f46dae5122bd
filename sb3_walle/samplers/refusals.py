"""Environments that samplers cannot take because of how they were passed."""


class RefusedEnvError(Exception):
    """Reaches the user as it is: the message says what to do, and no sampler's traceback adds to it."""


class SharedEnvError(RefusedEnvError, ValueError):
    """A function that builds environments returns the same one more than once."""

    def __init__(self) -> None:
        # SB3's own error for a DummyVecEnv, in short.
        super().__init__(
            "You tried to create several environments, but the function to create them returned the same environment "
            "more than once. Every call must build a new one: pass `lambda: gym.make(...)` rather than `lambda: env`. "
            "Or pass the environment itself, as env: each sampler then gets a copy with random streams of its own."
        )

    def __reduce__(self) -> tuple:
        return type(self), ()


class VectorizedEnvError(RefusedEnvError, TypeError):
    """An environment is itself many environments."""


class EditedEnvError(RefusedEnvError, TypeError):
    """An environment was changed after it was built, in a way that does not travel."""
