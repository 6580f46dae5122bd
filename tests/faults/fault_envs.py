"""Environments that take their time where a test wants them to, and that start processes of their own."""

import os
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

# Longer than any test.
VERY_LONG = 600.0


class QuickEnv(gym.Env):
    """
    Takes no time, or as much as it is told to.

    :param step_seconds: how long a step takes
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, step_seconds: float = 0.0) -> None:
        self.step_seconds = step_seconds

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self.step_seconds:
            time.sleep(self.step_seconds)
        self.steps += 1
        return self._observe(), float(action), self.steps >= 11, False, {}

    def pid(self) -> int:
        """Number of the sampler's process."""
        return os.getpid()

    def server_pid(self) -> int:
        """Number of the process that the sampler was forked from."""
        return os.getppid()

    def _observe(self) -> np.ndarray:
        return self.np_random.normal(size=2).astype(np.float32)


class SignEnv(QuickEnv):
    """Gives a reward for telling whether the first number of the observation is positive. An episode has 11 steps."""

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        is_right = int(self._shown > 0) == int(action)
        observation, _, *rest = super().step(action)
        return observation, float(is_right), *rest

    def _observe(self) -> np.ndarray:
        observation = super()._observe()
        self._shown = observation[0]
        return observation


class TypoEnv(QuickEnv):
    """Raises what asking for a missing attribute raises, in its 100th step."""

    n_steps = 0

    def step(self, action: int) -> Any:
        self.n_steps += 1
        return super().step(action) if self.n_steps != 100 else self.no_such_thing


class ExitingEnv(QuickEnv):
    """Ends its process."""

    def step(self, action: int) -> Any:
        os._exit(3)


class HangingEnv(QuickEnv):
    """Hangs in its first step."""

    def step(self, action: int) -> Any:
        time.sleep(VERY_LONG)


class BrokenAxleEnv(QuickEnv):
    """
    Fails in the third step of an episode.

    :param folder: where it notes that it has failed
    :param times: how often it fails
    """

    def __init__(self, folder: str, times: int) -> None:
        super().__init__()
        self.folder, self.times = Path(folder), times

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self.steps == 2 and len(list(self.folder.iterdir())) < self.times:
            (self.folder / str(time.monotonic_ns())).touch()
            raise ArithmeticError("the axle is broken")
        return super().step(action)


class FailingWhenOthersAreStuck(QuickEnv):
    """
    Cannot be built, and says so when another environment is stuck.

    :param folder: that of a :class:`StuckEnv`
    """

    def __init__(self, folder: str) -> None:
        while not any(Path(folder).iterdir()):
            time.sleep(0.01)
        raise ArithmeticError("no licence is left for another one")


class LoudEnv(QuickEnv):
    """Complains where it is built, once as Python does and once as a native library does."""

    def __init__(self) -> None:
        super().__init__()
        warnings.warn("this simulator is old", stacklevel=1)
        os.write(2, b"native warning\n")


class ParentEnv(QuickEnv):
    """Starts a process, as an environment does whose simulator is a program of its own. Never ends it."""

    def __init__(self, step_seconds: float = 0.0) -> None:
        super().__init__(step_seconds)
        self.child_pid = subprocess.Popen(["sleep", str(VERY_LONG)]).pid


class ForkingEnv(QuickEnv):
    """
    Starts a process by forking, as multiprocessing does. It inherits all that the sampler has open, and says where it
    is in a file.

    :param folder: for such files
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        child = os.fork()
        if child == 0:
            time.sleep(VERY_LONG)
            os._exit(0)
        (Path(folder) / str(child)).touch()


class StuckEnv(ParentEnv):
    """
    Gets stuck, and says so by making a file.

    :param where: "construction", "reset", "step" or "close"
    :param folder: for such files, which are named after the processes
    :param step_seconds: how long a step takes where it does not get stuck
    """

    def __init__(self, where: str, folder: str, step_seconds: float = 0.0) -> None:
        super().__init__(step_seconds)
        self._where, self._folder = where, Path(folder)
        self._pass("construction")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self._pass("reset")
        return super().reset(seed=seed, options=options)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._pass("step")
        return super().step(action)

    def close(self) -> None:
        self._pass("close")

    def _pass(self, where: str) -> None:
        if where == self._where:
            (self._folder / str(os.getpid())).touch()
            time.sleep(VERY_LONG)


class SavingEnv(QuickEnv):
    """
    Saves something when it is closed, which takes some time.

    :param folder: where it saves it
    :param save_seconds: how long that takes
    :param step_seconds: how long a step takes
    """

    def __init__(self, folder: str, save_seconds: float, step_seconds: float = 0.0) -> None:
        super().__init__(step_seconds)
        self.folder, self.save_seconds = Path(folder), save_seconds

    def close(self) -> None:
        time.sleep(self.save_seconds)
        (self.folder / str(os.getpid())).write_text(str(self.steps))
