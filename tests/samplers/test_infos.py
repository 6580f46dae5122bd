"""Infos arrive as they were noted."""

import math
import pickle
import subprocess
import sys
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_util import make_vec_env

from sb3_walle.samplers.infos import (
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

ENDS = InfoSelection()
COMPLETE = InfoSelection(every_step=True)
SPEED = InfoSelection(every_step=True, keys=("x_velocity",))

unhurried = settings(deadline=None, max_examples=200)


def packed(records: list[InfoRecord]) -> PackedInfos:
    recorder = InfoRecorder(COMPLETE)
    for step, env, info in records:
        recorder.note(step, env, info, done=False)
    return recorder.pack()


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
ODD_KEYS = st.sampled_from([0, 1, 2.5, None, ("x", 1), math.nan, b"x"])


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
        places = sorted(draw(st.sets(st.tuples(st.integers(0, 2**31), st.integers(0, 5)), max_size=8)))
    return [(*place, info) for place, info in zip(places, draw(infos(len(places))), strict=True)]


@unhurried
@given(record_lists())
def test_what_was_noted_arrives(records: list[InfoRecord]) -> None:
    expected = deepcopy(records)
    assert identical(unpack(sent(packed(records))), expected)


def test_arrived_arrays_may_be_changed() -> None:
    arrived = unpack(sent(packed([(step, 0, {"a": np.arange(3.0), "b": np.array(1.0)}) for step in range(4)])))
    for _, _, info in arrived:
        for array in info.values():
            array += 1.0
    assert all(info["a"].tolist() == [1.0, 2.0, 3.0] and info["b"] == 2.0 for _, _, info in arrived)


def test_arrays_of_a_subclass_arrive() -> None:
    masked = np.ma.masked_array([1.0, 2.0], [True, False])
    [(_, _, info)] = unpack(sent(packed([(0, 0, {"a": masked})])))
    assert type(info["a"]) is np.ma.MaskedArray
    assert info["a"].mask.tolist() == [True, False]


def test_recorder_is_empty_after_packing() -> None:
    recorder = InfoRecorder(COMPLETE)
    for step in range(3):
        recorder.note(step, 0, {"x": 1.0}, done=False)
    assert len(unpack(recorder.pack())) == 3
    assert unpack(recorder.pack()) == []
    recorder.note(7, 1, {"x": 2.0}, done=False)
    assert unpack(recorder.pack()) == [(7, 1, {"x": 2.0})]


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
    for step, (_, _, arrived) in enumerate(unpack(recorder.pack())):
        assert list(arrived) == ["step", "vector", "inner", "box", "tuple"]
        assert arrived["step"] == step
        assert arrived["vector"].tolist() == [step, step]
        assert arrived["inner"] == {"list": [step], "array": np.array([float(step)])}
        assert arrived["box"].tolist() == [[step], None]
        assert arrived["tuple"] == ([step],)


def test_objects_that_an_info_has_twice_stay_one_object() -> None:
    shared: list[int] = []
    [(_, _, info)] = unpack(sent(packed([(0, 0, {"a": shared, "b": [shared]})])))
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
    expected = [(0, 0, during), (0, 1, last), (1, 0, last), (1, 1, during)]
    assert identical(unpack(recorder.pack()), [record for record in expected if record[2] is not None])


def test_step_without_any_chosen_key_arrives_as_an_empty_info() -> None:
    recorder = InfoRecorder(SPEED)
    recorder.note(0, 0, {"x_position": 1.0}, done=False)
    recorder.note(1, 0, {"x_velocity": 2.0}, done=False)
    assert unpack(recorder.pack()) == [(0, 0, {}), (1, 0, {"x_velocity": 2.0})]


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
    assert identical(unpack(sent(recorder.pack())), expected)


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


# Numbers of NumPy travel as arrays


def test_message_of_a_chunk_is_small() -> None:
    records = [(step, 0, info) for step, info in enumerate(half_cheetah_infos(128))]
    assert pickled_nbytes(packed(records)) < pickled_nbytes(records) / 2


@pytest.mark.parametrize("kind", SCALAR_KINDS)
def test_every_type_of_numpy_number_travels_as_an_array(kind: type) -> None:
    records = [(step, 0, {"x": kind(1)}) for step in range(3)]
    [group] = message = packed(records)
    assert isinstance(group.columns[0], np.ndarray)
    assert identical(unpack(sent(message)), records)


@pytest.mark.parametrize(
    "values",
    [
        (1.0, 2),
        (1.0, np.float64(2.0)),
        (True, np.bool_(True)),
        (np.float32(1.0), np.float64(1.0)),
        (np.zeros(2), np.zeros(3)),
        (np.array(1.0), np.float64(1.0)),
        (1.0, None),
        (1, 2**63),
        (np.timedelta64(1, "s"), np.timedelta64(2, "s")),
    ],
    ids=str,
)
def test_other_values_keep_their_types(values: tuple[Any, Any]) -> None:
    records = [(step, 0, {"x": value, "y": 1.0}) for step, value in enumerate(values)]
    assert identical(unpack(sent(packed(records))), records)


def test_infos_with_different_keys_arrive_in_the_order_of_steps() -> None:
    records = [(step, env, {"x": step} | ({"y": env} if step % 3 else {})) for step in range(20) for env in range(3)]
    assert identical(unpack(sent(packed(records))), records)


def test_neither_torch_nor_gymnasium_is_imported() -> None:
    program = (
        "import sys, sb3_walle.samplers.infos; print({'torch', 'gymnasium', 'stable_baselines3'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
