"""Vectorised environments live as the same environments do one by one, whatever their kind and mode."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from test_envs import FACTORIES, Copying, RandomEpisodes, box

from sb3_walle.samplers.building import build_envs
from sb3_walle.samplers.envs import SamplerEnvs
from sb3_walle.samplers.errors import ObservationError
from sb3_walle.samplers.layers import InnermostEnvs
from sb3_walle.samplers.monitor import monitored
from sb3_walle.samplers.vectorized.vectorized_envs import VectorizedEnvs

N_ENVS = 3
MODES = list(AutoresetMode)

Factory = Callable[[], gym.Env]
Vectorize = Callable[[Sequence[Factory]], Any]


def sync(mode: AutoresetMode, factories: Sequence[Factory]) -> SyncVectorEnv:
    return SyncVectorEnv(factories, autoreset_mode=mode, copy=False)


def asynchronous(mode: AutoresetMode, factories: Sequence[Factory]) -> AsyncVectorEnv:
    return AsyncVectorEnv(factories, autoreset_mode=mode, copy=False)


def vec_env(factories: Sequence[Factory]) -> DummyVecEnv:
    """Monitored, as SB3's make_vec_env() does it: DummyVecEnv itself tells rewards in half of their precision."""
    return DummyVecEnv([lambda factory=factory: monitored(factory()) for factory in factories])


KINDS: dict[str, Vectorize] = {
    **{f"sync {mode.name}": partial(sync, mode) for mode in MODES},
    **{f"async {mode.name}": partial(asynchronous, mode) for mode in MODES},
    "VecEnv": vec_env,
}


def vectorized(factories: Sequence[Factory], vectorize: Vectorize) -> VectorizedEnvs:
    envs = build_envs([lambda n: vectorize(factories)] * len(factories))
    assert isinstance(envs, VectorizedEnvs)
    return envs


class NamedApart(gym.Wrapper):
    """Gymnasium takes no infos of a reset and of a step that have the same key and other types."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**kwargs)
        return observation, {f"first {key}": value for key, value in info.items()}


def named_apart(name: str) -> Factory:
    return lambda: NamedApart(FACTORIES[name]() if name in FACTORIES else RandomEpisodes(box()))


box_env = named_apart("Box observations")


class Life:
    """Steps environments, and keeps all that they tell."""

    def __init__(self, envs: InnermostEnvs) -> None:
        self.envs = envs
        envs.reset([11 + env for env in range(envs.n_envs)], [{}] * envs.n_envs)
        self.told: list[Any] = [plain(envs.observations), plain(envs.reset_infos)]

    def step(self, actions: np.ndarray) -> np.ndarray:
        envs = self.envs
        rewards, dones = np.full(envs.n_envs, np.nan, np.float32), np.full(envs.n_envs, True)
        infos = []

        def on_info(env: int, info: dict[str, Any], done: bool) -> None:
            assert done == dones[env]
            infos.append((env, plain(info)))

        envs.step(actions, envs.observations, rewards, dones, on_info)
        told = [plain(envs.observations), rewards.tolist(), dones.tolist(), infos, plain(envs.reset_infos)]
        self.told.append(told)
        return dones


def plain(value: Any) -> Any:
    """A copy without NumPy's types, without the time of day, and with no options as Gymnasium writes it at first."""
    if isinstance(value, dict):
        plain_values = {key: plain(part) for key, part in value.items() if key != "t"}
        return {key: part if key != "first options" else part or None for key, part in plain_values.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def assert_same_lives(factories: Sequence[Factory], vectorize: Vectorize, n_steps: int) -> int:
    """:return: how many episodes ended"""
    one_by_one, together = Life(SamplerEnvs(factories)), Life(vectorized(factories, vectorize))
    random, n_ends = np.random.default_rng(5), 0
    try:
        for _ in range(n_steps):
            actions = np.array([sample(together.envs.action_space, random) for _ in factories])
            n_ends += int(one_by_one.step(actions).sum())
            together.step(actions)
            assert together.told[-1] == one_by_one.told[-1]
        assert together.told == one_by_one.told
    finally:
        together.envs.close()
    return n_ends


def sample(space: spaces.Space, random: np.random.Generator) -> Any:
    space.seed(int(random.integers(2**31)))
    return space.sample()


# Gymnasium stacks the observations of all environments, and a wrapper of one is no wrapper of all.
OBSERVED = [name for name in FACTORIES if name != "monitored inside another wrapper"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("async")])
@pytest.mark.parametrize("name", OBSERVED)
def test_vectorised_environments_live_as_single_ones(name: str, kind: str) -> None:
    n_steps = 230 if "Pendulum" in name else 80
    assert assert_same_lives([named_apart(name)] * N_ENVS, KINDS[kind], n_steps) >= N_ENVS


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("async")])
def test_so_do_those_in_processes_of_gymnasium(kind: str) -> None:
    assert assert_same_lives([named_apart("Dict observations")] * 2, KINDS[kind], 40) >= 4


class Counting(gym.Env):
    """Episodes of a given length, with infos that are not in all steps, nor of one type."""

    action_space = spaces.MultiDiscrete([2, 3])

    def __init__(self, length: int) -> None:
        self.length, self.steps = length, 0
        self.observation_space = spaces.MultiDiscrete([100, 100])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return np.array([self.length, 0]), {"begins": True}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        self.steps += 1
        info: dict[str, Any] = {"text": f"step {self.steps}", "action": action.copy(), "parts": {"x": self.steps / 7}}
        if self.steps % 2:
            info["odd"] = self.steps
        return np.array([self.length, self.steps]), 0.1 * self.steps, self.steps >= self.length, False, info


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    limits=st.lists(st.integers(1, 6), min_size=4, max_size=4),
    mode=st.sampled_from(MODES),
    n_steps=st.integers(1, 15),
)
def test_infos_ends_and_time_limits_are_told_of_the_right_environment(
    lengths: list[int], limits: list[int], mode: AutoresetMode, n_steps: int
) -> None:
    factories = [
        lambda length=length, limit=limit: TimeLimit(Counting(length), limit)
        for length, limit in zip(lengths, limits, strict=False)
    ]
    assert_same_lives(factories, partial(sync, mode), n_steps)


@pytest.mark.parametrize("mode", MODES)
def test_environments_that_reuse_their_observations_are_as_good_as_others(mode: AutoresetMode) -> None:
    reusing = [lambda: NamedApart(RandomEpisodes(box(), reuses_observation=True))] * N_ENVS
    # In mode SAME_STEP, Gymnasium takes the first observation of the next episode for the last, as DummyVecEnv does.
    if mode is not AutoresetMode.SAME_STEP:
        assert_same_lives(reusing, partial(sync, mode), 40)
    assert_same_lives([lambda: Copying(reusing[0]())] * N_ENVS, partial(sync, mode), 40)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_gymnasium_s_episode_statistics_are_those_of_monitor(mode: AutoresetMode) -> None:
    def vectorize(factories: Sequence[Factory]) -> Any:
        return gym.wrappers.vector.RecordEpisodeStatistics(sync(mode, factories))

    one_by_one, together = Life(SamplerEnvs([box_env] * 2)), Life(vectorized([box_env] * 2, vectorize))
    n_episodes = 0
    for _ in range(60):
        actions = np.zeros(2, int)
        one_by_one.step(actions)
        for env in np.flatnonzero(together.step(actions)):
            told, expected = (life.told[-1][3][env][1]["episode"] for life in (together, one_by_one))
            assert told["l"] == expected["l"]
            assert told["r"] == pytest.approx(expected["r"], abs=1e-6)
            n_episodes += 1
    assert n_episodes > 5


def test_infos_that_nothing_needs_are_not_made() -> None:
    all_told, ends_told = (vectorized([box_env] * N_ENVS, KINDS["sync SAME_STEP"]) for _ in range(2))
    ends_told.tells_every_info = False
    lives = Life(all_told), Life(ends_told)
    for _ in range(50):
        dones = [life.step(np.zeros(N_ENVS, int)) for life in lives]
        (*first, infos, _), (*second, ends, _) = (life.told[-1] for life in lives)
        assert first == second
        assert ends == [infos[env] for env in np.flatnonzero(dones[0])]


def test_an_episode_that_infos_tell_of_is_told_wherever_it_is() -> None:
    class TellsLater(Counting):
        """As an Atari game whose lives are episodes: the statistics come with another step than the end."""

        def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
            *step, info = super().step(action)
            return *step, {**info, "episode": {"r": 1.0, "l": 2}} if self.steps == 2 else info  # type: ignore[return-value]

    envs = vectorized([lambda: TellsLater(5)] * 2, KINDS["sync NEXT_STEP"])
    envs.tells_every_info = False
    life = Life(envs)
    told = []
    for _ in range(5):
        life.step(np.zeros((2, 2), int))
        told.append([env for env, info in life.told[-1][3] if "episode" in info])
    assert told == [[], [0, 1], [], [], [0, 1]]


# Seeds


def first_observations(envs: InnermostEnvs, seeds: Sequence[int | None]) -> list[Any]:
    envs.reset(seeds, [{}] * envs.n_envs)
    return plain(envs.observations)


@pytest.mark.parametrize("kind", ["sync NEXT_STEP", "VecEnv"])
def test_environments_begin_with_the_seeds_that_they_are_given(kind: str) -> None:
    envs, others = (vectorized([FACTORIES["CartPole"]] * 2, KINDS[kind]) for _ in range(2))
    assert first_observations(envs, [7, 8]) == first_observations(others, [7, 8])
    assert first_observations(envs, [None, None]) != first_observations(envs, [7, 8])


def test_environment_that_takes_one_seed_for_all_gets_the_first_one() -> None:
    def pole(n: int) -> Any:
        return gym.make_vec("CartPole-v1", num_envs=n, vectorization_mode="vector_entry_point")

    expected, _ = pole(2).reset(seed=7)
    assert first_observations(build_envs([pole] * 2), [7, 8]) == expected.tolist()


def test_function_that_takes_a_seed_is_called_with_that_of_sb3_and_before_with_one_of_its_own() -> None:
    seeds: list[int] = []

    def build(n: int, seed: int) -> Any:
        seeds.append(seed)
        return sync(AutoresetMode.SAME_STEP, [box_env] * n)

    samplers = [build_envs([build] * 2) for _ in range(3)]
    assert len(set(seeds)) == 3 and all(0 <= seed < 2**31 for seed in seeds)
    for number, envs in enumerate(samplers):
        envs.reset([5 + 2 * number, 6 + 2 * number], [{}] * 2)
        envs.reset([None] * 2, [{}] * 2)
    assert seeds[3:] == [5, 7, 9]


def test_what_was_set_is_set_again_in_environments_that_are_built_anew() -> None:
    def build(n: int, seed: int) -> Any:
        return sync(AutoresetMode.SAME_STEP, [Tuned] * n)

    envs = build_envs([build] * 3)
    envs.set_attr("name", "x", [0, 1, 2])
    envs.env_method("set_level", (1,), {}, [0, 1])
    envs.env_method("set_level", (2,), {}, [1])
    envs.reset([5, 6, 7], [{}] * 3)
    assert envs.get_attr("name", [0, 1, 2]) == ["x"] * 3
    assert envs.get_attr("level", [0, 1, 2]) == [1, 2, 0]


# Mistakes of environments


class Wrong(gym.vector.VectorEnv):
    """A vectorised environment that makes a mistake."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, observations: Any, done: bool = False) -> None:
        self.num_envs = 2
        self.single_observation_space, self.single_action_space = box(), spaces.Discrete(2)
        self._observations, self._done = observations, done

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict]:
        return np.zeros((2, 4), np.float32), {}

    def step(self, actions: Any) -> tuple:
        return self._observations, np.zeros(2), np.array([self._done] * 2), np.zeros(2, bool), {}


@pytest.mark.parametrize("observations", [np.zeros(4), np.zeros((2, 3)), None, {"x": np.zeros((2, 4))}, np.float32(1)])
def test_observations_that_do_not_fit_are_an_error(observations: Any) -> None:
    life = Life(build_envs([lambda n: Wrong(observations)] * 2, first_env=4))
    with pytest.raises(
        ObservationError, match=r"first one is environment 4 returned .* observations of 2 environ.*Box"
    ):
        life.step(np.zeros(2, int))


def test_episode_without_a_last_observation_is_an_error() -> None:
    life = Life(build_envs([lambda n: Wrong(np.zeros((2, 4)), done=True)] * 2))
    with pytest.raises(ObservationError, match="returned None as the last observation of an episode"):
        life.step(np.zeros(2, int))


def test_reset_options_are_those_of_all_environments() -> None:
    envs = vectorized([box_env] * 2, KINDS["sync NEXT_STEP"])
    envs.reset([None] * 2, [{"hard": 1}] * 2)
    assert [info["first options"] for info in envs.reset_infos] == [{"hard": 1}] * 2
    with pytest.raises(ValueError, match="the same reset options in all rows"):
        envs.reset([None] * 2, [{"hard": 1}, {}])


# Attributes


class Tuned(Counting):
    level = 0

    def __init__(self) -> None:
        super().__init__(5)

    def set_level(self, level: int) -> int:
        self.level = level
        return 10 * level


@pytest.mark.parametrize("kind", ["sync NEXT_STEP", "VecEnv"])
def test_attributes_and_methods_of_single_environments_are_reached(kind: str) -> None:
    envs = vectorized([lambda: Monitor(Tuned())] * 3, KINDS[kind])
    assert envs.env_method("set_level", (4,), {}, [1, 2]) == [40, 40]
    assert envs.get_attr("level", [0, 1, 2]) == [0, 4, 4]
    envs.set_attr("name", "x", [0])
    assert envs.get_attr("name", [0]) == ["x"]
    assert envs.has_attr("level", [0, 1]) == [True, True] and envs.has_attr("nothing", [0]) == [False]
    assert envs.env_is_wrapped(Monitor, [0, 2]) == [True, True]
    assert len(envs.envs) == 3
    with pytest.raises(AttributeError, match="nothing"):
        envs.get_attr("nothing", [0])


def test_attributes_of_environments_in_gymnasium_s_processes_are_reached_as_far_as_it_can() -> None:
    envs = vectorized([Tuned, Tuned], KINDS["async NEXT_STEP"])
    try:
        assert envs.env_method("set_level", (4,), {}, [0, 1]) == [40, 40]
        envs.set_attr("level", 6, [1])
        assert envs.get_attr("level", [1, 0]) == [6, 4]
        # Gymnasium's own get_attr() would end its processes here.
        for ask in (lambda: envs.get_attr("nothing", [0]), lambda: envs.env_method("nothing", (), {}, [0, 1])):
            with pytest.raises(AttributeError, match="have no attribute 'nothing'"):
                ask()
        assert envs.has_attr("nothing", [0]) == [False] and envs.has_attr("level", [1]) == [True]
        with pytest.raises(AttributeError, match="calls 'set_level' in all of its 2 environments or in none"):
            envs.env_method("set_level", (4,), {}, [0])
        with pytest.raises(NotImplementedError, match="does not tell in which wrappers"):
            envs.env_is_wrapped(Monitor, [0])
        assert envs.envs == []
    finally:
        envs.close()


def test_one_object_offers_its_own_attributes() -> None:
    def pole(n: int) -> Any:
        pole = gym.make_vec("CartPole-v1", n, vectorization_mode="vector_entry_point")
        return gym.wrappers.vector.ClipReward(pole, 0, 1)

    envs = build_envs([pole] * 2)
    assert envs.get_attr("gravity", [0, 1]) == [9.8, 9.8] and envs.has_attr("gravity", [0]) == [True]
    envs.set_attr("gravity", 5.0, [0, 1])
    assert envs.get_attr("gravity", [1]) == [5.0]
    envs.env_method("reset", (), {"seed": 3}, [0, 1])
    assert envs.env_is_wrapped(Monitor, [0]) == [False]
    with pytest.raises(AttributeError, match=r"CartPoleVectorEnv has no attribute 'x'\. It is one object"):
        envs.get_attr("x", [0])
    with pytest.raises(
        AttributeError, match="is one object that steps 2 environments: a sampler sets 'gravity' in all"
    ):
        envs.set_attr("gravity", 3.0, [1])


class Painted(Counting):
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    render_mode = "rgb_array"

    def render(self) -> np.ndarray:  # type: ignore[override]
        return np.full((2, 2, 3), self.length, np.uint8)


@pytest.mark.parametrize("kind", ["sync NEXT_STEP", "async NEXT_STEP", "VecEnv"])
def test_each_environment_renders(kind: str) -> None:
    envs = vectorized([lambda: Painted(3), lambda: Painted(4)], KINDS[kind])
    envs.reset([1, 2], [{}] * 2)
    assert [frame[0, 0, 0] for frame in envs.render([1, 0])] == [4, 3]
    assert [frame[0, 0, 0] for frame in envs.env_method("render", (), {}, [1])] == [4]
    envs.close()
