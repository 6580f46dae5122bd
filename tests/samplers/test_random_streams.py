"""Where random streams are, as bytes."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_walle.samplers.actors.random_streams import RandomStreams, global_state, set_global_state
from sb3_walle.transport.errors import TransportError

SPACES = [spaces.Box(-1.0, 1.0, (3,), np.float64), spaces.Discrete(5), spaces.MultiBinary(4)]


def draw(space: spaces.Space) -> list[Any]:
    """From all streams, and in such a way that a part of a number is kept for the next draw."""
    drawn = (th.rand(3).tolist(), np.random.normal(size=3).tolist(), np.random.bytes(3), space.sample().tolist())
    return [*drawn, space.np_random.integers(2**8, dtype=np.uint8)]


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("n_draws", [0, 1, 300])
def test_streams_continue_from_where_they_were(space: spaces.Space, n_draws: int) -> None:
    for _ in range(n_draws):
        draw(space)
    state = global_state(space)
    expected = draw(space)
    draw(space)
    set_global_state(state, space)
    assert draw(space) == expected


def test_the_state_of_an_actors_own_streams_is_that_of_the_global_ones() -> None:
    space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    streams = RandomStreams((3,), space)
    state = streams.state
    with streams:
        expected = draw(streams.action_space)
    set_global_state(state, space)
    assert draw(space) == expected
    streams.state = state
    with streams:
        assert draw(streams.action_space) == expected


@pytest.mark.parametrize("generator", [np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_spaces_may_draw_from_any_generator(generator: type[np.random.BitGenerator]) -> None:
    space = spaces.Box(-1.0, 1.0, (3,), np.float32)
    space._np_random = np.random.Generator(generator(1))
    draw(space)
    state = global_state(space)
    expected = draw(space)
    set_global_state(state, space)
    assert draw(space) == expected


class _Opened:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("what a sampler wrote was unpickled",)


def test_what_a_sampler_wrote_is_never_unpickled() -> None:
    space = spaces.Discrete(3)
    length = len(global_state(space))
    for payload in (
        pickle.dumps(_Opened()),
        len(pickle.dumps(_Opened())).to_bytes(8, "little") + pickle.dumps(_Opened()),
    ):
        packed = np.frombuffer(payload.ljust(length, b"\0"), np.uint8)
        # torch looks whether the bytes make sense.
        with pytest.raises((RuntimeError, TransportError)):
            set_global_state(packed, space)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_state_of_another_length_is_refused(change: int) -> None:
    space = spaces.Discrete(3)
    state = global_state(space)
    with pytest.raises(TransportError, match=f"states of {len(state)} bytes, not of {len(state) + change}"):
        set_global_state(np.resize(state, len(state) + change), space)


def test_a_position_outside_of_the_generators_table_is_refused() -> None:
    space, before = spaces.Discrete(3), np.random.get_state(legacy=False)
    state = global_state(space)
    key, position = before["state"]["key"].tobytes(), before["state"]["pos"].to_bytes(16, "little")
    start = state.tobytes().index(key + position) + len(key)
    damaged = state.copy()
    damaged[start : start + 2] = np.frombuffer((625).to_bytes(2, "little"), np.uint8)
    with pytest.raises(TransportError, match="number 625 of 624"):
        set_global_state(damaged, space)
    assert global_state(space).tobytes() == state.tobytes()
