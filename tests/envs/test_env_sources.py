"""All that PPO takes as an environment, AsyncPPO takes, and puts into samplers if that is possible."""

import copy
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper
from toy_envs import RandomWalk, StampedEnv

from sb3_walle import AsyncPPO, SamplerVecEnv, SamplerWarning
from sb3_walle.backends.limits import available_cpus
from sb3_walle.envs.env_sources import SamplerChoices

SETTINGS: dict[str, Any] = {"n_steps": 32, "batch_size": 32, "n_epochs": 1, "backend": "inline", "device": "cpu"}


def trained(env: Any, **kwargs: Any) -> AsyncPPO:
    model = AsyncPPO("MlpPolicy", env, **{**SETTINGS, **kwargs})
    model.learn(64 * model.n_envs)
    assert model.num_timesteps == 64 * model.n_envs
    return model


def samplers(model: AsyncPPO) -> SamplerVecEnv:
    assert isinstance(model.env, SamplerVecEnv)
    return model.env


@pytest.mark.parametrize("env", ["CartPole-v1", StampedEnv, lambda: StampedEnv(3), lambda: gym.make("CartPole-v1")])
def test_ids_and_factories_are_built_in_every_sampler(env: Any) -> None:
    model = trained(env, n_samplers=3, envs_per_sampler=2)
    assert (samplers(model).n_samplers, samplers(model).envs_per_sampler, model.n_envs) == (3, 2, 6)


def test_one_sampler_for_each_cpu_is_the_default() -> None:
    assert samplers(trained(StampedEnv)).n_samplers == available_cpus()


def test_an_environment_brings_its_wrappers_and_arguments() -> None:
    env = gym.wrappers.TimeLimit(gym.make("CartPole-v1", sutton_barto_reward=True), 5)
    model = trained(env, n_samplers=2)
    assert samplers(model).env_is_wrapped(gym.wrappers.TimeLimit) == [True, True]
    assert samplers(model).get_attr("_sutton_barto_reward") == [True, True]
    assert all(info["l"] <= 5 for info in model.ep_info_buffer or ())


def test_an_environment_without_a_spec_is_moved_by_pickling() -> None:
    model = trained(StampedEnv(identity=7), n_samplers=2)
    assert samplers(model).get_attr("identity") == [7, 7]


def test_pickled_copies_do_not_share_their_random_stream() -> None:
    env = RandomWalk()
    env.reset()
    model = AsyncPPO("MlpPolicy", env, n_samplers=3, **SETTINGS)
    assert len({tuple(observation) for observation in samplers(model).reset()}) == 3


def test_a_single_copy_continues_the_random_stream_of_the_original_as_in_sb3() -> None:
    env = RandomWalk()
    env.reset(seed=5)
    expected = copy.deepcopy(env)
    model = AsyncPPO("MlpPolicy", env, n_samplers=1, **SETTINGS)
    np.testing.assert_array_equal(samplers(model).reset()[0], expected.reset()[0])


class Dice(gym.Env):
    """Draws from a generator of its own, with any seed."""

    observation_space, action_space = gym.spaces.Box(-9, 9, (1,), np.float32), gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.dice = np.random.default_rng(1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        return self.dice.normal(size=1).astype(np.float32), {}


@pytest.mark.parametrize("backend", ["inline", "process"])
def test_copies_with_a_generator_of_their_own_do_not_share_its_stream(backend: str) -> None:
    model = AsyncPPO("MlpPolicy", Dice(), n_samplers=2, envs_per_sampler=2, **{**SETTINGS, "backend": backend})
    first = samplers(model).reset()
    assert len({float(observation[0]) for observation in first}) == 4
    # The same ones in the next run.
    again = AsyncPPO("MlpPolicy", Dice(), n_samplers=2, envs_per_sampler=2, **SETTINGS)
    np.testing.assert_array_equal(samplers(again).reset(), first)
    model.env.close()


@pytest.mark.parametrize("wrap", [lambda env: env, Monitor])
def test_a_function_that_returns_one_environment_again_is_sb3_s_error(wrap: Any) -> None:
    env = StampedEnv()
    with pytest.raises(ValueError, match="returned the same environment more than once"):
        AsyncPPO("MlpPolicy", lambda: wrap(env), n_samplers=2, **SETTINGS)
    with pytest.raises(ValueError, match="returned the same environment more than once"):
        make_vec_env(lambda: wrap(env), 2, vec_env_cls=SamplerVecEnv, vec_env_kwargs={"backend": "inline"})
    model = AsyncPPO("MlpPolicy", lambda: wrap(env), n_samplers=1, **SETTINGS)
    assert samplers(model).get_attr("identity") == [0]


def test_a_function_that_returns_one_environment_in_several_processes_is_sb3_s_error() -> None:
    env = StampedEnv()
    with pytest.raises(ValueError, match="returned the same environment more than once"):
        SamplerVecEnv([lambda: env] * 2)


def edited_cartpole() -> gym.Env:
    env = gym.make("CartPole-v1", max_episode_steps=37)
    env.unwrapped.theta_threshold_radians = env.unwrapped.x_threshold = 1e9
    return env


@pytest.mark.parametrize("around", [lambda env: env, lambda env: VecNormalize(DummyVecEnv([lambda: Monitor(env)]))])
def test_an_environment_that_was_changed_trains_as_it_is(around: Any) -> None:
    model = trained(around(edited_cartpole()), n_samplers=1)
    assert {episode["l"] for episode in model.ep_info_buffer} == {37}


def slow_falling_cheetah() -> gym.Env:
    env = gym.make("HalfCheetah-v5")
    env.unwrapped.model.opt.gravity[:] = (0, 0, -2)
    env.reset(seed=4)
    return env


def test_a_mujoco_environment_with_another_gravity_trains_as_in_sb3() -> None:
    settings = {**SETTINGS, "seed": 3}
    del settings["backend"]
    sb3 = PPO("MlpPolicy", slow_falling_cheetah(), **settings).learn(64)
    plain = PPO("MlpPolicy", gym.make("HalfCheetah-v5"), **settings).learn(64)
    ours = AsyncPPO(
        "MlpPolicy", slow_falling_cheetah(), n_samplers=1, mode="sync", actor="torch", learner="eager", **settings
    ).learn(64)
    np.testing.assert_array_equal(ours.rollout_buffer.observations, sb3.rollout_buffer.observations)
    assert np.any(plain.rollout_buffer.observations != sb3.rollout_buffer.observations)
    ours.env.close()


def test_sb3_s_environment_for_her_can_be_handed_over() -> None:
    env = BitFlippingEnv(n_bits=4, continuous=True, max_steps=4)
    settings = {**SETTINGS, "backend": "process"}
    model = AsyncPPO("MultiInputPolicy", env, n_samplers=2, **settings).learn(64)
    assert samplers(model).get_attr("continuous") == [True] * 2
    model.env.close()


@pytest.fixture
def _registry() -> Iterator[None]:
    before = dict(gym.registry)
    yield
    gym.registry.clear()
    gym.registry.update(before)


def registered_locally(env_id: str) -> str:
    class Local(StampedEnv):
        """Samplers cannot import it."""

    gym.register(env_id, entry_point=Local, kwargs={"identity": 9})
    return env_id


class Switching(StampedEnv):
    """Makes another environment when it is told to."""

    def make(self, env_id: str) -> int:
        return gym.make(env_id, disable_env_checker=True).unwrapped.identity


@pytest.mark.usefixtures("_registry")
def test_ids_that_the_program_registers_exist_in_samplers() -> None:
    registered_locally("Local-v0")
    ways = [
        "Local-v0",
        partial(gym.make, "Local-v0", disable_env_checker=True),
        make_vec_env("Local-v0", 2, vec_env_cls=SamplerVecEnv),
    ]
    for env in ways:
        settings = {**SETTINGS, "backend": "process"}
        model = AsyncPPO("MlpPolicy", env, n_samplers=2, **settings)
        assert samplers(model).get_attr("identity") == [9, 9]
        model.env.close()


@pytest.mark.usefixtures("_registry")
def test_ids_that_are_registered_later_exist_in_samplers_and_those_that_replace_them() -> None:
    env = SamplerVecEnv([Switching] * 2)
    registered_locally("Later-v0")
    assert env.env_method("make", "Later-v0") == [9, 9]
    env.client._samplers.kill(0)
    registered_locally("StillLater-v0")
    with pytest.warns(SamplerWarning):
        assert env.env_method("make", "StillLater-v0") == [9, 9]
    assert env.env_method("make", "Later-v0") == [9, 9]
    env.close()


def test_start_method_is_ignored_with_one_line() -> None:
    with pytest.warns(UserWarning, match="ignores start_method='fork'") as caught:
        env = make_vec_env(
            StampedEnv, 2, vec_env_cls=SamplerVecEnv, vec_env_kwargs={"start_method": "fork", "backend": "inline"}
        )
    (warning,) = caught
    assert warning.filename == __file__ and "\n" not in str(warning.message)
    assert env.reset().shape == (2, 3)


class LockedEnv(StampedEnv):
    """Cannot be pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def test_an_environment_that_cannot_be_moved_is_refused_with_the_remedy() -> None:
    with pytest.raises(TypeError, match="Pass a function that builds it"):
        AsyncPPO("MlpPolicy", LockedEnv(), **SETTINGS)


def test_the_sb3_idiom_works() -> None:
    env = make_vec_env("CartPole-v1", 4, seed=1, vec_env_cls=SamplerVecEnv, vec_env_kwargs={"envs_per_sampler": 2})
    assert env.backend == "process"
    model = trained(env)
    assert model.get_env() is env and samplers(model).n_samplers == 2
    env.close()


@pytest.mark.parametrize(("n_samplers", "expected"), [(None, (4, 1)), (2, (2, 2)), (1, (1, 4))])
def test_a_dummy_vec_env_hands_its_environments_over(n_samplers: int | None, expected: tuple[int, int]) -> None:
    given = DummyVecEnv([lambda i=i: Monitor(StampedEnv(i)) for i in range(4)])
    given.seed(11)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = trained(given, n_samplers=n_samplers)
    assert (samplers(model).n_samplers, samplers(model).envs_per_sampler) == expected
    assert samplers(model).get_attr("identity") == [0, 1, 2, 3]


def test_a_seeded_dummy_vec_env_stays_seeded() -> None:
    given = make_vec_env("CartPole-v1", 2, seed=11)
    expected = make_vec_env("CartPole-v1", 2, seed=11).reset()
    model = AsyncPPO("MlpPolicy", given, **SETTINGS)
    np.testing.assert_array_equal(samplers(model).reset(), expected)


class Doubled(VecEnvWrapper):
    """A wrapper of the user's own."""

    def reset(self) -> np.ndarray:
        return self.venv.reset()

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        return observations, 2 * rewards, dones, infos


FOREIGN_ENVS = {
    "SubprocVecEnv": lambda: make_vec_env("CartPole-v1", 2, vec_env_cls=SubprocVecEnv),
    "VecNormalize in SubprocVecEnv": lambda: VecNormalize(make_vec_env("CartPole-v1", 2, vec_env_cls=SubprocVecEnv)),
    "pickling it failed": lambda: DummyVecEnv([LockedEnv]),
    "Doubled": lambda: Doubled(make_vec_env("CartPole-v1", 2)),
}


@pytest.mark.parametrize("name", FOREIGN_ENVS)
def test_any_other_vec_env_trains_in_lockstep_with_one_warning(name: str) -> None:
    env = FOREIGN_ENVS[name]()
    with pytest.warns(UserWarning, match=name.split()[-1]) as caught:
        # Samplers of this process would take an environment that cannot be pickled as it is.
        model = AsyncPPO("MlpPolicy", env, **{**SETTINGS, "backend": "process"})
    assert len(caught) == 1
    # The warning points to this file, not into the package.
    assert caught[0].filename == __file__
    assert model.env is env
    model.learn(128)
    assert model.num_timesteps >= 128
    env.close()


def unpicklable_spec() -> gym.Env:
    """What its process cannot send."""
    env = gym.make("CartPole-v1")
    env.unwrapped.spec.kwargs["lock"] = threading.Lock()
    return env


def dead(env: SubprocVecEnv) -> SubprocVecEnv:
    env.processes[1].kill()
    env.processes[1].join()
    return env


def with_a_step_under_way(env: SubprocVecEnv) -> SubprocVecEnv:
    env.reset()
    env.step_async(np.zeros(2, int))
    return env


def closed(env: SubprocVecEnv) -> SubprocVecEnv:
    env.close()
    return env


UNKNOWN = "make_vec_env(..., n_envs=2, vec_env_cls=SamplerVecEnv), or SamplerVecEnv(env_fns) with the same 2 functions."
KNOWN = (
    'make_vec_env("CartPole-v1", n_envs=2, vec_env_cls=SamplerVecEnv), '
    'or pass env="CartPole-v1", n_envs=2 to the algorithm.'
)
SUBPROCESSES = {
    "ids": (lambda: SubprocVecEnv([lambda: Monitor(gym.make("CartPole-v1"))] * 2), KNOWN),
    "a spec that cannot be pickled": (lambda: SubprocVecEnv([unpicklable_spec] * 2), KNOWN),
    "functions": (lambda: SubprocVecEnv([StampedEnv] * 2), UNKNOWN),
    "several ids": (
        lambda: SubprocVecEnv([lambda name=name: gym.make(name) for name in ("CartPole-v0", "CartPole-v1")]),
        UNKNOWN,
    ),
    "a step under way": (lambda: with_a_step_under_way(SubprocVecEnv([StampedEnv] * 2)), UNKNOWN),
    "a dead process": (lambda: dead(SubprocVecEnv([StampedEnv] * 2)), UNKNOWN),
    "closed": (lambda: closed(SubprocVecEnv([StampedEnv] * 2)), UNKNOWN),
}


@pytest.mark.parametrize("name", SUBPROCESSES)
def test_the_warning_of_a_subproc_vec_env_shows_what_to_write(name: str) -> None:
    build, expected = SUBPROCESSES[name]
    env = build()
    with pytest.warns(UserWarning, match="cannot be taken out of a SubprocVecEnv") as caught:
        AsyncPPO("MlpPolicy", env, **SETTINGS)
    (warning,) = [text for text in map(str, (entry.message for entry in caught)) if "SubprocVecEnv" in text]
    assert warning.endswith(f"Replace SubprocVecEnv by SamplerVecEnv: {expected}")
    if name == "a step under way":
        assert env.step_wait()[0].shape == (2, 3)
    if name not in ("a dead process", "closed"):
        assert env.reset().shape[0] == 2
        env.close()


def test_what_to_write_instead_of_a_subproc_vec_env_works() -> None:
    env = make_vec_env("CartPole-v1", n_envs=2, vec_env_cls=SamplerVecEnv, vec_env_kwargs={"backend": "inline"})
    with AsyncPPO("MlpPolicy", env, **SETTINGS) as model:
        assert isinstance(model.env, SamplerVecEnv) and model.n_envs == 2
    with AsyncPPO("MlpPolicy", env="CartPole-v1", n_envs=2, **SETTINGS) as model:
        assert isinstance(model.env, SamplerVecEnv) and model.n_envs == 2


def test_loading_into_a_vec_env_in_lockstep_warns_once(tmp_path: Path) -> None:
    AsyncPPO("MlpPolicy", "CartPole-v1", n_samplers=1, **SETTINGS).save(tmp_path / "model")
    env = Doubled(make_vec_env("CartPole-v1", 2))
    with pytest.warns(UserWarning, match="Doubled") as caught:
        AsyncPPO.load(tmp_path / "model", env=env)
    assert len(caught) == 1


def test_wrappers_around_a_dummy_vec_env_are_kept_around_the_samplers() -> None:
    inside = make_vec_env("CartPole-v1", 4, seed=11)
    env = VecFrameStack(VecNormalize(inside), 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = trained(env, n_samplers=2)
    samplers = env.unwrapped
    assert model.env is env and isinstance(samplers, SamplerVecEnv)
    assert (samplers.n_samplers, samplers.envs_per_sampler) == (2, 2)
    assert env.venv.obs_rms.count > 4 * 64


def test_wrappers_get_their_own_environments_back_if_construction_fails() -> None:
    inside = make_vec_env("CartPole-v1", 2)
    env = VecNormalize(inside)
    with pytest.raises(TypeError, match="n_smaplers"):
        AsyncPPO("MlpPolicy", env, n_smaplers=2)
    assert env.venv is inside
    PPO("MlpPolicy", env, n_steps=32, batch_size=32).learn(64)


def test_a_wrapper_that_samplers_cannot_run_is_refused_with_the_remedy() -> None:
    env = Doubled(SamplerVecEnv([StampedEnv] * 2, backend="inline"))
    with pytest.raises(ValueError, match=r"Doubled .*VecNormalize.* vec_wrapper=lambda venv: Doubled"):
        AsyncPPO("MlpPolicy", env, **SETTINGS)
    # The samplers are the user's, and are still there.
    assert env.reset().shape == (2, 3)
    with pytest.raises(ValueError, match="more than one VecNormalize"):
        AsyncPPO("MlpPolicy", VecNormalize(VecNormalize(SamplerVecEnv([StampedEnv], backend="inline"))), **SETTINGS)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"mode": "fast"}, ValueError, "mode must be one of .*'pipelined', 'sync', 'free'.*'fast'"),
        ({"backend": "cloud"}, ValueError, "backend must be one of .*'process', 'inline'.*'cloud'"),
        ({"actor": "jax"}, ValueError, "actor must be one of .*'auto', 'torch', 'numpy'.*'jax'"),
        ({"n_samplers": 2.5}, ValueError, 'n_samplers must be an integer of at least 1, or "auto", got 2.5'),
        ({"n_samplers": 0}, ValueError, 'n_samplers must be an integer of at least 1, or "auto", got 0'),
        ({"envs_per_sampler": 0}, ValueError, "envs_per_sampler must be an integer of at least 1, got 0"),
        ({"max_policy_lag": 2}, ValueError, "max_policy_lag=2 .* mode='pipelined'.* mode='free'"),
        ({"mode": "free", "max_policy_lag": 0}, ValueError, "at least 1, got 0.* mode='sync'"),
        ({"n_smaplers": 3}, TypeError, "n_smaplers"),
    ],
)
def test_a_wrong_argument_fails_in_the_constructor(kwargs: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        AsyncPPO("MlpPolicy", "CartPole-v1", **{**SETTINGS, **kwargs})


def test_an_unknown_id_fails_in_gymnasiums_own_words() -> None:
    with pytest.raises(gym.error.NameNotFound, match="NoSuchRobot"):
        AsyncPPO("MlpPolicy", "NoSuchRobot-v0")


def test_something_that_is_no_environment_is_refused() -> None:
    with pytest.raises(TypeError, match="env must be an env id, a function, an environment or a VecEnv"):
        AsyncPPO("MlpPolicy", 3)


def test_a_policy_that_numpy_cannot_run_is_named() -> None:
    import torch.nn as nn

    with pytest.raises(ValueError, match=r"'Mish' \(mlp_extractor.policy_net.1\)"):
        AsyncPPO("MlpPolicy", "CartPole-v1", actor="numpy", policy_kwargs={"activation_fn": nn.Mish}, **SETTINGS)


def test_numbers_that_contradict_the_given_samplers_are_refused() -> None:
    env = SamplerVecEnv([StampedEnv] * 4, envs_per_sampler=2, backend="inline")
    with pytest.raises(ValueError, match="has 2 samplers of 2 environments"):
        AsyncPPO("MlpPolicy", env, n_samplers=4, **SETTINGS)
    with pytest.raises(ValueError, match="4 environments cannot be divided among samplers with n_samplers=3"):
        AsyncPPO("MlpPolicy", DummyVecEnv([StampedEnv] * 4), n_samplers=3, **SETTINGS)


def test_choices_that_are_not_given_are_the_defaults() -> None:
    assert SamplerChoices().supervision == {}
    assert SamplerChoices(max_restarts=3, close_timeout=0).supervision == {"max_restarts": 3, "close_timeout": 0}
    arguments = {"on_failure": "raise", "seed": 1}
    assert SamplerChoices.taken_from(arguments).on_failure == "raise"
    assert arguments == {"seed": 1}
    with pytest.raises(ValueError, match="on_failure must be one of"):
        SamplerChoices(on_failure="")
