"""VecNormalize around samplers is SB3's VecNormalize, but for when its statistics move."""

import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from far_envs import Far, FarDict, FarFloats, FarIntegers, Fixed
from hypothesis import given
from hypothesis import strategies as st
from oracle import Recorder, assert_same, assert_same_weights, episodes, train
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecMonitor, VecNormalize
from toy_envs import RandomWalk

from sb3_walle import AsyncPPO, SamplerVecEnv
from sb3_walle.collection.collector import warm_up_lengths

SETTINGS: dict[str, Any] = {"n_steps": 60, "batch_size": 30, "n_epochs": 1, "seed": 3, "device": "cpu"}
N_ENVS = 4
MODES = ["sync", "pipelined", "free"]


def samplers(env: Any, n_samplers: int = 1, backend: str = "inline") -> VecEnv:
    venv = SamplerVecEnv([env] * N_ENVS, N_ENVS // n_samplers, backend)
    venv.seed(7)
    return venv


def policy_for(env: Any) -> str:
    return "MultiInputPolicy" if env is FarDict else "MlpPolicy"


def with_statistics(vec_normalize: VecNormalize) -> VecNormalize:
    """Not the truth, but statistics with which normalising makes a difference."""
    statistics = vec_normalize.obs_rms if isinstance(vec_normalize.obs_rms, dict) else {"": vec_normalize.obs_rms}
    rng = np.random.default_rng(0)
    for rms in [*statistics.values(), vec_normalize.ret_rms]:
        rms.mean, rms.var = rng.normal(size=rms.mean.shape), np.asarray(rng.uniform(0.5, 200, rms.var.shape))
        rms.count = 1000.0
    return vec_normalize


FIXED: dict[str, tuple[Any, dict[str, Any]]] = {
    "double precision": (Far, {}),
    "single precision": (FarFloats, {"clip_obs": 1.5, "clip_reward": 0.5}),
    "one key": (FarDict, {"norm_obs_keys": ["second"]}),
    "two keys": (FarDict, {"norm_obs_keys": ["second", "first"], "norm_reward": False}),
    "rewards only": (Far, {"norm_obs": False, "epsilon": 0.1}),
    "rewards of a dictionary only": (FarDict, {"norm_obs": False}),
}


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        *((name, "inline") for name in FIXED),
        ("two keys", "process"),
    ],
)
def test_training_with_fixed_statistics_equals_sb3(name: str, backend: str) -> None:
    env, arguments = FIXED[name]

    def normalized(venv: VecEnv) -> VecNormalize:
        wrapped = VecNormalize(venv, training=False, **arguments)
        return with_statistics(wrapped) if wrapped.norm_obs else wrapped

    oracle = PPO(policy_for(env), normalized(make_vec_env(env, N_ENVS, seed=7)), **SETTINGS)
    expected = train(oracle)
    ours = normalized(samplers(env, backend=backend))
    before = deepcopy(ours.ret_rms)
    model = AsyncPPO(policy_for(env), ours, mode="sync", actor="torch", **SETTINGS)
    found = train(model)
    assert_same(expected.steps, found.steps, "steps")
    assert_same(expected.buffers, found.buffers, "rollout_buffer")
    assert_same(episodes(oracle), episodes(model), "ep_info_buffer")
    assert_same_weights(oracle, model)
    assert vars(ours.ret_rms) == vars(before)
    ours.close()


AROUND: dict[str, Callable[[VecEnv], VecEnv]] = {
    "frames of what is normalised": lambda venv: VecFrameStack(VecNormalize(venv, training=False), 2),
    "frames are normalised": lambda venv: VecNormalize(VecFrameStack(venv, 2), training=False),
    "monitor of what is normalised": lambda venv: VecMonitor(VecNormalize(venv, training=False)),
}


@pytest.mark.parametrize("name", AROUND)
def test_vec_normalize_may_stand_anywhere_among_wrappers(name: str) -> None:
    def wrapped(venv: VecEnv) -> VecEnv:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env = AROUND[name](venv)
        inner: Any = env
        while not isinstance(inner, VecNormalize):
            inner = inner.venv
        with_statistics(inner)
        return env

    oracle = PPO("MlpPolicy", wrapped(make_vec_env(Far, N_ENVS, seed=7)), **SETTINGS)
    expected = train(oracle)
    model = AsyncPPO("MlpPolicy", wrapped(samplers(Far)), mode="sync", actor="torch", **SETTINGS)
    found = train(model)
    assert_same(expected.steps, found.steps, "steps")
    assert_same_weights(oracle, model)
    assert_same(episodes(oracle), episodes(model), "ep_info_buffer")


class Originals(Recorder):
    """Also keeps what VecNormalize says of each step, and its statistics at the end of each rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.observations: list[Any] = []
        self.rewards: list[np.ndarray] = []
        self.statistics: list[dict[str, RunningMeanStd]] = []

    def _on_training_start(self) -> None:
        self.vec_normalize = self.model.get_vec_normalize_env()
        if self.observations == []:
            # What the first reset has shown is part of the statistics.
            self.observations.append(self.vec_normalize.get_original_obs())

    def _on_step(self) -> bool:
        self.observations.append(self.vec_normalize.get_original_obs())
        self.rewards.append(self.vec_normalize.get_original_reward())
        return super()._on_step()

    def _on_rollout_end(self) -> None:
        super()._on_rollout_end()
        self.statistics.append(deepcopy(statistics_of(self.vec_normalize)))


def statistics_of(vec_normalize: VecNormalize) -> dict[str, RunningMeanStd]:
    observations = vec_normalize.obs_rms if isinstance(vec_normalize.obs_rms, dict) else {"obs": vec_normalize.obs_rms}
    return {**observations, "returns": vec_normalize.ret_rms}


def statistics_of_sb3(recorder: Originals, keys: list[str] | None, gamma: float) -> dict[str, RunningMeanStd]:
    """What SB3's VecNormalize makes of the same observations, rewards and ends of episodes, step by step."""
    found: dict[str, RunningMeanStd] = {"returns": RunningMeanStd(shape=())}
    for key in keys or ["obs"]:
        series = [observation if keys is None else observation[key] for observation in recorder.observations]
        found[key] = RunningMeanStd(shape=series[0].shape[1:])
        found[key].update(series[0])
        for batch in series[1:]:
            found[key].update(batch.astype(np.float64))
    returns = np.zeros(N_ENVS)
    for rewards, step in zip(recorder.rewards, recorder.steps, strict=True):
        returns = returns * gamma + rewards
        found["returns"].update(returns)
        returns[step["dones"]] = 0
    return found


def assert_same_statistics(expected: dict[str, RunningMeanStd], found: dict[str, RunningMeanStd]) -> None:
    assert expected.keys() == found.keys()
    for key, rms in expected.items():
        assert found[key].count == pytest.approx(rms.count, rel=1e-12)
        # Of numbers that are added up in another order.
        np.testing.assert_allclose(found[key].mean, rms.mean, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found[key].var, rms.var, rtol=1e-8)


@pytest.mark.parametrize(
    ("env", "backend", "n_samplers", "mode"),
    [
        (Far, "inline", 1, "sync"),
        (Far, "process", 2, "pipelined"),
        (FarFloats, "inline", 4, "pipelined"),
        (FarDict, "inline", 2, "sync"),
    ],
)
def test_statistics_are_those_that_sb3_makes_of_the_same_steps(
    env: Any, backend: str, n_samplers: int, mode: str
) -> None:
    keys = ["second", "first"] if env is FarDict else None
    venv = VecNormalize(samplers(env, n_samplers, backend), norm_obs_keys=keys, gamma=0.9)
    model, recorder = AsyncPPO(policy_for(env), venv, mode=mode, **SETTINGS), Originals()
    for reset in (True, False):
        model.learn(3 * 60 * N_ENVS, callback=recorder, reset_num_timesteps=reset)
        if reset and mode == "pipelined":
            # Steps that were under way at the end are dropped, and the returns of the next ones begin with them.
            break
    assert_same_statistics(statistics_of_sb3(recorder, keys, 0.9), recorder.statistics[-1])
    venv.close()


def test_no_step_is_counted_twice_or_lost_in_free_mode() -> None:
    venv = VecNormalize(samplers(Far, 2, "process"))
    model = AsyncPPO("MlpPolicy", venv, mode="free", **SETTINGS)
    model.learn(5 * 60 * N_ENVS)
    # All that was learned from, and of the last chunks perhaps more than that.
    assert 0 <= venv.obs_rms.count - 1e-4 - (5 * 60 + 1) * N_ENVS <= 60 * N_ENVS
    assert venv.ret_rms.count == pytest.approx(venv.obs_rms.count - N_ENVS)
    np.testing.assert_allclose(venv.obs_rms.mean[0, 0], 1000, atol=30)
    venv.close()


class Consistency(Recorder):
    """What is learned from has the log-probabilities that were recorded, and is what was seen."""

    def __init__(self) -> None:
        super().__init__()
        self.versions: list[np.ndarray] = []

    def _on_rollout_end(self) -> None:
        super()._on_rollout_end()
        buffer, policy = self.model.rollout_buffer, self.model.policy
        with th.no_grad():
            observations = obs_as_tensor(buffer.observations.reshape(-1, 2, 2), "cpu")
            actions = th.from_numpy(buffer.actions.reshape(-1, 1))
            _, log_probs, _ = policy.evaluate_actions(observations, actions)
        np.testing.assert_allclose(log_probs.numpy(), buffer.log_probs.reshape(-1), atol=1e-4)


@pytest.mark.parametrize(("actor", "backend"), [("numpy", "process"), ("torch", "inline")])
def test_what_is_learned_from_is_what_the_policy_saw(actor: str, backend: str) -> None:
    """If the learner normalised with newer statistics, the log-probabilities would be those of other actions."""
    env = samplers(Far, 2, backend)
    model = AsyncPPO("MlpPolicy", VecNormalize(env), mode="sync", actor=actor, **SETTINGS)
    model.learn(4 * 60 * N_ENVS, callback=Consistency())
    env.close()


@pytest.mark.parametrize("mode", ["sync", "pipelined"])
def test_statistics_stand_still_within_a_rollout_but_for_the_first(mode: str) -> None:
    """What was seen in a rollout is normalised with one and the same mean and variance."""
    recorder = Originals()
    model = AsyncPPO("MlpPolicy", VecNormalize(samplers(Far, 2), clip_obs=1e9), mode=mode, **SETTINGS)
    model.learn(5 * 60 * N_ENVS, callback=recorder)
    shown = np.stack([step["new_obs"] for step in recorder.steps]).reshape(5, 60, N_ENVS, 4)
    original = np.stack(recorder.observations[1:]).reshape(5, 60, N_ENVS, 4)
    lag = 1 if mode == "pipelined" else 0
    for rollout in range(1 + lag, 5):
        used = recorder.statistics[rollout - 1 - lag]["obs"]
        expected = (original[rollout] - used.mean.ravel()) / np.sqrt(used.var.ravel() + 1e-8)
        np.testing.assert_allclose(shown[rollout], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("mode", "backend"), [*((mode, "inline") for mode in MODES), ("free", "process")])
def test_the_first_rollout_is_already_normalised(mode: str, backend: str) -> None:
    recorder = Originals()
    env = samplers(Far, 2, backend)
    AsyncPPO("MlpPolicy", VecNormalize(env), mode=mode, **SETTINGS).learn(2 * 60 * N_ENVS, callback=recorder)
    env.close()
    for rollout in recorder.buffers:
        # Without statistics, the first number is at the limit, 10, all the time.
        numbers = np.abs(rollout["observations"].reshape(-1, 4)[:, 0])
        assert np.median(numbers) < 3


@given(n_steps=st.integers(1, 3000), longest=st.integers(1, 500))
def test_chunks_of_a_first_rollout_double(n_steps: int, longest: int) -> None:
    lengths = warm_up_lengths(n_steps, longest)
    assert sum(lengths) == n_steps
    assert max(lengths) <= longest and min(lengths) >= 1
    for index, length in enumerate(lengths):
        assert length <= max(1, sum(lengths[:index]))
    # And not more of them than that takes.
    assert len(lengths) <= 2 + np.log2(min(n_steps, longest)) + n_steps / longest


def test_reproducible_with_normalization_at_any_timing() -> None:
    weights = []
    for backend, max_delay in [("inline", 0.0), ("process", 0.002)]:
        env = samplers(partial(RandomWalk, max_delay), 2, backend)
        model = AsyncPPO("MlpPolicy", VecNormalize(env), mode="pipelined", **SETTINGS)
        model.learn(4 * 60 * N_ENVS)
        weights.append(th.cat([parameter.flatten() for parameter in model.policy.parameters()]))
        env.close()
    assert th.equal(*weights)


def test_callbacks_are_shown_normalised_and_original_numbers() -> None:
    class Look(BaseCallback):
        def _on_step(self) -> bool:
            venv = self.model.get_vec_normalize_env()
            originals = venv.get_original_obs()
            assert originals.dtype == np.float64 and originals.shape == (N_ENVS, 2, 2)
            assert self.locals["new_obs"].dtype == np.float32
            assert np.abs(originals[:, 0, 0]).min() > 900 and np.abs(self.locals["new_obs"]).max() <= 10
            assert venv.get_original_reward().dtype == self.locals["rewards"].dtype == np.float32
            for info in self.locals["infos"]:
                if "terminal_observation" in info:
                    assert info["terminal_observation"].dtype == np.float32
                    assert np.abs(info["terminal_observation"]).max() <= 10
                    # The Monitor is inside.
                    assert abs(info["episode"]["r"]) > 100 or info["episode"]["l"] < 5
                    self.n_ends += 1
            return True

    look = Look()
    look.n_ends = 0
    model = AsyncPPO("MlpPolicy", samplers(Far, 2), normalize=True, **SETTINGS)
    model.learn(2 * 60 * N_ENVS, callback=look)
    assert look.n_ends > 5


def test_switches_take_effect() -> None:
    venv = VecNormalize(samplers(Far, 2))
    model = AsyncPPO("MlpPolicy", venv, mode="sync", **SETTINGS).learn(60 * N_ENVS)
    venv.training = False
    before = deepcopy(statistics_of(venv))
    model.learn(60 * N_ENVS)
    assert {key: rms.count for key, rms in statistics_of(venv).items()} == {k: r.count for k, r in before.items()}
    venv.norm_reward = False
    recorder = Originals()
    model.learn(60 * N_ENVS, callback=recorder)
    np.testing.assert_array_equal([step["rewards"] for step in recorder.steps], recorder.rewards)
    venv.norm_obs = False
    recorder = Originals()
    model.learn(60 * N_ENVS, callback=recorder)
    np.testing.assert_array_equal([step["new_obs"] for step in recorder.steps], recorder.observations[1:])
    venv.training = True
    model.learn(60 * N_ENVS)
    assert venv.obs_rms.count == before["obs"].count and venv.ret_rms.count > before["returns"].count


def test_integers_are_not_cut_down() -> None:
    """SB3's rollout buffer would turn normalised integers into whole numbers, nearly all of them 0."""
    recorder = Recorder()
    model = AsyncPPO("MlpPolicy", VecNormalize(samplers(FarIntegers, 2)), mode="sync", **SETTINGS)
    model.learn(2 * 60 * N_ENVS, callback=recorder)
    seen = recorder.buffers[1]["observations"]
    assert np.issubdtype(seen.dtype, np.floating) and len(np.unique(seen[:, :, 0, 0])) > 20


def test_normalize_is_a_shortcut() -> None:
    for normalize in (True, {}):
        model = AsyncPPO("MlpPolicy", Far, n_samplers=2, normalize=normalize, gamma=0.9, backend="inline", **SETTINGS)
        assert model.get_vec_normalize_env().gamma == 0.9
    venv = model.get_vec_normalize_env()
    assert model.env is venv and isinstance(venv.venv, SamplerVecEnv) and venv.gamma == 0.9
    model.learn(2 * 60 * 2)
    assert venv.obs_rms.count > 2 * 60 * 2
    arguments = {"clip_obs": 5.0, "gamma": 0.5, "norm_reward": False}
    model = AsyncPPO("MlpPolicy", Far, n_samplers=2, normalize=arguments, backend="inline", **SETTINGS)
    venv = model.get_vec_normalize_env()
    assert (venv.clip_obs, venv.gamma, venv.norm_reward) == (5.0, 0.5, False)
    assert AsyncPPO("MlpPolicy", Far, n_samplers=2, backend="inline", **SETTINGS).get_vec_normalize_env() is None


@pytest.mark.parametrize(
    ("env", "normalize", "error", "message"),
    [
        (Far, "yes", TypeError, "normalize must be True, False or a dictionary.*'yes'"),
        (Far, {"clip": 5}, TypeError, "clip"),
        (lambda: VecNormalize(samplers(Far)), True, ValueError, "inside of a VecNormalize already"),
        ("FrozenLake-v1", True, ValueError, "VecNormalize only supports"),
    ],
)
def test_a_wrong_normalize_fails_in_the_constructor(env: Any, normalize: Any, error: type, message: str) -> None:
    built = env() if callable(env) and env is not Far else env
    with pytest.raises(error, match=message):
        AsyncPPO("MlpPolicy", built, normalize=normalize, backend="inline", **SETTINGS)


def test_model_and_statistics_are_saved_and_loaded_as_in_sb3(tmp_path: Path) -> None:
    model = AsyncPPO("MlpPolicy", Far, n_samplers=2, normalize=True, backend="inline", **SETTINGS).learn(2 * 120)
    model.save(tmp_path / "model")
    venv = model.get_vec_normalize_env()
    venv.save(str(tmp_path / "statistics.pkl"))

    in_sb3 = VecNormalize.load(str(tmp_path / "statistics.pkl"), make_vec_env(Far, 2))
    PPO.load(tmp_path / "model", env=in_sb3).learn(240)

    loaded = VecNormalize.load(str(tmp_path / "statistics.pkl"), SamplerVecEnv([Far] * 3, backend="inline"))
    count = loaded.obs_rms.count
    assert count == venv.obs_rms.count
    again = AsyncPPO.load(tmp_path / "model", env=loaded)
    assert again.get_vec_normalize_env() is loaded
    again.learn(180)
    assert loaded.obs_rms.count == pytest.approx(count + 180 + 3)
    with pytest.raises(ValueError, match=r"VecNormalize\.load"):
        AsyncPPO.load(tmp_path / "model", env=Far, normalize=True)


def test_statistics_reach_evaluation_and_checkpoints(tmp_path: Path) -> None:
    evaluation_env = VecNormalize(make_vec_env(Far, 1), training=False)
    evaluation = EvalCallback(evaluation_env, eval_freq=50, n_eval_episodes=1, verbose=0)
    checkpoints = CheckpointCallback(50, str(tmp_path), save_vecnormalize=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = AsyncPPO("MlpPolicy", Far, n_samplers=2, normalize=True, backend="inline", **SETTINGS)
        model.learn(240, callback=[evaluation, checkpoints])
    assert evaluation_env.obs_rms.count > 50
    saved = VecNormalize.load(str(tmp_path / "rl_model_vecnormalize_100_steps.pkl"), make_vec_env(Far, 1))
    assert 50 < saved.obs_rms.count <= model.get_vec_normalize_env().obs_rms.count


@pytest.mark.parametrize("mode", MODES)
def test_rewards_of_the_first_rollout_are_normalised_although_observations_are_not(mode: str) -> None:
    recorder = Recorder()
    env = VecNormalize(samplers(Far, 2), norm_obs=False)
    AsyncPPO("MlpPolicy", env, mode=mode, **SETTINGS).learn(2 * 60 * N_ENVS, callback=recorder)
    for rollout in range(2):
        rewards = np.abs([step["rewards"] for step in recorder.steps[60 * rollout : 60 * rollout + 60]])
        assert np.median(rewards) < 5


@pytest.mark.parametrize("n_samplers", [1, 2])
def test_no_random_number_is_drawn_twice_in_the_first_rollout(n_samplers: int) -> None:
    """There, statistics are published again and again. That must not set back what else was published."""
    recorder = Recorder()
    env = VecNormalize(samplers(Far, n_samplers))
    AsyncPPO("MlpPolicy", env, mode="sync", actor="torch", **SETTINGS).learn(60 * N_ENVS, callback=recorder)
    # Under a policy whose deviation is always the same, a log-probability tells how large the noise was.
    log_probs = np.concatenate([step["log_probs"] for step in recorder.steps])
    assert len(np.unique(log_probs.round(5))) > 0.9 * len(log_probs)


def test_environments_without_normalization_are_warned_of(tmp_path: Path) -> None:
    model = AsyncPPO("MlpPolicy", Far, n_samplers=2, normalize=True, backend="inline", **SETTINGS)
    model.save(tmp_path / "model")
    with pytest.warns(UserWarning, match=r"VecNormalize\.load") as caught:
        model.set_env(samplers(Far))
    assert len(caught) == 1 and caught[0].filename == __file__
    with pytest.warns(UserWarning, match=r"VecNormalize\.load") as caught:
        loaded = AsyncPPO.load(tmp_path / "model", env=Far, n_samplers=2, backend="inline")
    assert len(caught) == 1 and caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AsyncPPO.load(tmp_path / "model")
        loaded.set_env(VecNormalize(samplers(Far)))


def test_a_switch_does_not_disturb_what_is_inside_of_vec_normalize() -> None:
    """A monitor that was rebuilt in the middle of an episode would report a short one."""

    class SwitchOff(Recorder):
        def _on_step(self) -> bool:
            self.model.get_vec_normalize_env().norm_reward = self.n_calls < 70
            return super()._on_step()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = VecNormalize(VecMonitor(SamplerVecEnv([Fixed] * 2, envs_per_sampler=2, backend="inline")))
    recorder = SwitchOff()
    model = AsyncPPO("MlpPolicy", env, mode="sync", **SETTINGS)
    model.learn(4 * 60 * 2, callback=recorder)
    assert {info["l"] for info in model.ep_info_buffer} == {25}
