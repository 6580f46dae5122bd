"""Copies of one environment do not all draw the same numbers."""

import random
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils import EzPickle
from hypothesis import given
from hypothesis import strategies as st

from sb3_walle.samplers.factories import PickledEnv, factory_from_env
from sb3_walle.samplers.factories.streams_of_copies import tell_apart


def generators(seed: int) -> dict[str, Any]:
    return {
        "PCG64": np.random.default_rng(seed),
        "MT19937": np.random.Generator(np.random.MT19937(seed)),
        "Philox": np.random.Generator(np.random.Philox(seed)),
        "SFC64": np.random.Generator(np.random.SFC64(seed)),
        "RandomState": np.random.RandomState(seed),
        "random": random.Random(seed),
    }


def drawn(stream: Any) -> list[float]:
    return [float(stream.random()) for _ in range(5)]


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(sorted(generators(0))),
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 3), st.integers(0, 3)), unique=True, min_size=2, max_size=4),
)
def test_every_key_has_a_stream_of_its_own_that_depends_on_nothing_else(
    seed: int, kind: str, keys: list[tuple[int, int, int]]
) -> None:
    streams = []
    for key in keys * 2:
        stream = generators(seed)[kind]
        tell_apart(stream, key)
        streams.append(tuple(drawn(stream)))
    assert streams[: len(keys)] == streams[len(keys) :]
    assert len({*streams, tuple(drawn(generators(seed)[kind]))}) == len(keys) + 1


class Dice(gym.Env):
    """Draws from generators of its own, wherever they are."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Discrete(2)

    def __init__(self, kind: str = "PCG64") -> None:
        self.own = generators(3)[kind]
        self.others = {"inside": [generators(4)[kind]]}
        self.same = self.own

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        return np.array([self.own.random(), self.others["inside"][0].random()]), {}


class EzDice(Dice, EzPickle):
    """Its copies are built by the constructor, which seeds them all alike."""

    def __init__(self, kind: str = "PCG64") -> None:
        EzPickle.__init__(self, kind)
        super().__init__(kind)


@pytest.mark.parametrize("kind", sorted(generators(0)))
@pytest.mark.parametrize("cls", [Dice, EzDice])
def test_copies_draw_other_numbers_than_the_original_but_for_the_first(cls: type[Dice], kind: str) -> None:
    factory = factory_from_env(cls(kind))
    assert isinstance(factory, PickledEnv)
    copies = [copy() for copy in factory.copies(4)]
    seen = [tuple(copy.reset()[0]) for copy in copies]
    assert seen[0] == tuple(cls(kind).reset()[0])
    assert len({first for first, _ in seen}) == 4
    if cls is Dice:
        assert len({second for _, second in seen}) == 4
    assert all(copy.same is copy.own for copy in copies)
    again = [tuple(copy().reset()[0]) for copy in factory.copies(4)]
    assert again == seen
