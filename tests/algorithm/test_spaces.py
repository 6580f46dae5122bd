"""Every space that SB3's PPO takes."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import stable_baselines3
from gymnasium import spaces
from oracle import assert_same_training, assert_trains_pipelined, transposed
from space_env import SpaceEnv
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecTransposeImage

import sb3_walle
from sb3_walle import AsyncPPO, SamplerVecEnv
from sb3_walle.samplers.actors.choice import choose_actor

VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)
CHANNELS_FIRST = spaces.Box(0, 255, (3, 36, 36), np.uint8)
CHANNELS_LAST = spaces.Box(0, 255, (36, 36, 3), np.uint8)
ONE_CHANNEL = spaces.Box(0, 255, (36, 36, 1), np.uint8)

ACTION_SPACES = {
    "box": spaces.Box(-1.0, 1.0, (1,), np.float32),
    "box, asymmetric": spaces.Box(-2.0, 5.0, (2,), np.float32),
    "box, bounds of their own": spaces.Box(np.array([-2.0, 0.5]), np.array([5.0, 0.75]), dtype=np.float64),
    "box, matrix": spaces.Box(-2.0, 5.0, (2, 3), np.float32),
    "box, matrix of float64": spaces.Box(-2.0, 5.0, (2, 3), np.float64),
    "box, no dimension": spaces.Box(-1.0, 1.0, (), np.float32),
    "discrete": spaces.Discrete(4),
    "discrete, from 3": spaces.Discrete(4, start=3),
    "multi-discrete": spaces.MultiDiscrete([2, 3, 4]),
    "multi-discrete, int32": spaces.MultiDiscrete([2, 3], dtype=np.int32),
    "multi-binary": spaces.MultiBinary(3),
}
OBSERVATION_SPACES = {
    "box": VECTOR,
    "box, one number": spaces.Box(-1.0, 1.0, (1,), np.float64),
    "box, matrix": spaces.Box(-2.0, 5.0, (2, 3), np.float32),
    "box, float64": spaces.Box(-2.0, 5.0, (3,), np.float64),
    "box, uint8": spaces.Box(0, 255, (3,), np.uint8),
    "box, int64": spaces.Box(-9, 9, (2, 3), np.int64),
    "box, int32": spaces.Box(-9, 9, (3,), np.int32),
    "box, unbounded": spaces.Box(-np.inf, np.inf, (3,), np.float32),
    "box, half bounded": spaces.Box(np.array([0.0, -np.inf]), np.array([np.inf, 1.0]), dtype=np.float64),
    "image for an MLP": CHANNELS_FIRST,
    "discrete": spaces.Discrete(5),
    "multi-discrete": spaces.MultiDiscrete([2, 3, 4]),
    "multi-binary": spaces.MultiBinary(3),
    "multi-binary, matrix": spaces.MultiBinary([2, 3]),
}
DICTIONARIES = {
    "numbers": {"b": spaces.Box(-2.0, 5.0, (2, 2), np.float64), "a": spaces.Discrete(5), "c": spaces.MultiBinary(3)},
    "with an image": {"image": CHANNELS_FIRST, "number": spaces.MultiDiscrete([2, 3])},
}
DICTIONARIES_LAST = {"image": CHANNELS_LAST, "vector": VECTOR}

# More of NatureCNN's features than that only take time.
SMALL_CNN = {"features_extractor_kwargs": {"features_dim": 8}}
SMALL_COMBINED = {"features_extractor_kwargs": {"cnn_output_dim": 8}}


def task(observation_space: spaces.Space = VECTOR, action_space: spaces.Space | None = None) -> partial[SpaceEnv]:
    return partial(SpaceEnv, observation_space, action_space or spaces.Discrete(3))


@pytest.mark.parametrize("action_space", ACTION_SPACES.values(), ids=ACTION_SPACES)
def test_actions(action_space: spaces.Space) -> None:
    assert_same_training("MlpPolicy", task(action_space=action_space))
    model = assert_trains_pipelined("MlpPolicy", task(action_space=action_space))
    assert choose_actor(model.sampler_actor, model.policy) == "numpy"


def test_integer_boxes_as_actions() -> None:
    # SB3's rollout buffer cuts the fractions off. So does ours, and nothing else can say what was done.
    assert_same_training("MlpPolicy", task(action_space=spaces.Box(-3, 3, (2,), np.int32)))


@pytest.mark.parametrize("observation_space", OBSERVATION_SPACES.values(), ids=OBSERVATION_SPACES)
def test_observations(observation_space: spaces.Space) -> None:
    assert_same_training("MlpPolicy", task(observation_space))
    model = assert_trains_pipelined("MlpPolicy", task(observation_space))
    assert choose_actor(model.sampler_actor, model.policy) == "numpy"


@pytest.mark.parametrize("name", DICTIONARIES)
def test_dictionaries(name: str) -> None:
    # A list of pairs keeps its order, while a dictionary's keys would be sorted.
    space = spaces.Dict(list(DICTIONARIES[name].items()))
    kwargs = SMALL_COMBINED if "image" in space.spaces else {}
    assert_same_training("MultiInputPolicy", task(space), policy_kwargs=kwargs)
    model = assert_trains_pipelined("MultiInputPolicy", task(space), policy_kwargs=kwargs)
    assert choose_actor(model.sampler_actor, model.policy) == ("torch" if "image" in space.spaces else "numpy")


def test_images() -> None:
    assert_same_training("CnnPolicy", task(CHANNELS_FIRST), policy_kwargs=SMALL_CNN)
    model = assert_trains_pipelined("CnnPolicy", task(CHANNELS_FIRST), policy_kwargs=SMALL_CNN)
    assert isinstance(model.env, SamplerVecEnv)


@pytest.mark.parametrize(
    ("policy", "space", "kwargs"),
    [("CnnPolicy", CHANNELS_LAST, SMALL_CNN), ("CnnPolicy", ONE_CHANNEL, SMALL_CNN), ("MlpPolicy", CHANNELS_LAST, {})],
    ids=["colour", "grey", "for an MLP"],
)
def test_images_with_channels_last_are_transposed(policy: str, space: spaces.Space, kwargs: dict[str, Any]) -> None:
    assert_same_training(policy, task(space), around_oracle=transposed, policy_kwargs=kwargs)
    model = assert_trains_pipelined(policy, task(space), policy_kwargs=kwargs)
    assert_transposed_around_samplers(model)


def test_images_with_channels_last_in_a_dictionary_are_transposed() -> None:
    space = spaces.Dict(DICTIONARIES_LAST)
    assert_same_training("MultiInputPolicy", task(space), around_oracle=transposed, policy_kwargs=SMALL_COMBINED)
    model = assert_trains_pipelined("MultiInputPolicy", task(space), policy_kwargs=SMALL_COMBINED)
    assert_transposed_around_samplers(model)


def assert_transposed_around_samplers(model: AsyncPPO) -> None:
    assert type(model.env) is VecTransposeImage and type(model.env.venv) is SamplerVecEnv


@pytest.mark.parametrize(
    "action_space",
    [
        spaces.MultiBinary([2, 2]),
        spaces.Box(-np.inf, np.inf, (1,), np.float32),
        spaces.Dict({"a": spaces.Discrete(2)}),
        spaces.Tuple([spaces.Discrete(2)]),
    ],
    ids=["matrix of bits", "unbounded", "dictionary", "tuple"],
)
def test_actions_that_sb3_refuses_are_refused_in_its_words(action_space: spaces.Space) -> None:
    with pytest.raises((AssertionError, NotImplementedError)) as expected:
        PPO("MlpPolicy", make_vec_env(task(action_space=action_space), 1), device="cpu")
    with pytest.raises(type(expected.value), match=re.escape(str(expected.value))):
        AsyncPPO("MlpPolicy", task(action_space=action_space), n_samplers=1, backend="inline", device="cpu")


REFUSED = {
    "tuple": spaces.Tuple([VECTOR, VECTOR]),
    "nested": spaces.Dict({"a": spaces.Dict({"b": VECTOR})}),
    "tuple in a dictionary": spaces.Dict({"a": spaces.Tuple([VECTOR, VECTOR])}),
    "tuple in a tuple": spaces.Tuple([spaces.Tuple([VECTOR])]),
    "sequence": spaces.Sequence(VECTOR),
    "text": spaces.Text(5),
    "graph": spaces.Graph(VECTOR, None),
    "one of several": spaces.OneOf([VECTOR, spaces.Discrete(2)]),
    "sequence in a dictionary": spaces.Dict({"a": spaces.Sequence(VECTOR)}),
}
BOX_ACTIONS = spaces.Box(-1.0, 1.0, (1,), np.float32)


def refusal_by(build: Callable[[], Any]) -> Exception | None:
    try:
        build()
    except Exception as error:
        return error
    return None


def assert_refused_alike(expected: Exception, found: Exception | None) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, TypeError):
        # SB3 does not refuse these, but stumbles over them.
        assert str(expected) == "'NoneType' object is not iterable"
        assert re.match(r".*(Sequence|Text|Graph).* observation space is not supported$", str(found))
    else:
        assert str(found) == str(expected)


@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "DQN", "SAC", "TD3"])
@pytest.mark.parametrize("name", REFUSED)
def test_observations_that_sb3_refuses_are_refused_by_the_same_error(name: str, algorithm: str) -> None:
    action_space = BOX_ACTIONS if algorithm in ("SAC", "TD3") else spaces.Discrete(2)
    env_fn = task(REFUSED[name], action_space=action_space)
    policy = "MultiInputPolicy" if isinstance(REFUSED[name], spaces.Dict) else "MlpPolicy"
    expected = refusal_by(lambda: getattr(stable_baselines3, algorithm)(policy, env_fn(), device="cpu"))
    assert expected is not None
    assert_refused_alike(
        expected,
        refusal_by(
            lambda: getattr(sb3_walle, f"Async{algorithm}")(
                policy, env_fn, n_samplers=1, backend="inline", device="cpu"
            )
        ),
    )


@pytest.mark.parametrize("backend", ["inline", "process"])
def test_samplers_refuse_observations_by_the_error_of_dummy_vec_env(backend: str) -> None:
    n_refused = 0
    for space in REFUSED.values():
        expected = refusal_by(lambda space=space: DummyVecEnv([task(space)]))  # type: ignore[misc]
        if expected is not None:
            found = refusal_by(lambda space=space: SamplerVecEnv([task(space)], backend=backend))  # type: ignore[misc]
            assert_refused_alike(expected, found)
            n_refused += 1
    assert n_refused == len(REFUSED) - 1
