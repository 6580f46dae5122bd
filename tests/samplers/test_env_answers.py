"""What environments answer in other forms than Gymnasium's, and what they answer wrongly."""

import functools
import re
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env

from sb3_walle import AsyncDQN, AsyncPPO, SamplerError, SamplerVecEnv
from sb3_walle.samplers.envs import SamplerEnvs
from sb3_walle.samplers.errors import ObservationError
from sb3_walle.samplers.infos import TERMINAL_OBSERVATION, TRUNCATED

ENDS: dict[str, Callable[[bool], Any]] = {
    "bool": bool,
    "array of one": lambda end: np.array([end]),
    "array without dimension": lambda end: np.array(end),
    "NumPy boolean": np.bool_,
    "integer": int,
    "NumPy integer": np.int64,
}


class Ends(gym.Env):
    """Its episodes end by turns by termination and by truncation, which it tells in its own way."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, kind: str) -> None:
        self.kind, self.episode = kind, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.episode, self.steps = self.episode + 1, 0
        return self._observe(), {}

    def step(self, action: int) -> tuple[Any, float, Any, Any, dict[str, Any]]:
        self.steps += 1
        end, told = self.steps >= 6, ENDS[self.kind]
        is_terminal = bool(self.episode % 2)
        return self._observe(), float(action), told(end and is_terminal), told(end and not is_terminal), {}

    def _observe(self) -> np.ndarray:
        return np.array([self.episode, self.steps], np.float32)


@pytest.mark.parametrize("kind", ENDS)
def test_ends_of_episodes_may_be_told_in_any_form(kind: str) -> None:
    noted = []
    envs = SamplerEnvs([lambda: Ends(kind)] * 2)
    envs.reset([0, 1], [{}, {}])
    rewards, dones = np.zeros(2, np.float32), np.zeros(2, bool)
    for _ in range(12):
        envs.step(
            [1, 1], envs.observations, rewards, dones, lambda env, info, done: noted.append((info[TRUNCATED], done))
        )
    assert {type(part) for note in noted for part in note} == {bool}
    assert noted == [(False, False)] * 10 + [(False, True)] * 2 + [(False, False)] * 10 + [(True, True)] * 2


@pytest.mark.parametrize("kind", ENDS)
def test_dqn_trains_on_them_as_sb3_does(kind: str) -> None:
    settings = {"learning_starts": 8, "batch_size": 8, "buffer_size": 500, "seed": 3, "device": "cpu"}
    oracle = DQN("MlpPolicy", make_vec_env(lambda: Ends(kind), 1), policy_kwargs={"net_arch": [4]}, **settings)
    model = AsyncDQN(
        "MlpPolicy",
        lambda: Ends(kind),
        n_samplers=1,
        mode="sync",
        actor="torch",
        backend="inline",
        policy_kwargs={"net_arch": [4]},
        **settings,
    )
    stored = []
    for algorithm in (oracle, model):
        algorithm.set_random_seed(3)
        buffer = algorithm.learn(60).replay_buffer
        stored.append([getattr(buffer, name)[:60] for name in ("observations", "dones", "timeouts", "actions")])
    for expected, found in zip(*stored, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert stored[0][1].sum() == 10 and stored[0][2].sum() == 5


@pytest.mark.parametrize("kind", ENDS)
def test_ppo_trains_on_them_as_on_booleans(kind: str) -> None:
    settings: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "n_epochs": 1, "seed": 3, "device": "cpu"}
    twin = {"n_samplers": 1, "mode": "sync", "actor": "torch", "backend": "inline", "learner": "eager"}
    oracle = PPO("MlpPolicy", make_vec_env(lambda: Ends("bool"), 2), **settings).learn(64)
    model = AsyncPPO("MlpPolicy", lambda: Ends(kind), envs_per_sampler=2, **twin, **settings).learn(64)
    for name, weights in oracle.policy.state_dict().items():
        assert th.equal(weights, model.policy.state_dict()[name]), name


# Observations that do not fit

VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)
PAIR = spaces.Dict({"a": VECTOR, "b": spaces.Discrete(3)})
ZEROS = np.zeros(3, np.float32)


class Shows(gym.Env):
    """
    Shows zeros, and something else once in each episode of 20 steps.

    :param space: the observation space
    :param other: what else
    :param at: in which step, 0 for the reset
    """

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space, other: Any, at: int) -> None:
        self.observation_space, self.other, self.at = space, other, at

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._observe(), 0.0, False, self.steps == 20, {}

    def _observe(self) -> Any:
        if self.steps == self.at:
            return self.other
        return ZEROS if self.observation_space == VECTOR else {"a": ZEROS, "b": 0}


MISFITS: dict[str, tuple[spaces.Space, Any, str]] = {
    "shape": (VECTOR, np.zeros(5), r"an array of shape \(5,\) and type float64"),
    "None": (VECTOR, None, "None"),
    "text": (VECTOR, "left", "an object of <class 'str'>"),
    "dictionary": (VECTOR, {"a": 1}, "a dictionary of 'a': an object of <class 'int'>"),
    "missing key": (PAIR, {"a": ZEROS}, r"a dictionary of 'a': an array of shape \(3,\) and type float32"),
    "None in a dictionary": (PAIR, {"a": None, "b": 0}, "a dictionary of 'a': None, 'b': an object of <class 'int'>"),
    "no dictionary": (PAIR, ZEROS, r"an array of shape \(3,\)"),
}
WHEN = {0: "the first observation of an episode", 7: "an observation", 20: "the last observation of an episode"}


@pytest.mark.parametrize("algorithm", [AsyncPPO, AsyncDQN])
@pytest.mark.parametrize("at", WHEN)
@pytest.mark.parametrize("misfit", MISFITS)
def test_observation_that_does_not_fit_is_an_error_that_says_whose_and_when(
    misfit: str, at: int, algorithm: Any
) -> None:
    space, other, told = MISFITS[misfit]
    good, bad = functools.partial(Shows, space, None, -1), functools.partial(Shows, space, other, at)
    env = SamplerVecEnv([good, good, good, bad], envs_per_sampler=2, backend="inline", on_failure="raise")
    settings: dict[str, Any] = {"n_steps": 64} if algorithm is AsyncPPO else {"buffer_size": 100}
    model = algorithm("MultiInputPolicy" if space is PAIR else "MlpPolicy", env, device="cpu", **settings)
    with pytest.raises(SamplerError, match="Sampler 1 failed while") as caught:
        model.learn(200)
    cause = caught.value.__cause__
    assert isinstance(cause, ObservationError)
    pattern = rf"Environment 3 returned {told}.* as {WHEN[at]}, but its space is "
    assert re.match(pattern, str(cause)), str(cause)
    # DQN's chunks are as long as its train_freq.
    step = at - 1 if algorithm is AsyncPPO else (at - 1) % 4
    assert at == 0 or str(cause).endswith(f", in step {step} of the chunk")


@pytest.mark.parametrize("last", [0.5, [0.5], np.array(0.5), np.full((1, 1), 0.5)], ids=str)
def test_last_observation_that_fits_has_the_shape_of_its_space(last: Any) -> None:
    """A number for an array of one, say, is stored like any other observation, and reaches the learner like it."""
    space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    seen = []

    class Number(Shows):
        def _observe(self) -> Any:
            return last

    envs = SamplerEnvs([lambda: Number(space, None, -1)])
    envs.reset([0], [{}])
    for _ in range(20):
        envs.step(
            [0],
            envs.observations,
            np.zeros(1),
            np.zeros(1, bool),
            lambda env, info, done: seen.append(info.get(TERMINAL_OBSERVATION)),
        )
    assert seen[:-1] == [None] * 19
    assert np.shape(seen[-1]) == (1,) and np.asarray(seen[-1])[0] == 0.5
    AsyncPPO(
        "MlpPolicy", lambda: Number(space, None, -1), n_samplers=1, n_steps=32, batch_size=32, backend="inline"
    ).learn(64)
