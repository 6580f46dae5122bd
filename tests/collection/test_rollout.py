"""A rollout holds all that samplers record at each step, once, and knows what each step led to."""

from dataclasses import dataclass

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_walle.collection.rollout import Rollout
from sb3_walle.transport.chunk import Chunk, chunk_layout, named
from sb3_walle.transport.layout import Field

T, B, N_SAMPLERS = 4, 2, 3
N_STEPS, N_ENVS = 7, B * N_SAMPLERS
SPACES = {
    "array": spaces.Box(-np.inf, np.inf, (2,), np.float64),
    "dict": spaces.Dict({key: spaces.Box(-np.inf, np.inf, (2,), np.float64) for key in "ab"}),
}


def new_chunk(space: spaces.Space) -> Chunk:
    further = (
        Field("actions", (T, B), "<i8"),
        Field("lstm/hidden", (T, B, 5), "<f4"),
        Field("mask", (T, B, 3), "|b1"),
        Field("mean", (B,), "<f8"),
    )
    layout = chunk_layout(T, B, space, further)
    return Chunk(layout.views(memoryview(bytearray(layout.nbytes))))


@dataclass(frozen=True)
class Piece:
    """Rows of one environment of a sampler that fill the next rows of a column."""

    sampler: int
    env: int
    rows: range
    column: int
    step: int
    is_continuation: bool


@st.composite
def pieces(draw: st.DrawFn) -> list[Piece]:
    """Every column filled from the top to the bottom, in pieces from anywhere, and the columns in any order."""
    filled, found = [0] * N_ENVS, []
    while min(filled) < N_STEPS:
        column = draw(st.sampled_from([index for index in range(N_ENVS) if filled[index] < N_STEPS]))
        first = draw(st.integers(0, T - 1))
        n_rows = draw(st.integers(1, min(T - first, N_STEPS - filled[column])))
        sampler, env = draw(st.integers(0, N_SAMPLERS - 1)), draw(st.integers(0, B - 1))
        rows = range(first, first + n_rows)
        found.append(Piece(sampler, env, rows, column, filled[column], draw(st.booleans())))
        filled[column] += n_rows
    return found


@settings(deadline=None, max_examples=50)
@given(pieces(), st.sampled_from(sorted(SPACES)), st.integers(0, 2**32 - 1))
def test_a_rollout_is_what_its_pieces_are(pieces: list[Piece], space: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    chunks = [new_chunk(SPACES[space]) for _ in range(N_SAMPLERS)]
    for chunk in chunks:
        for array in chunk.arrays.values():
            array[...] = rng.normal(size=array.shape) * 10
    rollout = Rollout(N_STEPS, N_ENVS, like=chunks[0])
    assert set(rollout.fields) == set(chunks[0].arrays) - {"mean"}
    for piece in pieces:
        envs = slice(piece.env, piece.env + 1)
        rollout.paste(chunks[piece.sampler], [], piece.rows, piece.step, piece.column, piece.is_continuation, envs)
    for piece in pieces:
        chunk = chunks[piece.sampler]
        for index, row in enumerate(piece.rows):
            step = piece.step + index
            for name, array in rollout.fields.items():
                np.testing.assert_array_equal(array[step, piece.column], chunk.arrays[name][row, piece.env])
            assert rollout.dones[step, piece.column] == chunk.dones[row, piece.env]
            found = rollout.next_observations(step)
            for key in found if isinstance(found, dict) else (None,):
                led_to = named(chunk.arrays, "observations")
                expected = led_to[row + 1, piece.env] if key is None else led_to[key][row + 1, piece.env]
                np.testing.assert_array_equal(
                    found[piece.column] if key is None else found[key][piece.column], expected
                )


@pytest.mark.parametrize("space", sorted(SPACES))
def test_what_a_step_led_to_is_a_view_where_the_row_is_continued(space: str) -> None:
    chunks = [new_chunk(SPACES[space]) for _ in range(N_SAMPLERS)]
    rollout = Rollout(T, N_ENVS, like=chunks[0])
    for sampler, chunk in enumerate(chunks):
        rollout.paste(chunk, [], range(T), 0, sampler * B, is_continuation=True)
    for step in range(T - 1):
        led_to = rollout.next_observations(step)
        parts = zip(led_to.values(), rollout.observations.values(), strict=True) if space == "dict" else None
        for part, whole in parts or [(led_to, rollout.observations)]:
            assert np.shares_memory(part, whole[step + 1])
