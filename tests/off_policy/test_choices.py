"""What off-policy algorithms do not take, and how they say so; saving, loading and logging."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from off_policy_pairs import Reach, Walk, tiny
from oracle import assert_same_policies
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import SubprocVecEnv
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_walle import AsyncDDPG, AsyncDQN, AsyncOffPolicyMixin, AsyncSAC, AsyncTD3, NonFiniteError, SamplerVecEnv


def inline() -> dict[str, Any]:
    return tiny(backend="inline")


REFUSED: dict[str, tuple[type, Any, dict[str, Any], type[Exception], str]] = {
    "episodes of several environments": (
        AsyncTD3,
        Walk,
        {"train_freq": (2, "episode"), "n_samplers": 2},
        ValueError,
        "You must use only one env when doing episodic training",
    ),
    "frequency": (AsyncTD3, Walk, {"train_freq": "4"}, ValueError, "must be an integer and not 4"),
    "unit": (AsyncTD3, Walk, {"train_freq": (2, "hours")}, ValueError, "must be either 'step' or 'episode'"),
    "a ladder for SAC": (AsyncSAC, Walk, {"noise_ladder": "apex"}, ValueError, "AsyncSAC learns how much to explore"),
    "an unknown ladder": (AsyncTD3, Walk, {"noise_ladder": "stairs"}, ValueError, "must be one of ('apex',)"),
    "a ladder with one rung": (
        AsyncTD3,
        Walk,
        {"noise_ladder": "apex", "n_samplers": 1},
        ValueError,
        "it takes at least 2",
    ),
    "a ladder and noise": (
        AsyncTD3,
        Walk,
        {"noise_ladder": "apex", "n_samplers": 2, "action_noise": NormalActionNoise(np.zeros(2), np.ones(2))},
        ValueError,
        "Leave out one of noise_ladder and action_noise",
    ),
    "discrete actions": (AsyncDDPG, "CartPole-v1", {}, AssertionError, "only supports"),
    "continuous actions": (AsyncDQN, Walk, {}, AssertionError, "only supports"),
    "a NumPy actor with gSDE": (
        AsyncSAC,
        Walk,
        {"actor": "numpy", "use_sde": True},
        ValueError,
        "cannot explore as this algorithm does: it uses gSDE",
    ),
    "a lag without a bound to have": (
        AsyncSAC,
        Walk,
        {"mode": "sync", "max_policy_lag": 3},
        ValueError,
        "whose policy lag is fixed",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_bad_arguments_are_refused(case: tuple[type, Any, dict[str, Any], type[Exception], str]) -> None:
    algorithm, env, arguments, error, message = case
    with pytest.raises(error) as raised:
        algorithm("MlpPolicy", env, **{**inline(), "n_samplers": 1, **arguments})
    assert message in str(raised.value)


def test_the_mixin_stands_before_an_algorithm_whose_loop_is_sb3s() -> None:
    with pytest.raises(TypeError, match="must stand before the algorithm"):
        type("Wrong", (SAC, AsyncOffPolicyMixin), {})

    class OwnLoop(SAC):
        def collect_rollouts(self, *args: Any, **kwargs: Any) -> Any:
            return super().collect_rollouts(*args, **kwargs)

    with pytest.raises(TypeError, match="OwnLoop has a collect_rollouts"):
        type("Wrong", (AsyncOffPolicyMixin, OwnLoop), {})


@contextmanager
def samplers(n_envs: int) -> Iterator[SamplerVecEnv]:
    env = SamplerVecEnv([Walk] * n_envs, backend="inline")
    yield env
    env.close()


def test_a_buffer_of_another_number_of_environments_is_refused(tmp_path: Path) -> None:
    with AsyncSAC("MlpPolicy", Walk, n_samplers=2, **inline()) as model:
        model.learn(20)
        model.save_replay_buffer(tmp_path / "buffer")
    with AsyncSAC("MlpPolicy", Walk, n_samplers=3, **inline()) as other:
        with pytest.raises(ValueError, match="experience of 2 environments, one column each, and there are 3"):
            other.load_replay_buffer(tmp_path / "buffer")
        other.learn(30)
        with samplers(2) as env, pytest.raises(ValueError, match="experience of 3 environments"):
            other.set_env(env)
        assert other.n_envs == 3
        other.learn(30)


def test_models_and_buffers_travel_between_sb3_and_samplers(tmp_path: Path) -> None:
    with AsyncSAC("MlpPolicy", Walk, n_samplers=1, noise_ladder=None, **inline()) as model:
        model.learn(60)
        model.save(tmp_path / "model")
        model.save_replay_buffer(tmp_path / "buffer")
        sb3s = SAC.load(tmp_path / "model", Walk(), device="cpu")
        sb3s.load_replay_buffer(tmp_path / "buffer")
        assert_same_policies(model, sb3s)
        assert sb3s.replay_buffer is not None and sb3s.replay_buffer.pos == model.replay_buffer.pos
    sb3s.learn(20, reset_num_timesteps=False)
    sb3s.save(tmp_path / "model")
    sb3s.save_replay_buffer(tmp_path / "buffer")
    back = AsyncSAC.load(tmp_path / "model", Walk, n_samplers=1, backend="inline", actor="torch", device="cpu")
    with back:
        back.load_replay_buffer(tmp_path / "buffer")
        assert_same_policies(sb3s, back)
        assert back.sampler_actor == "torch" and back.num_timesteps == 80
        back.learn(20, reset_num_timesteps=False)
        assert back.num_timesteps == 100 and back.replay_buffer.pos == 100


def test_a_buffer_is_loaded_where_there_is_no_other(tmp_path: Path) -> None:
    """People delete the buffer first, so as to need memory for one only."""
    with AsyncSAC("MlpPolicy", Walk, n_samplers=2, **inline()) as model:
        model.learn(40)
        model.save_replay_buffer(tmp_path / "buffer")
        model.save(tmp_path / "model")
        del model.replay_buffer
        model.save(tmp_path / "model")
        assert model.predict(np.zeros(2, np.float32))[0].shape == (2,)
        model.load_replay_buffer(tmp_path / "buffer")
        assert model.replay_buffer.pos == 20
        model.learn(40, reset_num_timesteps=False)
        assert model.replay_buffer.pos == 40
        del model.replay_buffer
    with AsyncSAC("MlpPolicy", Walk, n_samplers=3, **inline()) as other:
        del other.replay_buffer
        with pytest.raises(ValueError, match="experience of 2 environments"):
            other.load_replay_buffer(tmp_path / "buffer")
        with samplers(2) as env:
            other.set_env(env)
            other.load_replay_buffer(tmp_path / "buffer")
            other.learn(20)


class Lines(KVWriter):
    """Keeps all that is logged, one dictionary for each dump."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self.lines.append(dict(key_values))

    def close(self) -> None:
        pass


def pickled(model: Any) -> Any:
    return cloudpickle.loads(cloudpickle.dumps(model))


@pytest.mark.parametrize(
    ("algorithm", "env", "policy", "further", "copied"),
    [
        (AsyncDQN, "CartPole-v1", "MlpPolicy", {}, pickled),
        (AsyncSAC, Walk, "MlpPolicy", {"use_sde": True}, copy.deepcopy),
        (AsyncSAC, Reach, "MultiInputPolicy", {"replay_buffer_class": HerReplayBuffer}, copy.deepcopy),
        (AsyncSAC, Reach, "MultiInputPolicy", {"replay_buffer_class": HerReplayBuffer}, pickled),
    ],
)
def test_copies_continue_training(algorithm: Any, env: Any, policy: str, further: Any, copied: Any) -> None:
    with algorithm(policy, env, n_samplers=2, **inline(), **further) as model:
        model.learn(40)
        twin = copied(model)
        assert twin.get_env() is None and twin.replay_buffer.pos == model.replay_buffer.pos
        for learning in (model, twin):
            learning.set_env(make_vec_env(env, 2, vec_env_cls=SamplerVecEnv, vec_env_kwargs={"backend": "inline"}))
            learning.learn(40, reset_num_timesteps=False)
            assert learning.num_timesteps == 80 and learning.replay_buffer.pos == 40
        twin.get_env().close()


def test_logs_come_with_episodes_as_in_sb3() -> None:
    written = Lines()
    with AsyncDQN("MlpPolicy", "CartPole-v1", n_samplers=2, **inline()) as model:
        model.set_logger(Logger(None, [written]))
        model.learn(300, log_interval=2)
    assert len(written.lines) == model._episode_num // 2 >= 3
    last = written.lines[-1]
    # train_freq is 4 by default: one gradient step for four steps of two environments.
    assert last["async/replay_ratio"] == pytest.approx(1 / 8)
    assert {"rollout/exploration_rate", "rollout/ep_rew_mean", "time/episodes", "time/fps"} <= last.keys()
    assert {"async/policy_lag_max", "async/queue_fill", "async/restarts", "time/learn_seconds"} <= last.keys()
    assert last["async/bottleneck"] in ("learner", "samplers", "slowest sampler 0", "slowest sampler 1")


@pytest.mark.parametrize("algorithm", [AsyncSAC, AsyncTD3])
def test_gradients_that_are_not_finite_stop_the_update(algorithm: Any) -> None:
    with algorithm("MlpPolicy", Walk, n_samplers=1, check_nan=True, **inline()) as model:
        model.learn(40)
        before = {name: value.clone() for name, value in model.policy.actor.state_dict().items()}
        model.replay_buffer.rewards[:] = np.inf
        with pytest.raises(NonFiniteError, match=r"Gradient step .* was stopped before it could change the weights"):
            model.train(1, 16)
        assert all((before[name] == value).all() for name, value in model.policy.actor.state_dict().items())


def test_environments_that_are_not_in_samplers_train_as_in_sb3() -> None:
    oracle = TD3("MlpPolicy", Walk(), **tiny()).learn(60)
    with pytest.warns(UserWarning, match="in lockstep and without samplers"):
        model = AsyncTD3("MlpPolicy", SubprocVecEnv([Walk]), **tiny())
    with model:
        model.learn(60)
    assert_same_policies(oracle, model)


def test_the_base_of_all_is_sb3s() -> None:
    assert issubclass(AsyncDQN, DQN) and issubclass(AsyncSAC, OffPolicyAlgorithm)
