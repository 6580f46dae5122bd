"""Layouts: where the arrays of a block of memory lie, and which arrays a chunk has."""

import mmap
import pickle

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_walle.transport.chunk import Chunk, Observations, chunk_layout, row
from sb3_walle.transport.layout import ALIGNMENT, Field, Layout

DTYPES = [
    *("|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16"),
    *(">i4", ">f8", "float32", "bool", np.dtype(np.longdouble).str),
]

shapes = st.lists(st.integers(0, 4), max_size=5) | st.lists(st.integers(0, 1), max_size=32)
field_lists = st.lists(st.tuples(shapes, st.sampled_from(DTYPES)), max_size=8).map(
    lambda pairs: tuple(Field(f"array {index}", tuple(shape), dtype) for index, (shape, dtype) in enumerate(pairs))
)
seeds = st.integers(0, 2**32 - 1)

unhurried = settings(deadline=None, max_examples=100)


def memory_for(layout: Layout) -> memoryview:
    """Memory of exactly the layout's size that starts on a page."""
    return memoryview(mmap.mmap(-1, layout.nbytes + 1))[: layout.nbytes]


def random_array(field: Field, rng: np.random.Generator) -> np.ndarray:
    """Any bytes that are a value of the field's type."""
    dtype = np.dtype(field.dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, field.shape).astype(dtype)
    return np.frombuffer(rng.bytes(field.nbytes), dtype).reshape(field.shape)


@unhurried
@given(field_lists, seeds)
def test_arrays_keep_their_values_beside_any_neighbours(fields: tuple[Field, ...], seed: int) -> None:
    layout = Layout(fields)
    memory = memory_for(layout)
    rng = np.random.default_rng(seed)
    written = {field.name: random_array(field, rng) for field in fields}
    for name, array in layout.views(memory).items():
        array[...] = written[name]
    read = layout.views(memory)
    assert list(read) == [field.name for field in fields]
    for field in fields:
        assert read[field.name].shape == field.shape
        assert read[field.name].dtype == np.dtype(field.dtype)
        assert read[field.name].tobytes() == written[field.name].tobytes()


@unhurried
@given(field_lists)
def test_arrays_do_not_overlap_and_start_on_cache_lines_within_the_memory(fields: tuple[Field, ...]) -> None:
    layout = Layout(fields)
    memory = memory_for(layout)
    start = np.frombuffer(memory, np.uint8).ctypes.data if layout.nbytes else 0
    end = start
    for array in layout.views(memory).values():
        if array.nbytes:
            assert array.ctypes.data % ALIGNMENT == 0
            assert array.ctypes.data >= end
            end = array.ctypes.data + array.nbytes
    assert end <= start + layout.nbytes


@unhurried
@given(field_lists)
def test_total_size_is_that_of_the_arrays_rounded_up_to_cache_lines(fields: tuple[Field, ...]) -> None:
    sizes = [int(np.prod(field.shape)) * np.dtype(field.dtype).itemsize for field in fields]
    assert [field.nbytes for field in fields] == sizes
    assert Layout(fields).nbytes == sum(-(-size // 64) * 64 for size in sizes)


@unhurried
@given(field_lists.filter(lambda fields: Layout(fields).nbytes > 0), st.data())
def test_memory_that_is_too_small_is_refused(fields: tuple[Field, ...], data: st.DataObject) -> None:
    layout = Layout(fields)
    n_bytes = data.draw(st.integers(0, layout.nbytes - 1))
    with pytest.raises(ValueError, match=f"needs {layout.nbytes} bytes.* has {n_bytes}"):
        layout.views(memoryview(bytearray(n_bytes)))


@unhurried
@given(field_lists, st.integers(0, 100))
def test_memory_that_is_too_large_is_left_alone_behind_the_arrays(fields: tuple[Field, ...], n_more: int) -> None:
    layout = Layout(fields)
    memory = bytearray(layout.nbytes + n_more)
    for array in layout.views(memoryview(memory)).values():
        array[...] = 1
    assert not any(memory[layout.nbytes :])


@unhurried
@given(field_lists, seeds)
def test_layout_of_arrays_holds_copies_of_them(fields: tuple[Field, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Not contiguous wherever that is possible, as slices of larger arrays are not.
    arrays = {field.name: random_array(field, rng).T for field in fields}
    layout = Layout.of(arrays)
    for name, view in layout.views(memory_for(layout)).items():
        view[...] = arrays[name]
        assert view.dtype == arrays[name].dtype
        assert view.tobytes() == arrays[name].tobytes()


@unhurried
@given(field_lists)
def test_both_ends_of_a_queue_find_the_arrays_in_the_same_places(fields: tuple[Field, ...]) -> None:
    layout = Layout(fields)
    there = pickle.loads(pickle.dumps(layout))
    assert there == layout
    assert there.offsets == layout.offsets


@pytest.mark.parametrize("dtype", ["O", "object", [("number", "<i4"), ("name", "O")]])
def test_objects_are_refused(dtype: str) -> None:
    with pytest.raises(TypeError, match=r"'reward' has dtype .* Only numeric and boolean"):
        Field("reward", (2,), dtype)


def test_layout_of_objects_is_refused() -> None:
    with pytest.raises(TypeError, match="'name' has dtype"):
        Layout.of({"name": np.array([None])})


def test_two_arrays_of_the_same_name_are_refused() -> None:
    with pytest.raises(ValueError, match="must differ"):
        Layout((Field("a", (1,), "<f4"), Field("b", (1,), "<f4"), Field("a", (2,), "<i8")))


# Chunks

T, B = 3, 2
ACTIONS = Field("actions", (T, B, 5), "<f4")

BASIC_SPACES = [
    spaces.Box(-1.0, 1.0, (4,), np.float32),
    spaces.Box(-np.inf, np.inf, (2, 3), np.float64),
    spaces.Box(-1.0, 1.0, (), np.float16),
    spaces.Box(0, 255, (8, 6, 3), np.uint8),
    spaces.Box(-5, 5, (0,), np.int32),
    spaces.Discrete(6),
    spaces.Discrete(4, start=-2),
    spaces.MultiDiscrete([3, 4, 2]),
    spaces.MultiDiscrete([[3, 2], [2, 9]], dtype=np.int32),
    spaces.MultiBinary(7),
    spaces.MultiBinary([2, 3]),
]


def chunk_for(space: spaces.Space) -> Chunk:
    layout = chunk_layout(T, B, space, (ACTIONS,))
    return Chunk(layout.views(memory_for(layout)))


def fill_with_samples(observations: Observations, space: spaces.Space) -> list[list]:
    """Write T + 1 rows of B observations, and return them."""
    samples = [[space.sample() for _ in range(B)] for _ in range(T + 1)]
    for step, batch in enumerate(samples):
        target = row(observations, step)
        for env, sample in enumerate(batch):
            if isinstance(target, dict):
                for key, array in target.items():
                    array[env] = sample[key]
            else:
                target[env] = sample
    return samples


@pytest.mark.parametrize("space", BASIC_SPACES, ids=str)
def test_chunk_keeps_observations_in_their_own_type_and_shape(space: spaces.Space) -> None:
    space.seed(0)
    observations = chunk_for(space).observations
    assert isinstance(observations, np.ndarray)
    assert observations.dtype == space.dtype
    assert observations.shape == (T + 1, B, *space.shape)
    samples = fill_with_samples(observations, space)
    np.testing.assert_array_equal(observations, np.array(samples, space.dtype))


def test_chunk_keeps_each_key_of_a_dict_in_its_own_type_and_shape() -> None:
    space = spaces.Dict({f"key {index}": subspace for index, subspace in enumerate(BASIC_SPACES)}, seed=0)
    observations = chunk_for(space).observations
    assert isinstance(observations, dict)
    assert list(observations) == list(space.spaces)
    samples = fill_with_samples(observations, space)
    for key, subspace in space.spaces.items():
        assert observations[key].dtype == subspace.dtype
        assert observations[key].shape == (T + 1, B, *subspace.shape)
        expected = [[sample[key] for sample in batch] for batch in samples]
        np.testing.assert_array_equal(observations[key], np.array(expected, subspace.dtype))


def test_keys_of_a_dict_may_have_the_names_of_other_arrays() -> None:
    names = ["rewards", "actions", "observations", "episode_starts", "a/b"]
    chunk = chunk_for(spaces.Dict({name: spaces.Discrete(2) for name in names}))
    assert isinstance(chunk.observations, dict)
    assert set(chunk.observations) == set(names)
    assert chunk.rewards.dtype == np.float32
    assert chunk.actions.shape == ACTIONS.shape


def test_chunk_has_one_more_observation_than_it_has_steps() -> None:
    chunk = chunk_for(spaces.Discrete(2))
    assert (chunk.capacity, chunk.n_steps, chunk.n_envs) == (T, T, B)
    assert chunk.rewards.shape == (T, B)
    assert chunk.episode_starts.shape == (T + 1, B)
    assert len(chunk.observations) == T + 1


def test_step_is_done_where_the_next_observation_starts_an_episode() -> None:
    chunk = chunk_for(spaces.Discrete(2))
    chunk.episode_starts[...] = [[True, True], [False, True], [False, False], [True, False]]
    np.testing.assert_array_equal(chunk.dones, [[False, True], [False, False], [True, False]])


@pytest.mark.parametrize("space", [BASIC_SPACES[0], spaces.Dict({"a": spaces.Discrete(2), "b": BASIC_SPACES[3]})])
def test_row_writes_through_to_the_chunk(space: spaces.Space) -> None:
    observations = chunk_for(space).observations
    step = row(observations, 1)
    for whole, part in (
        [(observations[key], step[key]) for key in step] if isinstance(step, dict) else [(observations, step)]
    ):
        part[...] = 1
        assert whole[1].all()
        assert not whole[[0, 2, 3]].any()


@pytest.mark.parametrize(
    "space",
    [
        spaces.Tuple([spaces.Discrete(2), spaces.Discrete(2)]),
        spaces.Text(5),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Graph(spaces.Discrete(2), None),
        spaces.Dict({"outer": spaces.Dict({"inner": spaces.Discrete(2)})}),
        spaces.Dict({"number": spaces.Discrete(2), "words": spaces.Text(5)}),
        spaces.Dict({"pair": spaces.Tuple([spaces.Discrete(2)])}),
    ],
    ids=str,
)
def test_observations_without_a_fixed_shape_are_refused(space: spaces.Space) -> None:
    with pytest.raises(NotImplementedError, match="observation space is not supported"):
        chunk_layout(T, B, space, (ACTIONS,))
