"""A sampler's environments: the same to the learner as SB3's DummyVecEnv, step by step."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_walle.samplers.envs import SamplerEnvs
from sb3_walle.samplers.layers import copy_observations, store
from sb3_walle.samplers.monitor import is_wrapped
from sb3_walle.samplers.stack import EnvStack
from sb3_walle.transport.chunk import Observations

N_ENVS, N_STEPS = 3, 450

Step = tuple[Observations, np.ndarray, np.ndarray, list[dict[str, Any]], list[dict[str, Any]]]


class RandomEpisodes(gym.Env):
    """
    Random observations, rewards and ends of episodes, all of them a function of the seed.

    :param observation_space: the observations are samples of it
    :param reuses_observation: whether every observation is the same array, with new contents
    """

    metadata = {"render_modes": [], "render_fps": 7}  # noqa: RUF012

    def __init__(self, observation_space: spaces.Space, reuses_observation: bool = False) -> None:
        self.observation_space = observation_space
        self.action_space = spaces.Discrete(3)
        self._reused = observation_space.sample() if reuses_observation else None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self._observation(), {"drawn": float(self.np_random.random()), "options": options}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        terminated, truncated = (self.np_random.random(2) < 0.1).tolist()
        # In the environment's own precision, which is more than that of a rollout.
        reward = self.np_random.normal() * 1e3 + float(action)
        return self._observation(), reward, terminated, truncated, {"drawn": self.np_random.random(3)}

    def _observation(self) -> Any:
        observation = self.observation_space.sample()
        if self._reused is None:
            return observation
        self._reused[...] = observation
        return self._reused


class Copying(gym.ObservationWrapper):
    """Passes on a copy of every observation."""

    def observation(self, observation: Any) -> Any:
        return deepcopy(observation)


def dict_space() -> spaces.Dict:
    return spaces.Dict(
        {
            "position": spaces.Box(-1.0, 1.0, (2, 2), np.float64),
            "image": spaces.Box(0, 255, (4, 4, 3), np.uint8),
            "room": spaces.Discrete(5),
            "doors": spaces.MultiBinary(3),
        }
    )


def box() -> spaces.Box:
    return spaces.Box(-1.0, 1.0, (4,), np.float32)


def dict_env() -> gym.Env:
    return RandomEpisodes(dict_space())


def box_env() -> gym.Env:
    return RandomEpisodes(box())


FACTORIES: dict[str, Callable[[], gym.Env]] = {
    "CartPole": lambda: gym.make("CartPole-v1"),
    "Pendulum with a time limit": lambda: gym.make("Pendulum-v1"),
    "Discrete observations": lambda: RandomEpisodes(spaces.Discrete(7)),
    "Dict observations": dict_env,
    "images": lambda: RandomEpisodes(spaces.Box(0, 255, (5, 4, 3), np.uint8)),
    "already monitored": lambda: Monitor(gym.make("CartPole-v1")),
    "monitored inside another wrapper": lambda: Copying(Monitor(gym.make("CartPole-v1"))),
}


class Driver:
    """Steps a sampler's environments as a ``VecEnv`` is stepped."""

    def __init__(self, factories: Sequence[Callable[[], gym.Env]]) -> None:
        self.envs = SamplerEnvs(factories)

    def step(self, actions: np.ndarray) -> Step:
        observations = deepcopy(self.envs.observations)
        rewards, dones = np.full(self.envs.n_envs, np.nan, np.float32), np.full(self.envs.n_envs, True)
        infos: list[dict[str, Any]] = []

        def on_info(env: int, info: dict[str, Any], done: bool) -> None:
            assert env == len(infos)
            assert done == dones[env]
            infos.append(deepcopy(info))

        self.envs.step(actions, observations, rewards, dones, on_info)
        return observations, rewards, dones, infos, deepcopy(self.envs.reset_infos)


def oracle(factory: Callable[[], gym.Env]) -> DummyVecEnv:
    def build() -> gym.Env:
        env = factory()
        return env if is_wrapped(env, Monitor) else Monitor(env)

    return DummyVecEnv([build] * N_ENVS)


def assert_same(actual: Any, expected: Any) -> None:
    """Equal values of the same types, however deep; but for the time of day at which an episode ended."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key in expected.keys() - {"t"}:
            assert_same(actual[key], expected[key])
    elif isinstance(expected, list):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_same(one, other)
    else:
        assert type(actual) is type(expected)
        np.testing.assert_array_equal(actual, expected, strict=isinstance(expected, np.ndarray))


def assert_same_life(driver: Driver, venv: DummyVecEnv, n_steps: int = N_STEPS) -> list[Step]:
    """Reset and step both with the same seeds and actions. Return what was the same."""
    venv.seed(11)
    expected = venv.reset()
    driver.envs.reset([11 + env for env in range(N_ENVS)], [{}] * N_ENVS)
    assert_same(driver.envs.observations, expected)
    assert_same(driver.envs.reset_infos, venv.reset_infos)
    venv.action_space.seed(5)
    steps = []
    for _ in range(n_steps):
        actions = np.array([venv.action_space.sample() for _ in range(N_ENVS)])
        step = driver.step(actions)
        assert_same(list(step), [*venv.step(actions), venv.reset_infos])
        steps.append(step)
    return steps


@pytest.mark.parametrize("name", FACTORIES)
def test_environments_live_as_in_dummy_vec_env(name: str) -> None:
    steps = assert_same_life(Driver([FACTORIES[name]] * N_ENVS), oracle(FACTORIES[name]))
    dones = np.array([dones for _, _, dones, _, _ in steps])
    assert (dones.sum(axis=0) >= 2).all(), "the test says little if no episode ends"


def test_environment_that_reuses_its_observation_is_as_good_as_one_that_does_not() -> None:
    driver = Driver([lambda: RandomEpisodes(box(), reuses_observation=True)] * N_ENVS)
    # DummyVecEnv itself confuses the last observation of such an environment with the first of the next episode.
    assert_same_life(driver, oracle(box_env))


def test_time_limits_are_told_from_other_ends() -> None:
    steps = assert_same_life(Driver([box_env] * N_ENVS), oracle(box_env))
    infos = [info for _, _, dones, step_infos, _ in steps for info, done in zip(step_infos, dones, strict=True) if done]
    assert {info["TimeLimit.truncated"] for info in infos} == {True, False}
    assert all(info["terminal_observation"].shape == (4,) for info in infos)


def test_episodes_are_reported_with_their_return_and_length() -> None:
    driver = Driver([lambda: gym.make("CartPole-v1")] * N_ENVS)
    driver.envs.reset([0] * N_ENVS, [{}] * N_ENVS)
    lengths = np.zeros(N_ENVS)
    n_episodes = 0
    for _ in range(100):
        _, _, dones, infos, _ = driver.step(np.ones(N_ENVS, int))
        lengths += 1
        for env in range(N_ENVS):
            assert ("episode" in infos[env]) == dones[env]
            if dones[env]:
                assert (infos[env]["episode"]["r"], infos[env]["episode"]["l"]) == (lengths[env], lengths[env])
                lengths[env] = 0
                n_episodes += 1
    assert n_episodes > 10


def test_observations_of_a_step_are_not_changed_by_the_next() -> None:
    driver = Driver([lambda: RandomEpisodes(box(), reuses_observation=True)] * N_ENVS)
    driver.envs.reset([0] * N_ENVS, [{}] * N_ENVS)
    observations, *_ = driver.step(np.zeros(N_ENVS, int))
    kept = deepcopy(observations)
    driver.step(np.zeros(N_ENVS, int))
    assert_same(observations, kept)


def test_reset_passes_seeds_and_options_to_the_environment_that_they_are_for() -> None:
    envs = SamplerEnvs([box_env] * N_ENVS)
    envs.reset([7, 8, 7], [{}, {"level": 2}, {"level": 3}])
    assert [info["options"] for info in envs.reset_infos] == [None, {"level": 2}, {"level": 3}]
    assert envs.reset_infos[0]["drawn"] == envs.reset_infos[2]["drawn"] != envs.reset_infos[1]["drawn"]
    first = envs.reset_infos[0]["drawn"]
    envs.reset([None] * N_ENVS, [{}] * N_ENVS)
    assert envs.reset_infos[0]["drawn"] != first


def test_environments_need_a_reset_before_anything_else() -> None:
    stack = EnvStack(SamplerEnvs([box_env]))
    assert stack.needs_reset
    stack.reset([None], [{}])
    assert not stack.needs_reset


@pytest.mark.parametrize(
    "factory",
    [
        box_env,
        lambda: Monitor(box_env()),
        lambda: Copying(Monitor(box_env())),
        lambda: gym.make("CartPole-v1"),
    ],
)
def test_environment_is_monitored_exactly_once(factory: Callable[[], gym.Env]) -> None:
    env = SamplerEnvs([factory]).envs[0]
    n_monitors = 0
    while isinstance(env, gym.Wrapper):
        n_monitors += isinstance(env, Monitor)
        env = env.env
    assert n_monitors == 1


def test_description_is_that_of_the_environments() -> None:
    description = EnvStack(SamplerEnvs([dict_env] * 2)).describe()
    assert description.observation_space == dict_space()
    assert description.action_space == spaces.Discrete(3)
    assert description.metadata["render_fps"] == 7


@pytest.mark.parametrize("not_an_env", [None, gym.make, "CartPole-v1", object()])
def test_factory_of_something_else_is_refused(not_an_env: Any) -> None:
    with pytest.raises(TypeError, match=r"must return a gymnasium\.Env, got <class"):
        SamplerEnvs([lambda: not_an_env])


@pytest.mark.parametrize("wrap", [lambda env: env, Copying, Monitor])
def test_the_same_environment_twice_is_refused(wrap: Callable[[gym.Env], gym.Env]) -> None:
    env = box_env()
    with pytest.raises(ValueError, match="same environment"):
        SamplerEnvs([lambda: env, lambda: wrap(env)])


def test_environments_of_differing_spaces_are_refused() -> None:
    with pytest.raises(ValueError, match=r"same spaces, got .*Discrete\(7\).*Discrete\(8\)"):
        SamplerEnvs([FACTORIES["Discrete observations"], lambda: RandomEpisodes(spaces.Discrete(8))])
    with pytest.raises(ValueError, match="same spaces"):
        SamplerEnvs([lambda: gym.make("CartPole-v1"), lambda: gym.make("Pendulum-v1")])


def test_observations_without_a_fixed_shape_are_refused() -> None:
    for space in (spaces.Text(3), spaces.Tuple([box()]), spaces.Dict({"words": spaces.Text(3)})):
        with pytest.raises(NotImplementedError, match="not supported"):
            SamplerEnvs([lambda space=space: RandomEpisodes(space)])


# Attributes and methods


class Talkative(gym.Wrapper):
    """Has an attribute and a method."""

    volume = 3

    def say(self, word: str, times: int = 1) -> str:
        return word * times * self.volume


def test_attributes_methods_and_wrappers_are_found_as_in_dummy_vec_env() -> None:
    def factory() -> gym.Env:
        return gym.wrappers.TimeLimit(Talkative(box_env()), 5)

    envs, venv = SamplerEnvs([factory] * N_ENVS), oracle(factory)
    some = [2, 0]
    for name in ("volume", "_max_episode_steps", "metadata", "allow_early_resets"):
        assert envs.get_attr(name, some) == venv.get_attr(name, some)
    assert envs.env_method("say", ("ha",), {"times": 2}, some) == venv.env_method("say", "ha", times=2, indices=some)
    for wrapper in (Talkative, Monitor, gym.wrappers.TimeLimit, Copying):
        assert envs.env_is_wrapped(wrapper, some) == venv.env_is_wrapped(wrapper, some)
    envs.set_attr("mood", "good", some)
    venv.set_attr("mood", "good", some)
    assert envs.get_attr("mood", some) == venv.get_attr("mood", some) == ["good", "good"]
    for get in (envs.get_attr, venv.get_attr):
        with pytest.raises(AttributeError):
            get("mood", [1])


def test_closing_closes_every_environment() -> None:
    class Closable(RandomEpisodes):
        n_closed = 0

        def close(self) -> None:
            Closable.n_closed += 1

    SamplerEnvs([lambda: Closable(box())] * N_ENVS).close()
    assert Closable.n_closed == N_ENVS


# Copying observations


def test_storing_an_observation_leaves_the_others_alone() -> None:
    space = dict_space()
    batch = {key: np.zeros((3, *sub.shape), sub.dtype) for key, sub in space.spaces.items()}
    observation = {key: np.ones(sub.shape, sub.dtype) for key, sub in space.spaces.items()}
    store(batch, 1, observation)
    for array in batch.values():
        assert array[1].all()
        assert not array[[0, 2]].any()


def test_copied_observations_are_independent_of_the_original() -> None:
    for source in (np.ones((2, 3)), {"a": np.ones((2, 3)), "b": np.ones(2, np.uint8)}):
        target = deepcopy(source)
        for array in target.values() if isinstance(target, dict) else [target]:
            array[...] = 0
        copy_observations(source, target)
        assert_same(target, source)
        assert not any(np.shares_memory(*pair) for pair in zip(arrays_of(target), arrays_of(source), strict=True))


def arrays_of(observations: Observations) -> list[np.ndarray]:
    return list(observations.values()) if isinstance(observations, dict) else [observations]
