"""How many gradient steps are made for each step of the environments."""


class ReplayRatio:
    """
    Counts since ``learn()`` began, but not the steps that no training has followed by the next :meth:`begin_rollout`:
    those before the first training, say.
    """

    def __init__(self, num_timesteps: int) -> None:
        self.n_gradient_steps = self.n_env_steps = 0
        self._num_timesteps = num_timesteps

    def begin_rollout(self, num_timesteps: int) -> None:
        self._num_timesteps = num_timesteps

    def add(self, gradient_steps: int, num_timesteps: int) -> None:
        self.n_gradient_steps += gradient_steps
        self.n_env_steps += num_timesteps - self._num_timesteps
        self._num_timesteps = num_timesteps

    @property
    def value(self) -> float | None:
        """Gradient steps for each step of an environment, ``None`` before the first training."""
        return self.n_gradient_steps / self.n_env_steps if self.n_env_steps > 0 else None
