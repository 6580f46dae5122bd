"""Callbacks see what they see with SB3's PPO on as many environments."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.env_util import make_vec_env
from toy_envs import StampedEnv

from sb3_walle import AsyncPPO
from sb3_walle.algorithm.info_needs import wants_all_infos

SETTINGS: dict[str, Any] = {"n_steps": 150, "batch_size": 50, "n_epochs": 1, "seed": 1, "device": "cpu"}
N_ENVS = 3


class Witness(BaseCallback):
    """
    Writes down every call.

    :param stop_after: number of calls of ``on_step()`` after which training stops
    """

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.stop_after = stop_after
        self.events: list[tuple[str, int, int]] = []
        self.local_names: set[str] = set()
        self.records: list[tuple] = []

    def _note(self, event: str) -> None:
        self.events.append((event, self.n_calls, self.num_timesteps))

    def _on_training_start(self) -> None:
        self._note("training_start")

    def _on_rollout_start(self) -> None:
        self._note("rollout_start")

    def _on_step(self) -> bool:
        assert self.n_calls * N_ENVS == self.num_timesteps == self.model.num_timesteps
        self._note("step")
        self.local_names |= set(self.locals)
        names = ("actions", "clipped_actions", "rewards", "dones", "new_obs", "values", "log_probs", "obs_tensor")
        shapes = tuple((name, tuple(self.locals[name].shape), str(self.locals[name].dtype)) for name in names)
        infos = [
            {key: value for key, value in info.items() if key not in ("episode", "terminal_observation")}
            for info in self.locals["infos"]
        ]
        ends = [(info.get("episode", {}).get("l"), info.get("terminal_observation")) for info in self.locals["infos"]]
        self.records.append((shapes, self.locals["n_steps"], self.locals["rewards"].tolist(), infos, str(ends)))
        return self.stop_after is None or self.n_calls < self.stop_after

    def _on_rollout_end(self) -> None:
        self._note("rollout_end")

    def _on_training_end(self) -> None:
        self._note("training_end")


def sb3(callback: Any = None, total: int = 900, env: Any = StampedEnv, **kwargs: Any) -> PPO:
    return PPO("MlpPolicy", make_vec_env(env, N_ENVS), **{**SETTINGS, **kwargs}).learn(total, callback=callback)


def ours(callback: Any = None, total: int = 900, env: Any = StampedEnv, **kwargs: Any) -> AsyncPPO:
    settings = {**SETTINGS, "mode": "sync", "actor": "torch", "backend": "inline", "n_samplers": 1, **kwargs}
    model = AsyncPPO("MlpPolicy", env, envs_per_sampler=N_ENVS // settings["n_samplers"], **settings)
    return model.learn(total, callback=callback)


def test_every_call_and_every_local_variable_is_sb3s() -> None:
    expected, found = Witness(), Witness()
    sb3(expected)
    ours(found)
    assert found.events == expected.events
    # SB3's loop leaves its counters behind as well; no callback can rely on those.
    assert expected.local_names - {"idx", "done"} <= found.local_names
    assert found.records == expected.records


@pytest.mark.parametrize("mode", ["pipelined", "free"])
def test_calls_keep_their_frequency_in_other_modes(mode: str) -> None:
    expected, found = Witness(), Witness()
    sb3(expected)
    ours(found, mode=mode, n_samplers=3)
    assert found.events == expected.events


@pytest.mark.parametrize("stop_after", [1, 130, 150, 151])
def test_a_callback_that_returns_false_stops_where_it_stops_sb3(stop_after: int) -> None:
    expected, found = Witness(stop_after), Witness(stop_after)
    oracle, model = sb3(expected), ours(found)
    assert found.events == expected.events
    assert model.num_timesteps == oracle.num_timesteps == stop_after * N_ENVS
    model.learn(450)
    assert model.num_timesteps == 450


def test_stock_callbacks_fire_when_they_do_with_sb3(tmp_path: Path) -> None:
    def callbacks(name: str) -> tuple[CallbackList, EvalCallback, list[int]]:
        fired: list[int] = []

        class Note(BaseCallback):
            def _on_step(self) -> bool:
                fired.append(self.num_timesteps)
                return True

        evaluation = EvalCallback(make_vec_env(StampedEnv, 1), eval_freq=70, n_eval_episodes=1, verbose=0)
        checkpoints = CheckpointCallback(100, str(tmp_path / name))
        return CallbackList([evaluation, checkpoints, EveryNTimesteps(200, Note())]), evaluation, fired

    expected, expected_evaluation, expected_fired = callbacks("sb3")
    found, found_evaluation, found_fired = callbacks("ours")
    sb3(expected)
    ours(found)
    assert found_evaluation.n_calls == expected_evaluation.n_calls
    assert found_evaluation.evaluations_timesteps == expected_evaluation.evaluations_timesteps
    assert found_fired == expected_fired
    names = [sorted(path.name for path in (tmp_path / folder).iterdir()) for folder in ("sb3", "ours")]
    assert names[0] == names[1] != []


def test_training_stops_after_as_many_episodes_as_with_sb3() -> None:
    oracle = sb3(StopTrainingOnMaxEpisodes(max_episodes=20), total=10_000)
    model = ours(StopTrainingOnMaxEpisodes(max_episodes=20), total=10_000)
    assert model.num_timesteps == oracle.num_timesteps < 10_000


def test_a_function_can_be_the_callback() -> None:
    seen: list[int] = []
    ours(lambda local_variables, _: seen.append(len(local_variables["infos"])) or True, total=450)
    assert seen == [N_ENVS] * 150


def test_only_callbacks_of_ones_own_get_the_infos_of_all_steps() -> None:
    evaluation = EvalCallback(make_vec_env(StampedEnv, 1), callback_after_eval=None)
    assert not wants_all_infos(CallbackList([evaluation, CheckpointCallback(10, "unused")]))
    assert wants_all_infos(CallbackList([evaluation, EveryNTimesteps(10, Witness())]))
    assert wants_all_infos(EvalCallback(make_vec_env(StampedEnv, 1), callback_on_new_best=Witness()))
    assert wants_all_infos(EvalCallback(make_vec_env(StampedEnv, 1), callback_after_eval=Witness()))


class Curriculum(BaseCallback):
    """Makes the task harder after the first rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.rewards: list[np.ndarray] = []
        self.replies: list[list[int]] = []

    def _on_step(self) -> bool:
        self.rewards.append(self.locals["rewards"].copy())
        return True

    def _on_rollout_end(self) -> None:
        self.replies.append(self.training_env.env_method("set_difficulty", len(self.replies) + 1))


@pytest.mark.parametrize(("mode", "delay", "backend"), [("sync", 0, "inline"), ("pipelined", 1, "process")])
def test_a_curriculum_takes_effect_from_the_next_rollout_that_is_not_under_way(
    mode: str, delay: int, backend: str
) -> None:
    curriculum = Curriculum()
    model = ours(curriculum, total=4 * 450, mode=mode, n_samplers=3, backend=backend, actor="numpy")
    model.get_env().close()
    levels = np.stack(curriculum.rewards).reshape(4, -1) // 10
    expected = np.maximum(np.arange(4) - delay, 0)
    np.testing.assert_array_equal(levels, np.repeat(expected[:, None], levels.shape[1], axis=1))
    assert curriculum.replies == [[0] * 3, [1] * 3, [2] * 3, [3] * 3]
