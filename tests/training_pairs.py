"""The same training with SB3's PPO and with AsyncPPO, and what is needed to compare them while they run."""

from collections.abc import Callable
from typing import Any

from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import KVWriter, Logger
from task_envs import Task

from sb3_walle import AsyncPPO

N_ENVS = 3
SETTINGS: dict[str, Any] = {"n_steps": 20, "batch_size": 60, "n_epochs": 1, "seed": 1, "device": "cpu"}
#: time steps of a rollout
ROLLOUT = SETTINGS["n_steps"] * N_ENVS
MODES = ("sync", "pipelined", "free")


class Trace(BaseCallback):
    """
    Writes down every call.

    :param name: the callback's name in what it writes
    :param events: where to write to
    :param stop_at: call of ``on_step()`` that returns False
    """

    def __init__(self, name: str, events: list[tuple], stop_at: int | None = None) -> None:
        super().__init__()
        self.name, self.events, self.stop_at = name, events, stop_at

    def _note(self, event: str) -> None:
        self.events.append((self.name, event, self.n_calls, self.num_timesteps, self.model.num_timesteps))

    def _on_training_start(self) -> None:
        self._note("training_start")

    def _on_rollout_start(self) -> None:
        self._note("rollout_start")

    def _on_step(self) -> bool:
        self._note("step")
        return self.n_calls != self.stop_at

    def _on_rollout_end(self) -> None:
        self._note("rollout_end")

    def _on_training_end(self) -> None:
        self._note("training_end")


class Lines(KVWriter):
    """Keeps all that is logged, one dictionary for each dump."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self.lines.append({**key_values, "step": step})

    def close(self) -> None:
        """Nothing is open."""


def sb3(env: Any = Task, **settings: Any) -> PPO:
    """SB3's PPO on three environments."""
    return PPO("MlpPolicy", make_vec_env(env, N_ENVS), **{**SETTINGS, **settings})


def ours(mode: str = "sync", env: Any = Task, **settings: Any) -> AsyncPPO:
    """As many environments: in mode "sync" a model that trains as SB3's does, in the other modes three samplers."""
    n_samplers = 1 if mode == "sync" else N_ENVS
    arguments = {**SETTINGS, "backend": "inline", "actor": "torch" if mode == "sync" else "auto", **settings}
    return AsyncPPO(
        "MlpPolicy", env, n_samplers=n_samplers, envs_per_sampler=N_ENVS // n_samplers, mode=mode, **arguments
    )


def logged_by(model: PPO) -> list[dict[str, Any]]:
    """What a model logs from now on."""
    lines = Lines()
    model.set_logger(Logger(None, [lines]))
    return lines.lines


def assert_same_calls(make: Callable[[list[tuple]], Any], mode: str, total: int = 4 * ROLLOUT) -> list[tuple]:
    """
    Train both, and compare what their callbacks wrote down, and where they stopped.

    :param make: makes the callback, which writes to the list that it is given
    :param mode: AsyncPPO's mode
    :param total: number of time steps
    :return: what they wrote down
    """
    expected: list[tuple] = []
    found: list[tuple] = []
    oracle = sb3().learn(total, callback=make(expected))
    model = ours(mode).learn(total, callback=make(found))
    assert found == expected
    assert model.num_timesteps == oracle.num_timesteps
    return found
