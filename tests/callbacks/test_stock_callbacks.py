"""SB3's own callbacks do with AsyncPPO what they do with SB3's PPO, and when they do it."""

import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import assert_same_weights
from stable_baselines3 import PPO
from stable_baselines3.common import callbacks
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    ProgressBarCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from task_envs import Graded, Task
from training_pairs import (
    MODES,
    N_ENVS,
    ROLLOUT,
    SETTINGS,
    Trace,
    assert_same_calls,
    logged_by,
    ours,
    sb3,
)

from sb3_walle import AsyncPPO, SamplerVecEnv
from sb3_walle.algorithm.info_needs import wants_all_infos

# Longer than a chunk, and than what callbacks are shown at once.
LONG = {"n_steps": 150, "batch_size": 150}


@pytest.mark.parametrize("n_eval_envs", [1, 2])
def test_an_evaluation_has_sb3s_results(n_eval_envs: int, tmp_path: Path) -> None:
    """They depend on the weights, and so on everything that was learned until then."""
    models: dict[str, PPO] = {}
    logs, evaluations, children = {}, {}, {}
    for name, make in (("sb3", sb3), ("ours", ours)):
        models[name] = make(**LONG)
        logs[name] = logged_by(models[name])
        children[name] = Trace("best", []), Trace("after", [])
        evaluations[name] = EvalCallback(
            make_vec_env(Task, n_eval_envs, seed=5),
            callback_on_new_best=children[name][0],
            callback_after_eval=children[name][1],
            n_eval_episodes=3,
            eval_freq=70,
            log_path=str(tmp_path / name),
            best_model_save_path=str(tmp_path / name),
            verbose=0,
        )
        models[name].learn(4 * 450, callback=evaluations[name])
    assert [child.events for child in children["ours"]] == [child.events for child in children["sb3"]]
    assert 0 < children["ours"][0].n_calls < children["ours"][1].n_calls == 600 // 70
    assert children["ours"][0].parent is evaluations["ours"]
    files = [dict(np.load(tmp_path / name / "evaluations.npz")) for name in models]
    assert files[0].keys() == files[1].keys() == {"timesteps", "results", "ep_lengths", "successes"}
    for key, expected in files[0].items():
        np.testing.assert_array_equal(files[1][key], expected)
    assert evaluations["ours"].best_mean_reward == evaluations["sb3"].best_mean_reward
    best = [PPO.load(tmp_path / name / "best_model") for name in models]
    assert best[0].num_timesteps == best[1].num_timesteps
    assert_same_weights(*best)
    assert_same_weights(*models.values())
    figures = ("eval/mean_reward", "eval/mean_ep_length", "eval/success_rate", "step")
    logged = [[[line[key] for key in figures] for line in log if figures[0] in line] for log in logs.values()]
    assert logged[0] == logged[1] and len(logged[0]) == 600 // 70


@pytest.mark.parametrize("mode", MODES)
def test_evaluations_take_place_when_sb3_has_them(mode: str, tmp_path: Path) -> None:
    def evaluation(events: list[tuple]) -> EvalCallback:
        callback = EvalCallback(
            Graded([1, 1, 2, 2, 2, 2, 3, 3]),
            callback_on_new_best=Trace("best", events),
            callback_after_eval=CallbackList([Trace("after", events), EveryNTimesteps(90, Trace("every", events))]),
            n_eval_episodes=1,
            eval_freq=15,
            best_model_save_path=str(tmp_path),
            verbose=0,
            warn=False,
        )
        return callback

    events = assert_same_calls(evaluation, mode)
    assert [event[3] for event in events if event[:2] == ("after", "step")] == [45, 90, 135, 180, 225]
    assert [event[3] for event in events if event[:2] == ("best", "step")] == [45, 90, 180]
    assert AsyncPPO.load(tmp_path / "best_model").num_timesteps == 180


class ShowsItsActions(Graded):
    """The return of an episode is the action that was chosen in it, always after the same observation."""

    def __init__(self) -> None:
        super().__init__([0.0])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float(action[0]), terminated, truncated, info


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_an_evaluation_is_deterministic_if_it_is_to_be(mode: str, deterministic: bool, tmp_path: Path) -> None:
    evaluation = EvalCallback(
        make_vec_env(ShowsItsActions, 1),
        n_eval_episodes=8,
        eval_freq=15,
        deterministic=deterministic,
        log_path=str(tmp_path),
        verbose=0,
    )
    ours(mode).learn(2 * ROLLOUT, callback=evaluation)
    assert len(evaluation.evaluations_results) == 2
    assert all((len(set(returns)) == 1) == deterministic for returns in evaluation.evaluations_results)


@pytest.mark.parametrize("warn", [True, False])
def test_an_evaluation_warns_of_what_sb3_warns_of(warn: bool) -> None:
    messages = []
    for model in (sb3(), ours()):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            evaluation = EvalCallback(DummyVecEnv([Task]), n_eval_episodes=1, eval_freq=15, verbose=0, warn=warn)
            model.learn(ROLLOUT, callback=evaluation)
        messages.append([str(warning.message) for warning in caught])
    assert messages[0] == messages[1]
    assert ["Monitor" in message for message in messages[1]] == [True] * warn


def test_samplers_may_evaluate() -> None:
    results = []
    samplers = make_vec_env(Task, 2, seed=5, vec_env_cls=SamplerVecEnv, vec_env_kwargs={"backend": "inline"})
    for eval_env in (make_vec_env(Task, 2, seed=5), samplers):
        evaluation = EvalCallback(eval_env, n_eval_episodes=4, eval_freq=15, verbose=0)
        model = ours("pipelined").learn(4 * ROLLOUT, callback=evaluation)
        results.append((model.num_timesteps, evaluation.n_calls, evaluation.best_mean_reward))
    assert results[0] == results[1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flags", [{}, {"save_replay_buffer": True, "save_vecnormalize": True, "name_prefix": "mine"}])
def test_checkpoints_are_sb3s(mode: str, flags: dict[str, Any], tmp_path: Path) -> None:
    for name, make in (("sb3", sb3), ("ours", lambda: ours(mode))):
        make().learn(4 * ROLLOUT, callback=CheckpointCallback(23, str(tmp_path / name), **flags))
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("sb3", "ours")]
    assert files[0] == files[1]
    assert sorted(PPO.load(path).num_timesteps for path in (tmp_path / "ours").iterdir()) == [69, 138, 207]
    if mode == "sync":
        for file in files[0]:
            assert_same_weights(PPO.load(tmp_path / "sb3" / file), PPO.load(tmp_path / "ours" / file))


class LooksAtStatistics(BaseCallback):
    """Keeps the statistics of the normalisation after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.statistics: dict[int, tuple[list[float], list[float], float]] = {}

    def _on_step(self) -> bool:
        normalizer = self.model.get_vec_normalize_env()
        assert normalizer is not None
        self.statistics[self.num_timesteps] = statistics_of(normalizer)
        return True


def statistics_of(normalizer: Any) -> tuple[list[float], list[float], float]:
    observations = normalizer.obs_rms
    return observations.mean.tolist(), observations.var.tolist(), observations.count


def normalized_samplers(mode: str) -> AsyncPPO:
    env = VecNormalize(SamplerVecEnv([Task] * N_ENVS, backend="inline"))
    return AsyncPPO("MlpPolicy", env, mode=mode, **SETTINGS)


@pytest.mark.parametrize("mode", MODES)
def test_a_checkpoint_includes_the_statistics_of_vecnormalize(mode: str, tmp_path: Path) -> None:
    seen = LooksAtStatistics()
    checkpoints = CheckpointCallback(23, str(tmp_path), save_vecnormalize=True)
    normalized_samplers(mode).learn(4 * ROLLOUT, callback=[checkpoints, seen])
    for steps in (69, 138, 207):
        loaded = VecNormalize.load(str(tmp_path / f"rl_model_vecnormalize_{steps}_steps.pkl"), DummyVecEnv([Task]))
        assert statistics_of(loaded) == seen.statistics[steps]
        assert statistics_of(loaded)[2] > 1 and loaded.num_envs == 1
        PPO.load(tmp_path / f"rl_model_{steps}_steps")


@pytest.mark.parametrize("mode", MODES)
def test_an_evaluation_normalises_as_training_does(mode: str) -> None:
    class Compare(BaseCallback):
        def _on_step(self) -> bool:
            normalizer = self.model.get_vec_normalize_env()
            assert normalizer is not None
            assert statistics_of(evaluation.eval_env) == statistics_of(normalizer)
            return True

    eval_env = VecNormalize(make_vec_env(Task, 1), training=False, norm_reward=False)
    evaluation = EvalCallback(eval_env, callback_after_eval=Compare(), n_eval_episodes=1, eval_freq=15, verbose=0)
    normalized_samplers(mode).learn(4 * ROLLOUT, callback=evaluation)
    assert evaluation.callback is not None and evaluation.callback.n_calls == 5


@pytest.mark.parametrize("mode", MODES)
def test_a_reward_threshold_stops_where_it_stops_sb3(mode: str) -> None:
    def evaluation(events: list[tuple]) -> EvalCallback:
        enough = StopTrainingOnRewardThreshold(reward_threshold=3)
        graded = Graded([1, 2, 3, 4, 5, 6, 7])
        return EvalCallback(
            graded,
            callback_on_new_best=enough,
            callback_after_eval=Trace("after", events),
            n_eval_episodes=1,
            eval_freq=15,
            verbose=0,
            warn=False,
        )

    events = assert_same_calls(evaluation, mode)
    assert [event[1] for event in events] == ["training_start", "step"]


@pytest.mark.parametrize("mode", MODES)
def test_a_lack_of_improvement_stops_where_it_stops_sb3(mode: str) -> None:
    def evaluation(events: list[tuple]) -> CallbackList:
        patience = StopTrainingOnNoModelImprovement(max_no_improvement_evals=1, min_evals=1)
        graded = Graded([1, 1, 2, 2, 2])
        evaluation = EvalCallback(
            graded, callback_after_eval=patience, n_eval_episodes=1, eval_freq=7, verbose=0, warn=False
        )
        return CallbackList([Trace("steps", events), evaluation])

    events = assert_same_calls(evaluation, mode)
    assert events[-1][1:] == ("training_end", 28, 84, 84)


@pytest.mark.parametrize("mode", ["pipelined", "free"])
def test_a_number_of_episodes_stops_other_modes_too(mode: str) -> None:
    class Fixed(Graded):
        """Episodes of one step, so that their number does not depend on what was learned."""

        def __init__(self) -> None:
            super().__init__([1.0])

    models = sb3(Fixed), ours(mode, Fixed)
    for model in models:
        model.learn(4 * ROLLOUT, callback=StopTrainingOnMaxEpisodes(33))
    assert models[0].num_timesteps == models[1].num_timesteps == 33 * N_ENVS


@pytest.mark.parametrize("mode", MODES)
def test_every_n_timesteps_is_sb3s(mode: str) -> None:
    def every(events: list[tuple]) -> list[BaseCallback]:
        return [EveryNTimesteps(50, EveryNTimesteps(100, Trace("inner", events))), Trace("outer", events)]

    events = assert_same_calls(every, mode)
    assert [event[3] for event in events if event[:2] == ("inner", "step")] == [102, 204]


@pytest.mark.parametrize("mode", MODES)
def test_logs_every_n_timesteps_are_sb3s(mode: str) -> None:
    logs = []
    for model in (sb3(), ours(mode)):
        logs.append(logged_by(model))
        model.learn(4 * ROLLOUT, callback=LogEveryNTimesteps(50), log_interval=3)
    dumps = [[(line["step"], line["time/total_timesteps"], "time/iterations" in line) for line in log] for log in logs]
    assert dumps[0] == dumps[1]
    assert [dump[0] for dump in dumps[1]] == [51, 102, 153, 180, 204]
    # On a rollout's end, SB3 logs what is new since the callback's dump.
    for expected, found in zip(*logs, strict=True):
        assert expected.keys() <= found.keys()


class Bar:
    """
    Stands in for the progress bar, and writes down what is asked of it.

    :param total: number of time steps
    """

    made: list["Bar"]

    def __init__(self, total: int) -> None:
        self.calls: list[Any] = [total]
        self.made.append(self)

    def update(self, steps: int) -> None:
        self.calls.append(steps)

    def refresh(self) -> None:
        self.calls.append("refresh")

    def close(self) -> None:
        self.calls.append("close")


@pytest.mark.parametrize("mode", MODES)
def test_the_progress_bar_is_sb3s(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "tqdm", Bar)
    shown = []
    for make in (sb3, lambda: ours(mode)):
        Bar.made, model = [], make()
        model.learn(2 * ROLLOUT, progress_bar=True)
        model.learn(100, progress_bar=True, reset_num_timesteps=False)
        model.learn(100, callback=[ProgressBarCallback(), StopTrainingOnMaxEpisodes(1)])
        shown.append([bar.calls for bar in Bar.made])
    assert shown[0] == shown[1] if mode == "sync" else shown[0][:2] == shown[1][:2]
    assert shown[1][0] == [120, *[3] * 40, "refresh", "close"]
    assert shown[1][1] == [100, *[3] * 40, "refresh", "close"]


def test_the_real_progress_bar_is_complete_in_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Otherwise tqdm starts a thread that never ends.
    monkeypatch.setattr(callbacks.tqdm, "monitor_interval", 0)
    threads = set(threading.enumerate())
    model = ours("pipelined", verbose=1).learn(2 * ROLLOUT, progress_bar=True)
    assert model.num_timesteps == 120
    assert "120/120" in capsys.readouterr().out
    for thread in set(threading.enumerate()) - threads:
        thread.join(timeout=10)


def test_stock_callbacks_need_no_infos_of_all_steps() -> None:
    """Those cost something, and no callback looks at them."""
    stock = [
        LogEveryNTimesteps(10),
        ProgressBarCallback(),
        StopTrainingOnMaxEpisodes(3),
        CheckpointCallback(10, "unused"),
    ]
    assert not wants_all_infos(CallbackList(stock))
    assert wants_all_infos(CallbackList([*stock, EveryNTimesteps(10, Trace("inner", []))]))

    class Mine(LogEveryNTimesteps):
        def _log_data(self, local_variables: dict[str, Any], _: dict[str, Any]) -> bool:
            return "position" in local_variables["infos"][0]

    assert wants_all_infos(Mine(10))
