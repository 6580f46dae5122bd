"""Minibatches are those that SB3's rollout buffer draws."""

import copy
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer

from sb3_walle.updates import rollout_minibatches
from sb3_walle.updates.ppo_objective import PackedRows
from sb3_walle.updates.ppo_update import PPOUpdate
from sb3_walle.updates.rollout_minibatches import DTYPES, RolloutMinibatches, example_minibatch
from sb3_walle.updates.unsupported import Unsupported

CPU = th.device("cpu")
ARRAYS = ("observations", "actions", "values", "log_probs", "advantages", "returns")
ACTION_SPACES: list[spaces.Space] = [
    spaces.Box(-1.0, 1.0, (2,), np.float32),
    spaces.Box(-1.0, 1.0, (2, 2), np.float64),
    spaces.Discrete(3),
    spaces.MultiDiscrete([3, 2]),
    spaces.MultiBinary(3),
]


def random_array(like: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Numbers of which hardly two are equal, as far as the type allows."""
    return (100 * generator.random(like.shape)).astype(like.dtype)


def filled(observation_space: spaces.Space, action_space: spaces.Space, n_steps: int, n_envs: int) -> RolloutBuffer:
    """A rollout buffer of random contents."""
    kind = DictRolloutBuffer if isinstance(observation_space, spaces.Dict) else RolloutBuffer
    buffer = kind(n_steps, observation_space, action_space, device="cpu", n_envs=n_envs)
    generator = np.random.default_rng(0)
    for name in ARRAYS:
        array = getattr(buffer, name)
        if isinstance(array, dict):
            setattr(buffer, name, {key: random_array(part, generator) for key, part in array.items()})
        else:
            setattr(buffer, name, random_array(array, generator))
    buffer.pos, buffer.full = n_steps, True
    return buffer


def in_a_row(samples: Any) -> tuple[th.Tensor, ...]:
    """A minibatch of SB3's as a tuple of tensors."""
    observations, *others = samples
    parts = list(observations.values()) if isinstance(observations, dict) else [observations]
    return (*parts, *others)


def unpacked(minibatch: tuple[th.Tensor, ...]) -> tuple[th.Tensor, ...]:
    """A minibatch of ours, as a tuple of as many tensors."""
    *observations, numbers = minibatch
    return (*observations, *PackedRows(None, numbers).unpacked()[1:])


@st.composite
def observation_spaces(draw: Any) -> spaces.Space:
    """Boxes of any type that torch knows, and dictionaries of them."""
    shapes = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple)

    def box() -> spaces.Box:
        return spaces.Box(0, 1, draw(shapes), np.dtype(draw(st.sampled_from(DTYPES))).type)

    if draw(st.booleans()):
        return box()
    return spaces.Dict({key: box() for key in draw(st.lists(st.sampled_from("abc"), min_size=1, unique=True))})


@settings(max_examples=60, deadline=None)
@given(
    observation_space=observation_spaces(),
    action_space=st.sampled_from(ACTION_SPACES),
    n_steps=st.integers(1, 12),
    n_envs=st.integers(1, 4),
    batch_size=st.integers(1, 60),
    bytes_at_once=st.sampled_from([1, 300, 2**20]),
    seed=st.integers(0, 2**32 - 1),
)
def test_minibatches_are_those_of_sb3(
    observation_space: spaces.Space,
    action_space: spaces.Space,
    n_steps: int,
    n_envs: int,
    batch_size: int,
    bytes_at_once: int,
    seed: int,
) -> None:
    """In values, types, shapes and order, in each of two epochs, however many are gathered at once."""
    oracle = filled(observation_space, action_space, n_steps, n_envs)
    buffer = copy.deepcopy(oracle)
    np.random.seed(seed)
    expected = [[in_a_row(samples) for samples in oracle.get(batch_size)] for _ in range(2)]
    expected_state = np.random.get_state()

    np.random.seed(seed)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rollout_minibatches, "BYTES_AT_ONCE", bytes_at_once)
        drawn = RolloutMinibatches(buffer, batch_size, CPU)
        found = [[unpacked(copy.deepcopy(minibatch)) for minibatch in drawn.epoch()] for _ in range(2)]

    assert [len(epoch) for epoch in found] == [-(-n_steps * n_envs // batch_size)] * 2
    th.testing.assert_close(found, expected, rtol=0, atol=0)
    np.testing.assert_equal(np.random.get_state(), expected_state)
    assert_same_buffer(buffer, oracle)


def assert_same_buffer(found: RolloutBuffer, expected: RolloutBuffer) -> None:
    """That two buffers agree in all that they hold, also in types."""
    np.testing.assert_equal(vars(found), vars(expected))
    for name in ARRAYS:
        arrays = [getattr(buffer, name) for buffer in (found, expected)]
        parts = [list(array.values()) if isinstance(array, dict) else [array] for array in arrays]
        assert [part.dtype for part in parts[0]] == [part.dtype for part in parts[1]], name


@settings(max_examples=30, deadline=None)
@given(
    observation_space=observation_spaces(),
    action_space=st.sampled_from(ACTION_SPACES),
    batch_size=st.integers(1, 12),
    is_flattened=st.booleans(),
)
def test_examples_look_like_minibatches(
    observation_space: spaces.Space, action_space: spaces.Space, batch_size: int, is_flattened: bool
) -> None:
    buffer = filled(observation_space, action_space, 6, 2)
    example = example_minibatch(copy.deepcopy(buffer), batch_size, CPU)
    first = next(RolloutMinibatches(buffer, batch_size, CPU).epoch())
    if is_flattened:
        example = example_minibatch(buffer, batch_size, CPU)
    assert [(part.dtype, part.shape, part.stride()) for part in example] == [
        (part.dtype, part.shape, part.stride()) for part in first
    ]


def test_a_minibatch_does_not_change_when_the_buffer_does() -> None:
    buffer = filled(spaces.Box(0.0, 1.0, (3,), np.float32), ACTION_SPACES[0], 6, 2)
    first = next(RolloutMinibatches(buffer, 4, CPU).epoch())
    before = copy.deepcopy(first)
    buffer.observations[:] = -1
    buffer.returns[:] = -1
    th.testing.assert_close(first, before, rtol=0, atol=0)


def test_keys_of_dictionaries_are_in_the_order_of_minibatches() -> None:
    """Which of them is which is known by its place alone."""
    space = spaces.Dict({"b": spaces.Box(0, 1, (2,), np.float32), "a": spaces.Box(0, 1, (3,), np.float32)})
    buffer = filled(space, ACTION_SPACES[0], 4, 1)
    model = Mock(rollout_buffer=buffer)
    keys = PPOUpdate(model).observation_keys()
    assert keys is not None
    first = next(RolloutMinibatches(buffer, 4, CPU).epoch())
    assert {key: part.shape[1] for key, part in zip(keys, first, strict=False)} == {"a": 3, "b": 2}


class OwnBuffer(RolloutBuffer):
    """A buffer class of a user's own."""


def test_a_buffer_of_ones_own_is_refused() -> None:
    buffer = OwnBuffer(4, spaces.Box(0, 1, (2,), np.float32), ACTION_SPACES[0], device="cpu")
    buffer.full = True
    with pytest.raises(Unsupported, match="the rollout buffer is of a class of its own, OwnBuffer"):
        RolloutMinibatches(buffer, 4, CPU)


def test_a_buffer_that_is_not_full_is_an_error() -> None:
    buffer = RolloutBuffer(4, spaces.Box(0, 1, (2,), np.float32), ACTION_SPACES[0], device="cpu")
    with pytest.raises(ValueError, match="The rollout buffer is not full"):
        RolloutMinibatches(buffer, 4, CPU)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
def test_observations_that_torch_barely_knows_are_refused(dtype: Any) -> None:
    buffer = filled(spaces.Box(0, 1, (2,), dtype), ACTION_SPACES[0], 4, 1)
    with pytest.raises(Unsupported, match=f"there are observations of type {np.dtype(dtype).name}"):
        example_minibatch(buffer, 4, CPU)
