"""AsyncA2C is SB3's A2C, as other algorithms are with the mixin before them; those that cannot be are refused."""

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch as th
from oracle import assert_same_policies
from sb3_contrib import ARS, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from toy_envs import DictEnv, RandomWalk, StampedEnv

import sb3_walle
from sb3_walle import AsyncA2C, AsyncOffPolicyMixin, AsyncOnPolicyMixin, AsyncPPO

SETTINGS: dict[str, Any] = {"seed": 3, "device": "cpu"}
AS_IN_SB3: dict[str, Any] = {"n_samplers": 1, "actor": "torch", "backend": "inline"}


def assert_trains_like(
    oracle_class: type, async_class: type, env: Any, n_envs: int, policy: str, n_rollouts: int, **settings: Any
) -> None:
    settings = {**SETTINGS, **settings}
    oracle = oracle_class(policy, make_vec_env(env, n_envs), **settings)
    initial = {name: tensor.clone() for name, tensor in oracle.policy.state_dict().items()}
    total = n_rollouts * oracle.n_steps * n_envs
    oracle.learn(total)
    model = async_class(policy, env, envs_per_sampler=n_envs, **AS_IN_SB3, **settings).learn(total)
    assert model.num_timesteps == oracle.num_timesteps == total
    returns = [[info["r"] for info in algorithm.ep_info_buffer or ()] for algorithm in (oracle, model)]
    assert returns[0] == returns[1] != []
    assert_same_policies(oracle, model)
    assert not all(th.equal(tensor, initial[name]) for name, tensor in model.policy.state_dict().items())


@pytest.mark.parametrize(
    ("env", "n_envs"),
    [
        pytest.param("CartPole-v1", 4, id="discrete"),
        pytest.param(RandomWalk, 1, id="continuous"),
        pytest.param(StampedEnv, 4, id="float64 observations"),
    ],
)
def test_training_equals_sb3(env: Any, n_envs: int) -> None:
    """With the default of five steps in a rollout."""
    assert_trains_like(A2C, AsyncA2C, env, n_envs, "MlpPolicy", n_rollouts=20)


@pytest.mark.parametrize(
    ("env", "policy", "settings"),
    [
        ("Pendulum-v1", "MlpPolicy", {"n_steps": 130, "normalize_advantage": True, "use_rms_prop": False}),
        ("Pendulum-v1", "MlpPolicy", {"n_steps": 70, "use_sde": True, "sde_sample_freq": 4}),
        (DictEnv, "MultiInputPolicy", {"gae_lambda": 0.9, "ent_coef": 0.01}),
    ],
    ids=["rollouts longer than a chunk", "state-dependent exploration", "dictionaries"],
)
def test_training_with_other_settings_equals_sb3(env: Any, policy: str, settings: dict[str, Any]) -> None:
    assert_trains_like(A2C, AsyncA2C, env, 2, policy, n_rollouts=6, **settings)


def test_the_policy_that_samplers_run_is_never_an_old_one() -> None:
    model = AsyncA2C("MlpPolicy", StampedEnv, n_samplers=3, backend="inline", **SETTINGS)
    lags = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            lags.append(model._experience.collector.statistics.policy_lag_max)

    model.learn(10 * 15, callback=Watch())
    assert model.mode == "sync" and model.policy_version == 10 and lags == 10 * [0]


def test_what_asynca2c_saves_loads_in_a2c_and_trains_on(tmp_path: Path) -> None:
    model = AsyncA2C("MlpPolicy", "CartPole-v1", n_samplers=2, backend="inline", **SETTINGS).learn(50)
    model.save(tmp_path / "model")
    loaded = A2C.load(tmp_path / "model", env=make_vec_env("CartPole-v1", 3))
    assert type(loaded) is A2C and loaded.num_timesteps == 50
    assert_same_policies(model, loaded)
    loaded.learn(30)


def test_what_a2c_saves_loads_in_asynca2c_and_trains_on(tmp_path: Path) -> None:
    oracle = A2C("MlpPolicy", make_vec_env("CartPole-v1", 2), **SETTINGS).learn(50)
    oracle.save(tmp_path / "model")
    env = make_vec_env("CartPole-v1", 2)
    settings = {"n_samplers": 1, "backend": "inline", "actor": "torch"}
    loaded = AsyncA2C.load(tmp_path / "model", env=env, device="cpu", **settings)
    assert loaded.mode == "sync" and loaded.num_timesteps == 50
    assert_same_policies(oracle, loaded)
    # The optimizer's state has come along as well: both continue alike.
    oracle = A2C.load(tmp_path / "model", env=make_vec_env("CartPole-v1", 2), device="cpu")
    for algorithm in (oracle, loaded):
        algorithm.set_random_seed(7)
        algorithm.learn(50)
    assert_same_policies(oracle, loaded)


def test_sb3s_figures_and_our_own_are_logged(tmp_path: Path) -> None:
    models = {
        "sb3": A2C("MlpPolicy", make_vec_env("Pendulum-v1", 2), **SETTINGS),
        "ours": AsyncA2C("MlpPolicy", "Pendulum-v1", n_samplers=2, backend="inline", **SETTINGS),
    }
    logs = {}
    for name, model in models.items():
        model.set_logger(configure(str(tmp_path / name), ["json"]))
        model.learn(450, log_interval=15)
        model.logger.close()
        logs[name] = [json.loads(line) for line in (tmp_path / name / "progress.json").read_text().splitlines()]
    keys = {name: {key for row in rows for key in row} for name, rows in logs.items()}
    own = {"time/collect_seconds", "time/wait_seconds", "time/learn_seconds"}
    own |= {"async/policy_lag_mean", "async/policy_lag_max", "async/sampler_steps_per_second", "async/queue_fill"}
    own |= {"async/restarts", "async/bottleneck"}
    assert keys["sb3"] <= keys["ours"] and keys["ours"] - keys["sb3"] == own
    assert {"train/policy_loss", "train/std", "rollout/ep_rew_mean"} <= keys["sb3"]
    timesteps = [[row["time/total_timesteps"] for row in rows] for rows in logs.values()]
    assert timesteps[0] == timesteps[1] == [150, 300, 450]


@pytest.mark.parametrize("mode", ["pipelined", "free"])
def test_a_mode_with_a_policy_lag_is_refused(mode: str) -> None:
    message = rf"AsyncA2C cannot learn in mode='{mode}'.*does not correct for a policy lag.*mode='sync'.*AsyncPPO"
    with pytest.raises(ValueError, match=message):
        AsyncA2C("MlpPolicy", "CartPole-v1", mode=mode, backend="inline")
    model = AsyncA2C("MlpPolicy", "CartPole-v1", n_samplers=1, backend="inline")
    model.mode = mode
    with pytest.raises(ValueError, match=message):
        model.learn(5)


def test_an_unknown_mode_is_refused_with_those_that_are_supported() -> None:
    with pytest.raises(ValueError, match=r"mode must be one of \('sync',\), got 'fast'"):
        AsyncA2C("MlpPolicy", "CartPole-v1", mode="fast", backend="inline")
    with pytest.raises(ValueError, match=r"max_policy_lag=1 was given with mode='sync'.*fixed \(0\). Leave it out"):
        AsyncA2C("MlpPolicy", "CartPole-v1", max_policy_lag=1, backend="inline")


def test_the_mode_is_checked_at_loading(tmp_path: Path) -> None:
    a2c, ppo = tmp_path / "a2c", tmp_path / "ppo"
    AsyncA2C("MlpPolicy", "CartPole-v1", n_samplers=1, backend="inline", **SETTINGS).save(a2c)
    AsyncPPO("MlpPolicy", "CartPole-v1", n_samplers=1, backend="inline", mode="pipelined", **SETTINGS).save(ppo)
    with pytest.raises(ValueError, match="AsyncA2C cannot learn in mode='free'"):
        AsyncA2C.load(a2c, mode="free")
    # What was saved is as good a reason as what was asked for.
    with pytest.raises(ValueError, match="AsyncA2C cannot learn in mode='pipelined'"):
        AsyncA2C.load(ppo)
    assert AsyncA2C.load(ppo, mode="sync").mode == "sync"
    loaded = A2C.load(ppo)
    assert loaded.predict(loaded.observation_space.sample())[0] in (0, 1)


class Peculiar(PPO):
    """Collects in a way of its own."""

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> bool:
        return super().collect_rollouts(*args, **kwargs)


class Heir(Peculiar):
    """Has inherited it."""


@pytest.mark.parametrize(
    ("algorithm", "owner"),
    [
        (RecurrentPPO, "RecurrentPPO"),
        (MaskablePPO, "MaskablePPO"),
        (Peculiar, "Peculiar"),
        (Heir, "Peculiar"),
    ],
)
def test_an_algorithm_that_collects_in_a_way_of_its_own_is_refused(algorithm: type, owner: str) -> None:
    message = rf"^Mine cannot collect with samplers: {owner} has .*AsyncRecurrentPPO, .*AsyncMaskablePPO"
    with pytest.raises(TypeError, match=message):
        type("Mine", (AsyncOnPolicyMixin, algorithm), {})


class SacInJax(SAC):
    """As SBX's algorithms: with SB3's loop and a policy that is not PyTorch's, of which there is nothing to save."""

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return [], []


KIND = "Mine cannot collect with samplers: {} stands before algorithms that are subclasses of SB3's .*and {} is none"


@pytest.mark.parametrize(
    ("bases", "message"),
    [
        ((AsyncOnPolicyMixin, ARS), KIND.format("AsyncOnPolicyMixin", "ARS")),
        ((ARS, AsyncOffPolicyMixin), KIND.format("AsyncOffPolicyMixin", "ARS")),
        ((AsyncOnPolicyMixin, SAC), KIND.format("AsyncOnPolicyMixin", "SAC")),
        ((AsyncOffPolicyMixin, PPO), KIND.format("AsyncOffPolicyMixin", "PPO")),
        ((AsyncOffPolicyMixin, SacInJax), "Mine cannot collect with samplers: SacInJax has no policy in PyTorch"),
    ],
)
def test_what_the_mixin_is_not_for_is_refused(bases: tuple[type, ...], message: str) -> None:
    with pytest.raises(TypeError, match=rf"^{message}.* vec_env_cls=SamplerVecEnv"):
        type("Mine", bases, {})


class Foreign:
    """Something of another library."""

    def __init__(self, policy: str, env: str) -> None:
        pytest.fail("it is asked for nothing")


@pytest.mark.parametrize("mixin", [AsyncOnPolicyMixin, AsyncOffPolicyMixin])
def test_what_is_no_algorithm_is_refused(mixin: Any) -> None:
    # Mixins of a user's own are no algorithms yet.
    own_mixin = type("OwnMixin", (mixin,), {})
    for bases in ((mixin,), (mixin, Foreign), (own_mixin, Foreign)):
        with pytest.raises(TypeError, match=r"^Mine is no algorithm of SB3: none is among its bases"):
            type("Mine", bases, {})("MlpPolicy", "CartPole-v1")


def test_it_is_refused_behind_an_asynchronous_one_too() -> None:
    with pytest.raises(TypeError, match="Mine cannot collect with samplers: RecurrentPPO has"):
        type("Mine", (AsyncPPO, RecurrentPPO), {})


def test_the_mixin_behind_the_algorithm_is_refused() -> None:
    with pytest.raises(TypeError, match="In the bases of Mine, AsyncOnPolicyMixin must stand before the algorithm"):
        type("Mine", (PPO, AsyncOnPolicyMixin), {})


def test_collect_rollouts_may_be_overridden_before_the_mixin() -> None:
    class Counting(AsyncPPO):
        n_calls = 0

        def collect_rollouts(self, *args: Any, **kwargs: Any) -> bool:
            self.n_calls += 1
            return super().collect_rollouts(*args, **kwargs)

    class OneMore(AsyncOnPolicyMixin):
        """No algorithm yet."""

    class Complete(OneMore, A2C):
        supported_modes: ClassVar[tuple[str, ...]] = ("sync",)

    model = Counting("MlpPolicy", StampedEnv, n_samplers=2, n_steps=32, batch_size=32, backend="inline", **SETTINGS)
    assert model.learn(3 * 64).n_calls == 3
    assert Complete("MlpPolicy", StampedEnv, n_samplers=2, backend="inline", **SETTINGS).learn(20).num_timesteps == 20


def test_the_public_names() -> None:
    assert {"AsyncA2C", "AsyncOnPolicyMixin", "AsyncPPO"} <= set(sb3_walle.__all__)
    for name in sb3_walle.__all__:
        assert getattr(sb3_walle, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'AsyncUnknown'"):
        _ = sb3_walle.AsyncUnknown
