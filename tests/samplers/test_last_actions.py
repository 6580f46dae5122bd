"""The last actions as part of the observation."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_walle.samplers.last_actions import LAST_ACTIONS, LastActionsFactory, LastActionsObservation

FLAT = spaces.Box(-np.inf, np.inf, (2,), np.float64)
DICT = spaces.Dict({"image": spaces.Box(0, 255, (2, 2, 1), np.uint8)})


class CountingEnv(gym.Env):
    """Observations are full of the number of steps."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.n_steps = 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**kwargs)
        self.n_steps = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.n_steps += 1
        return self._observation(), 0.0, False, False, {}

    def _observation(self) -> Any:
        def full(space: spaces.Box) -> np.ndarray:
            return np.full(space.shape, self.n_steps, space.dtype)

        space = self.observation_space
        if isinstance(space, spaces.Dict):
            return {key: full(inner) for key, inner in space.items()}
        return full(space)


def as_vectors(actions: Sequence[Any], space: spaces.Space) -> list[np.ndarray]:
    return [spaces.flatten(space, action).astype(float) for action in actions]


ACTION_SPACES = st.one_of(
    st.builds(spaces.Discrete, st.integers(1, 4), start=st.integers(-2, 2)),
    st.builds(
        lambda low, width, shape: spaces.Box(low, low + width, tuple(shape)),
        st.floats(-3, 3, width=32),
        st.floats(0.5, 3, width=32),
        st.lists(st.integers(1, 3), min_size=1, max_size=2),
    ),
)


@settings(max_examples=40, deadline=None)
@given(ACTION_SPACES, st.sampled_from((FLAT, DICT)), st.integers(1, 4), st.integers(0, 6), st.integers(0, 2**31))
def test_observations_end_with_the_last_actions(
    action_space: spaces.Space, observation_space: spaces.Space, n_actions: int, n_steps: int, seed: int
) -> None:
    env = LastActionsObservation(CountingEnv(observation_space, action_space), n_actions)
    action_space.seed(seed)
    for _ in range(2):
        observation, _ = env.reset()
        actions = [action_space.sample() for _ in range(n_steps)]
        for action in actions:
            observation = env.step(action)[0]
        vectors = [np.zeros(spaces.flatdim(action_space))] * n_actions + as_vectors(actions, action_space)
        expected = np.concatenate(vectors[-n_actions:])
        inner = env.unwrapped._observation()
        if isinstance(observation, dict):
            np.testing.assert_allclose(observation[LAST_ACTIONS], expected)
            np.testing.assert_array_equal(observation["image"], inner["image"])
        else:
            np.testing.assert_allclose(observation, np.concatenate([inner, expected]))
        assert env.observation_space.contains(observation)


def test_an_observation_stays_as_it_was() -> None:
    env = LastActionsObservation(CountingEnv(DICT, spaces.Discrete(2)))
    first = env.reset()[0]
    env.step(1)
    assert not first[LAST_ACTIONS].any()


@pytest.mark.filterwarnings("ignore:.*WARN")
def test_gymnasium_finds_nothing_wrong() -> None:
    check_env(LastActionsFactory(lambda: gym.make("Pendulum-v1"), 2)(), skip_render_check=True)


@pytest.mark.parametrize(
    ("observation_space", "action_space", "n_actions", "mentioned"),
    [
        (spaces.Box(0, 255, (2, 2), np.uint8), spaces.Discrete(2), 1, "Make it a Dict"),
        (spaces.Box(0, 255, (2, 2), np.uint8), spaces.Box(-1, 1, (2,)), 1, "Make it a Dict"),
        (spaces.Box(0, 1, (2, 2)), spaces.Discrete(2), 1, "flat Box"),
        (spaces.Discrete(3), spaces.Discrete(2), 1, "flat Box"),
        (spaces.Dict({LAST_ACTIONS: FLAT}), spaces.Discrete(2), 1, "already"),
        (FLAT, spaces.MultiBinary(2), 1, "a Box or a Discrete"),
        (FLAT, spaces.Discrete(2), 0, "at least 1, got 0"),
        (FLAT, spaces.Discrete(2), 1.5, "at least 1, got 1.5"),
    ],
)
def test_what_cannot_be_observed_is_refused(
    observation_space: spaces.Space, action_space: spaces.Space, n_actions: int, mentioned: str
) -> None:
    with pytest.raises(ValueError, match=mentioned):
        LastActionsObservation(CountingEnv(observation_space, action_space), n_actions)
