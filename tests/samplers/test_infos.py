"""Infos arrive as they were noted, and the numbers in them do not travel as messages."""

import contextlib
import dataclasses
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_util import make_vec_env

from sb3_walle.samplers.infos import (
    COLUMNS_OF_COMPLETE_INFOS,
    EPISODE,
    IS_SUCCESS,
    TERMINAL_OBSERVATION,
    TRUNCATED,
    InfoRecord,
    InfoRecorder,
    InfoSelection,
    PackedInfos,
    checked_info_keys,
    select_infos,
    unpack,
)
from sb3_walle.transport.errors import TransportError

ENDS = InfoSelection()
COMPLETE = InfoSelection(every_step=True)
SPEED = InfoSelection(every_step=True, keys=("x_velocity",))

unhurried = settings(deadline=None, max_examples=200)


def area_of(n_bytes: int) -> np.ndarray:
    """Memory that holds something else."""
    return np.full(n_bytes, 0xAB, np.uint8)


def area_for(selection: InfoSelection, n_steps: int, n_envs: int) -> np.ndarray:
    return area_of(selection.area_nbytes(n_steps, n_envs))


def packed(records: list[InfoRecord], area: np.ndarray) -> PackedInfos:
    recorder = InfoRecorder(COMPLETE)
    for step, env, info in records:
        recorder.note(step, env, info, done=False)
    return recorder.pack(area)


def sent(message: PackedInfos) -> PackedInfos:
    return pickle.loads(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))


def pickled_nbytes(message: Any) -> int:
    return len(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))


def half_cheetah_infos(n: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "x_position": np.float64(rng.normal()),
            "x_velocity": np.float64(rng.normal()),
            "reward_forward": np.float64(rng.normal()),
            "reward_ctrl": float(rng.normal()),
            TRUNCATED: False,
        }
        for _ in range(n)
    ]


def identical(one: Any, other: Any) -> bool:
    """Whether two values are of the same type, and the same to the last bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return identical(list(one.items()), list(other.items()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(identical, one, other))
    if isinstance(one, np.ndarray):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        return identical(one.tolist(), other.tolist()) if one.dtype.hasobject else one.tobytes() == other.tobytes()
    if isinstance(one, np.longdouble | np.clongdouble):  # has bits that mean nothing
        return repr(one) == repr(other)
    if isinstance(one, float | complex | np.number):
        return np.asarray(one).tobytes() == np.asarray(other).tobytes()
    return one == other


def contents(columns: PackedInfos) -> tuple[int, int]:
    """How many columns lie in the area, and how many in the message."""
    n_pickled = sum(isinstance(column, list) for column in columns.columns)
    return len(columns.columns) - n_pickled, n_pickled


# Everything arrives


def bits(kind: type) -> st.SearchStrategy:
    """Any bits that are a value of a NumPy type."""
    if kind is np.bool_:
        return st.booleans().map(np.bool_)
    if kind in (np.longdouble, np.clongdouble):
        return st.floats().map(kind)
    n_bytes = np.dtype(kind).itemsize
    return st.binary(min_size=n_bytes, max_size=n_bytes).map(lambda raw: np.frombuffer(raw, kind)[0])


def arrays(dtype: str, shape: tuple[int, ...]) -> st.SearchStrategy:
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    written = st.binary(min_size=n_bytes, max_size=n_bytes).map(
        lambda raw: np.frombuffer(raw, dtype).reshape(shape).copy()
    )
    return written.map(lambda array: array != 0) if dtype == "|b1" else written


# Without np.longlong, for which pickle itself gives back np.int64.
SCALAR_KINDS = [np.dtype(char).type for char in "bBhHiIlLefdgFDG?"]
NUMBERS = [st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), *map(bits, SCALAR_KINDS)]
ARRAYS = [
    arrays(dtype, shape)
    for dtype in ("<f4", "<f8", ">f8", ">i2", "|u1", "|b1", "<c16")
    for shape in ((), (0,), (3,), (2, 2), (1,) * 30)
]
NO_NUMBERS = [
    st.integers(2**63, 2**70) | st.integers(-(2**70), -(2**63) - 1),
    st.integers(2**63 - 3, 2**63 + 3),
    st.none(),
    st.text(),
    st.binary(),
    st.complex_numbers(),
    st.lists(st.floats() | st.none(), max_size=3),
    st.tuples(st.booleans(), st.lists(st.integers(), max_size=2)),
    st.dictionaries(st.text(), st.floats() | bits(np.float32) | arrays("<f4", (2,)), max_size=2),
    st.just(np.array(["text", None], object)),
    st.just(np.array([(1, 2.0)], "i4,f8")),
    st.just(np.array(["2020-01-01"], "M8[D]")),
    st.just(np.timedelta64(3, "s")),
    st.just(np.str_("text")),
]
SAME_TYPE = [*NUMBERS, *ARRAYS, *NO_NUMBERS]
ANYTHING = st.one_of(SAME_TYPE)
TEXT_KEYS = st.sampled_from(["x", "y", "z", TRUNCATED, EPISODE])
ODD_KEYS = st.sampled_from(
    [0, 1, True, 1.0, -0.0, None, ("x", 1), ("x", True), np.str_("x"), math.nan, float("nan"), b"x"]
)


@st.composite
def infos(draw: st.DrawFn, n_records: int) -> list[dict[Any, Any]]:
    """Dictionaries that have much in common, as those of an environment do, or little."""
    keys = TEXT_KEYS if draw(st.booleans()) else TEXT_KEYS | ODD_KEYS
    columns = draw(st.lists(st.tuples(keys, st.sampled_from(SAME_TYPE) | st.just(ANYTHING)), max_size=5))
    regular = draw(st.booleans())
    drawn = []
    for _ in range(n_records):
        info = {key: draw(values) for key, values in columns}
        if not regular:
            info = {key: info[key] for key in draw(st.permutations(list(info))) if draw(st.booleans())}
        drawn.append(info)
    return drawn


@st.composite
def record_lists(draw: st.DrawFn) -> list[InfoRecord]:
    if draw(st.booleans()):
        n_steps, n_envs = draw(st.integers(0, 4)), draw(st.integers(1, 3))
        places = [(step, env) for step in range(n_steps) for env in range(n_envs)]
    else:
        places = draw(st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 5)), max_size=8))
    return [(*place, info) for place, info in zip(places, draw(infos(len(places))), strict=True)]


@unhurried
@given(record_lists(), st.integers(0, 600) | st.just(10_000), st.integers(0, 70))
def test_what_was_noted_arrives(records: list[InfoRecord], n_bytes: int, start: int) -> None:
    expected = deepcopy(records)
    memory = area_of(start + n_bytes + 64)
    area = memory[start : start + n_bytes]
    message = packed(records, area)
    assert (memory[:start] == 0xAB).all()
    assert (memory[start + n_bytes :] == 0xAB).all()
    arrived = unpack(sent(message), area)
    memory[...] = 0xFF
    assert identical(arrived, expected)


@unhurried
@given(record_lists(), st.integers(0, 600))
def test_the_same_infos_are_packed_the_same_way(records: list[InfoRecord], n_bytes: int) -> None:
    areas = area_of(n_bytes), area_of(n_bytes)
    messages = [pickle.dumps(packed(deepcopy(records), area)) for area in areas]
    assert messages[0] == messages[1]
    np.testing.assert_array_equal(*areas)


def test_keys_that_are_equal_but_not_the_same_are_told_apart() -> None:
    keys = [1, True, 1.0, np.int8(1), "x", np.str_("x"), ("x", 1), ("x", True)]
    records = [(step, 0, {key: float(step)}) for step, key in enumerate(keys)]
    area = area_of(1000)
    assert identical(unpack(sent(packed(records, area)), area), records)


def test_arrived_arrays_own_their_memory_and_may_be_changed() -> None:
    area = area_of(1000)
    arrived = unpack(packed([(step, 0, {"a": np.arange(3.0), "b": np.array(1.0)}) for step in range(4)], area), area)
    for _, _, info in arrived:
        for array in info.values():
            assert array.flags.owndata
            assert array.flags.writeable
            array += 1.0
    assert all(info["a"].tolist() == [1.0, 2.0, 3.0] and info["b"] == 2.0 for _, _, info in arrived)


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda array: array[:, ::-1][:, ::-1], lambda array: array.T.T])
def test_arrays_arrive_whatever_their_memory_layout(layout: Callable[[np.ndarray], np.ndarray]) -> None:
    expected = [np.arange(6.0).reshape(2, 3) + step for step in range(3)]
    area = area_of(1000)
    message = packed([(step, 0, {"a": layout(array)}) for step, array in enumerate(expected)], area)
    assert contents(message) == (1, 0)
    for (_, _, info), array in zip(unpack(message, area), expected, strict=True):
        assert identical(info["a"], array)


def test_arrays_of_a_subclass_arrive() -> None:
    masked = np.ma.masked_array([1.0, 2.0], [True, False])
    area = area_of(1000)
    [(_, _, info)] = unpack(sent(packed([(0, 0, {"a": masked})], area)), area)
    assert type(info["a"]) is np.ma.MaskedArray
    assert info["a"].mask.tolist() == [True, False]


def test_recorder_is_empty_after_packing() -> None:
    recorder = InfoRecorder(COMPLETE)
    area = area_of(1000)
    for step in range(3):
        recorder.note(step, 0, {"x": 1.0}, done=False)
    assert len(unpack(recorder.pack(area), area)) == 3
    assert unpack(recorder.pack(area), area) == []
    recorder.note(7, 1, {"x": 2.0}, done=False)
    assert unpack(recorder.pack(area), area) == [(7, 1, {"x": 2.0})]


def test_recorder_is_empty_after_a_failure_to_pack() -> None:
    recorder = InfoRecorder(COMPLETE)
    recorder.note(0, 0, {"x": 1.0}, done=False)
    with pytest.raises(TransportError, match=r"contiguous row of bytes, not in \(2, 8\) values of float64"):
        recorder.pack(np.zeros((2, 8)))
    assert unpack(recorder.pack(area_of(0)), area_of(0)) == []


# Environments may use their infos again


def test_changes_after_a_step_do_not_arrive() -> None:
    vector, box, info = np.zeros(2), np.array([[0], None], object), {}
    inner = {"list": [0], "array": np.zeros(1)}
    recorder = InfoRecorder(COMPLETE)
    for step in range(3):
        info.clear()
        info.update(step=step, vector=vector, inner=inner, box=box, tuple=([step],))
        recorder.note(step, 0, info, done=False)
        vector += 1.0
        inner["list"][0] += 1
        inner["array"] += 1.0
        box[0][0] += 1
        info["tuple"][0][0] = -1
        info["step"] = -1
        info["late"] = True
    area = area_of(1000)
    for step, (_, _, arrived) in enumerate(unpack(recorder.pack(area), area)):
        assert list(arrived) == ["step", "vector", "inner", "box", "tuple"]
        assert arrived["step"] == step
        assert arrived["vector"].tolist() == [step, step]
        assert arrived["inner"] == {"list": [step], "array": np.array([float(step)])}
        assert arrived["box"].tolist() == [[step], None]
        assert arrived["tuple"] == ([step],)


def test_objects_that_an_info_has_twice_stay_one_object() -> None:
    shared: list[int] = []
    [(_, _, info)] = unpack(sent(packed([(0, 0, {"a": shared, "b": [shared]})], area_of(0))), area_of(0))
    assert info["a"] is info["b"][0]
    assert info["a"] is not shared


class Uncopyable:
    def __deepcopy__(self, memo: dict) -> None:
        raise AssertionError("was copied")


def test_what_does_not_travel_is_not_copied() -> None:
    recorder = InfoRecorder(ENDS)
    recorder.note(0, 0, {"data": Uncopyable()}, done=False)
    with pytest.raises(AssertionError, match="was copied"):
        recorder.note(1, 0, {"data": Uncopyable()}, done=True)
    recorder = InfoRecorder(SPEED)
    recorder.note(0, 0, {"data": Uncopyable()}, done=False)
    recorder.note(1, 0, {"data": Uncopyable()}, done=True)


# Which infos travel

INFO = {"x_velocity": 1.0, "x_position": 2.0, TRUNCATED: False, IS_SUCCESS: False}
LAST_INFO = {"x_position": 3.0, EPISODE: {"r": 1.0}, TERMINAL_OBSERVATION: np.ones(2), **INFO, TRUNCATED: True}


def kept(info: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in info.items() if key in keys}


SB3_KEYS = (EPISODE, TERMINAL_OBSERVATION, TRUNCATED, IS_SUCCESS)
SELECTED = [
    (ENDS, None, LAST_INFO),
    (COMPLETE, INFO, LAST_INFO),
    (SPEED, kept(INFO, "x_velocity", TRUNCATED), kept(LAST_INFO, "x_velocity", *SB3_KEYS)),
    (
        InfoSelection(every_step=True, keys=(IS_SUCCESS, "x_position")),
        kept(INFO, "x_position", IS_SUCCESS, TRUNCATED),
        kept(LAST_INFO, "x_position", *SB3_KEYS),
    ),
    (InfoSelection(every_step=True, keys=("missing",)), kept(INFO, TRUNCATED), kept(LAST_INFO, *SB3_KEYS)),
    (InfoSelection(keys=("x_velocity",)), None, kept(LAST_INFO, "x_velocity", *SB3_KEYS)),
]


@pytest.mark.parametrize(("selection", "during", "last"), SELECTED)
def test_selection_says_what_travels(selection: InfoSelection, during: dict[str, Any] | None, last: dict) -> None:
    recorder = InfoRecorder(sent_selection := pickle.loads(pickle.dumps(selection)))
    assert sent_selection == selection
    recorder.note(0, 0, INFO, done=False)
    recorder.note(0, 1, LAST_INFO, done=True)
    recorder.note(1, 0, LAST_INFO, done=True)
    recorder.note(1, 1, INFO, done=False)
    area = area_for(selection, 2, 2)
    expected = [(0, 0, during), (0, 1, last), (1, 0, last), (1, 1, during)]
    assert identical(unpack(recorder.pack(area), area), [record for record in expected if record[2] is not None])


def test_step_without_any_chosen_key_arrives_as_an_empty_info() -> None:
    recorder = InfoRecorder(SPEED)
    recorder.note(0, 0, {"x_position": 1.0}, done=False)
    recorder.note(1, 0, {"x_velocity": 2.0}, done=False)
    area = area_of(100)
    assert unpack(recorder.pack(area), area) == [(0, 0, {}), (1, 0, {"x_velocity": 2.0})]


@pytest.mark.parametrize("selection", [COMPLETE, InfoSelection(every_step=True, keys=("missing",))])
def test_all_that_sb3_puts_into_an_info_travels(selection: InfoSelection) -> None:
    env = make_vec_env("CartPole-v1", 2, seed=0)
    env.reset()
    recorder, expected = InfoRecorder(selection), []
    for step in range(60):
        _, _, dones, step_infos = env.step(np.zeros(2, int))
        for index, info in enumerate(step_infos):
            recorder.note(step, index, info, bool(dones[index]))
            expected.append((step, index, deepcopy(info)))
    env.close()
    assert any(EPISODE in info for _, _, info in expected)
    area = area_for(selection, 60, 2)
    assert identical(unpack(sent(recorder.pack(area)), area), expected)


@pytest.mark.parametrize(
    ("info_keys", "callbacks_may_look", "expected"),
    [
        ("auto", False, ENDS),
        ("auto", True, COMPLETE),
        ("all", False, COMPLETE),
        ("all", True, COMPLETE),
        (("x_velocity",), False, SPEED),
        (("x_velocity",), True, SPEED),
        (["x_velocity", "x_velocity"], False, SPEED),
        (["b", "a", "b"], True, InfoSelection(every_step=True, keys=("b", "a"))),
        (("all",), False, InfoSelection(every_step=True, keys=("all",))),
        ((), True, InfoSelection(every_step=False, keys=())),
        ([], False, InfoSelection(every_step=False, keys=())),
    ],
)
def test_what_a_user_asks_for(info_keys: Any, callbacks_may_look: bool, expected: InfoSelection) -> None:
    assert select_infos(info_keys, callbacks_may_look) == expected


def test_checked_keys_can_be_checked_again() -> None:
    for info_keys in ("auto", "all", ("x_velocity", "y"), ()):
        assert checked_info_keys(info_keys) == info_keys


@pytest.mark.parametrize(
    ("info_keys", "error", "message"),
    [
        ("x_velocity", ValueError, r"'x_velocity'\. For this key alone, pass \('x_velocity',\)"),
        ("", ValueError, "got the string ''"),
        (None, TypeError, "got None"),
        (3, TypeError, "got 3 of <class 'int'>"),
        (True, TypeError, "got True"),
        ({"x_velocity"}, TypeError, r"got \{'x_velocity'\} of <class 'set'>"),
        ({"x_velocity": 1}, TypeError, "got .* of <class 'dict'>"),
        ((key for key in ("a", "b")), TypeError, "got <generator"),
        (("x_velocity", 3), TypeError, r"got \('x_velocity', 3\), in which 3 is of <class 'int'>"),
        (b"x_velocity", TypeError, "in which 120 is of"),
    ],
)
def test_anything_else_is_refused(info_keys: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        select_infos(info_keys, False)
    assert 'info_keys must be "auto", "all" or a sequence of keys such as ("x_velocity",)' in str(raised.value)


# Numbers lie in shared memory


def test_area_has_a_column_of_8_bytes_for_each_key() -> None:
    assert ENDS.area_nbytes(128, 10) == 0
    assert SPEED.area_nbytes(128, 10) == 2 * 8 * 128 * 10
    assert InfoSelection(True, ("a", TRUNCATED, "b")).area_nbytes(128, 10) == 3 * 8 * 128 * 10
    assert COMPLETE.area_nbytes(128, 10) == COLUMNS_OF_COMPLETE_INFOS * 8 * 128 * 10
    assert SPEED.area_nbytes(1, 1) == 2 * 64
    assert SPEED.area_nbytes(9, 1) == 2 * 128


@pytest.mark.parametrize(("n_steps", "n_envs"), [(2, 1), (3, 1), (128, 1), (7, 3), (20, 8)])
@pytest.mark.parametrize("end", [None, 0, -1])
def test_area_is_large_enough_for_the_chosen_keys(n_steps: int, n_envs: int, end: int | None) -> None:
    keys = tuple(f"key {index}" for index in range(5))
    selection = InfoSelection(every_step=True, keys=keys)
    recorder, expected = InfoRecorder(selection), []
    area = area_for(selection, n_steps, n_envs)
    steps = range(n_steps)
    for step in steps:
        for env in range(n_envs):
            done = end is not None and step == steps[end]
            info = {key: np.float64(step * env) for key in keys} | {TRUNCATED: done}
            if done:
                # What only some records have does not take the place of what all have.
                info = {IS_SUCCESS: True, TERMINAL_OBSERVATION: np.zeros(100), **info}
            recorder.note(step, env, info, done)
            expected.append((step, env, info))
    message = recorder.pack(area)
    for schema in message.schemas:
        for key, column in zip(schema.keys, schema.columns, strict=True):
            assert key not in (*keys, TRUNCATED) or not isinstance(message.columns[column], list), key
    assert identical(unpack(message, area), expected)


@pytest.mark.parametrize("selection", [COMPLETE, InfoSelection(True, ("x_position", "x_velocity", "reward_ctrl"))])
def test_message_of_a_chunk_is_small(selection: InfoSelection) -> None:
    recorder = InfoRecorder(selection)
    for step, info in enumerate(half_cheetah_infos(128)):
        recorder.note(step, 0, info, done=False)
    assert pickled_nbytes(recorder.pack(area_for(selection, 128, 1))) < 500


def test_message_does_not_grow_with_the_number_of_steps_and_environments() -> None:
    sizes = []
    for n_steps, n_envs in ((10, 1), (40, 1), (40, 3)):
        area = area_for(COMPLETE, n_steps, n_envs)
        each = half_cheetah_infos(n_steps * n_envs)
        records = [(index // n_envs, index % n_envs, info) for index, info in enumerate(each)]
        sizes.append(pickled_nbytes(packed(records, area)))
    assert max(sizes) - min(sizes) < 20


def test_message_stays_small_when_episodes_end_within_the_chunk() -> None:
    recorder = InfoRecorder(COMPLETE)
    for step, info in enumerate(half_cheetah_infos(128)):
        done = step in (40, 90)
        ending = {EPISODE: {"r": 1.0, "l": 50, "t": 2.0}, TERMINAL_OBSERVATION: np.zeros(17)} if done else {}
        recorder.note(step, 0, info | ending, done)
    message = recorder.pack(area_for(COMPLETE, 128, 1))
    assert contents(message) == (6, 1)
    assert pickled_nbytes(message) < 1000


@pytest.mark.parametrize(
    "value",
    [
        *(kind(1) for kind in (bool, int, float, np.longlong, np.ulonglong, *SCALAR_KINDS)),
        *(np.ones(shape, dtype) for shape in ((), (2, 3), (0, 3)) for dtype in ("<f4", ">f8", "|b1", "|u1", "<c16")),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')} {getattr(value, 'shape', '')}",
)
def test_every_type_of_number_lies_in_the_area(value: Any) -> None:
    area = area_of(1000)
    records = [(step, 0, {"x": value}) for step in range(3)]
    message = packed(records, area)
    assert contents(message) == (1, 0)
    assert identical(unpack(sent(message), area), records)


@pytest.mark.parametrize(
    "values",
    [
        (1.0, 2),
        (1.0, np.float64(2.0)),
        (True, np.bool_(True)),
        (1, True),
        (np.zeros(2), np.zeros(3)),
        (np.zeros(2), np.zeros(2, np.float32)),
        (np.array(1.0), np.float64(1.0)),
        (1.0, None),
        (1, 2**63),
        ("a", "b"),
        (np.ma.zeros(2), np.ma.zeros(2)),
        (np.timedelta64(1, "s"), np.timedelta64(2, "s")),
    ],
    ids=str,
)
def test_values_that_differ_in_type_are_pickled(values: tuple[Any, Any]) -> None:
    area = area_of(1000)
    records = [(step, 0, {"x": value, "y": 1.0}) for step, value in enumerate(values)]
    message = packed(records, area)
    assert contents(message) == (1, 1)
    assert identical(unpack(sent(message), area), records)


def test_key_that_some_records_lack_lies_in_the_area() -> None:
    area = area_of(1000)
    records = [(step, 0, {"x": float(step)} | ({"y": step} if step % 3 else {})) for step in range(20)]
    message = packed(records, area)
    assert contents(message) == (2, 0)
    assert identical(unpack(sent(message), area), records)


def test_smallest_come_first_where_not_everything_fits() -> None:
    records = [(step, 0, {"array": np.zeros(4), "a": 1.0, "b": True, "c": 2.0}) for step in range(16)]
    in_area = [contents(packed(records, area_of(n_bytes)))[0] for n_bytes in (0, 15, 16, 64, 191, 192, 319, 320, 832)]
    assert in_area == [0, 0, 1, 1, 1, 2, 2, 3, 4]


def test_what_is_too_large_leaves_its_place_to_others() -> None:
    records = [(step, 0, {"image": np.zeros(1000)} | ({"x": 1.0} if step == 3 else {})) for step in range(5)]
    message = packed(records, area_of(64))
    assert contents(message) == (1, 1)
    assert pickled_nbytes(message) > 5 * 8000


# What does not belong together is refused


@pytest.fixture
def message() -> PackedInfos:
    """Numbers in two columns, arrays in a third, and strings that are pickled."""
    records = [(step, 0, {"x": 1.0 * step, "y": np.int32(step), "z": np.ones(3), "s": "a"}) for step in range(10)]
    return packed(records, area_of(1000))


def test_area_that_is_too_small_is_refused(message: PackedInfos) -> None:
    area = area_of(1000)
    n_bytes = max(column.offset for column in message.columns if not isinstance(column, list)) + 10 * 3 * 8
    assert len(unpack(message, area[:n_bytes])) == 10
    for too_few in range(n_bytes):
        with pytest.raises(TransportError, match=f"do not lie within {too_few} bytes"):
            unpack(message, area[:too_few])


@pytest.mark.parametrize(
    "area",
    [np.zeros(1000), np.zeros((10, 100), np.uint8), np.zeros(2000, np.uint8)[::2], np.array(0, np.uint8)],
    ids=["numbers", "matrix", "strided", "scalar"],
)
def test_area_that_is_no_row_of_bytes_is_refused(message: PackedInfos, area: np.ndarray) -> None:
    with pytest.raises(TransportError, match="contiguous row of bytes"):
        unpack(message, area)


def with_column(message: PackedInfos, index: int, **changes: Any) -> PackedInfos:
    columns = list(message.columns)
    column = columns[index]
    assert not isinstance(column, list)
    form = column.form._replace(**{name: value for name, value in changes.items() if name != "offset"})
    columns[index] = column._replace(form=form, offset=changes.get("offset", column.offset))
    return dataclasses.replace(message, columns=tuple(columns))


X, Z, S = 0, 2, 3
DAMAGES: list[Callable[[PackedInfos], PackedInfos]] = [
    *(lambda m, offset=offset: with_column(m, X, offset=offset) for offset in (-1, -80, -500, 921, 2**62, 2**80)),
    *(lambda m, offset=offset: with_column(m, Z, offset=offset) for offset in (-1, 761, 2**62, None, 0.5, "0")),
    *(lambda m, kind=kind: with_column(m, X, kind=kind) for kind in (object, str, np.ndarray, None, [])),
    *(lambda m, dtype=dtype: with_column(m, Z, dtype=dtype) for dtype in ("O", "f4,O", "V8", "U2", "M8[s]", "?!", 3)),
    *(lambda m, shape=shape: with_column(m, Z, shape=shape) for shape in ((40,), (-3,), (-1, -3), (0, -1), (2**62,))),
    *(lambda m, shape=shape: with_column(m, Z, shape=shape) for shape in (3, None, ("3",), (3.0,))),
    *(lambda m, runs=runs: dataclasses.replace(m, runs=runs) for runs in ((), ((0, 9),), ((0, 11),), ((0, -10),))),
    *(lambda m, runs=runs: dataclasses.replace(m, runs=runs) for runs in (((1, 10),), ((0, 10**9),), (3,), None)),
    *(lambda m, places=places: dataclasses.replace(m, positions=places) for places in (0, -1, 3, (), ((0, 0),), None)),
    *(
        lambda m, columns=columns: dataclasses.replace(m, schemas=(m.schemas[0]._replace(columns=columns),))
        for columns in ((), (0, 1, 2), (0, 1, 2, 4), None)
    ),
    lambda m: dataclasses.replace(m, schemas=(m.schemas[0]._replace(keys=("x",)),)),
    lambda m: dataclasses.replace(m, schemas=(m.schemas[0]._replace(keys=("x", "y", "z", [])),)),
    lambda m: dataclasses.replace(m, schemas=()),
    lambda m: dataclasses.replace(m, columns=m.columns[:3]),
    lambda m: dataclasses.replace(m, columns=(*m.columns[:3], ["a"])),
    lambda m: dataclasses.replace(m, columns=(*m.columns[:3], None)),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_message_is_refused(message: PackedInfos, damage: Callable[[PackedInfos], PackedInfos]) -> None:
    assert len(unpack(message, area_of(1000))) == 10
    with pytest.raises(TransportError):
        unpack(damage(message), area_of(1000))


def replaced(value: Any, draw: st.DrawFn) -> Any:
    """A nested tuple with one of its leaves replaced by something else."""
    if isinstance(value, tuple) and value:
        index = draw(st.integers(0, len(value) - 1))
        parts = [*value[:index], replaced(value[index], draw), *value[index + 1 :]]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return draw(st.integers(-100, 3000) | st.sampled_from([None, "O", "<f8", 0.5, (), (1, 2), object, np.int8, []]))


@unhurried
@given(st.data())
def test_damage_anywhere_in_a_message_causes_no_other_error(data: st.DataObject) -> None:
    records = data.draw(record_lists().filter(bool))
    area = area_of(300)
    whole = packed(records, area)
    field = data.draw(st.sampled_from([field.name for field in dataclasses.fields(whole)]))
    damaged = dataclasses.replace(whole, **{field: replaced(getattr(whole, field), data.draw)})
    with contextlib.suppress(TransportError):
        assert isinstance(unpack(damaged, area), list)


def test_neither_torch_nor_gymnasium_is_imported() -> None:
    program = (
        "import sys, sb3_walle.samplers.infos; print({'torch', 'gymnasium', 'stable_baselines3'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
