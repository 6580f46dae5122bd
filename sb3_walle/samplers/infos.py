"""
How the infos that environments return travel to the learner.

An environment may put numbers into the info of every step. Numbers are laid into shared memory, one column a key, and
only the rest is pickled: a dictionary a step would cost more than the step.
"""

from collections.abc import Hashable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain, groupby, islice, product
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from sb3_walle.transport.errors import TransportError
from sb3_walle.transport.layout import align

InfoRecord: TypeAlias = tuple[int, int, dict[str, Any]]
InfoKeys: TypeAlias = str | Sequence[str]

EPISODE = "episode"
IS_SUCCESS = "is_success"
TERMINAL_OBSERVATION = "terminal_observation"
#: before ``VecNormalize``; not for callbacks, so that it is taken out of the infos again
ORIGINAL_TERMINAL_OBSERVATION = "sb3_walle.original_terminal_observation"
TERMINAL_OBSERVATIONS = (TERMINAL_OBSERVATION, ORIGINAL_TERMINAL_OBSERVATION)
TRUNCATED = "TimeLimit.truncated"

# Complete infos may have any number of keys. Memory for this many numbers is set aside for each; more are pickled.
COLUMNS_OF_COMPLETE_INFOS = 32

_AUTO, _ALL = "auto", "all"

_PYTHON_SCALARS = {bool: np.dtype("bool"), int: np.dtype("int64"), float: np.dtype("float64")}
_NUMPY_SCALARS = [np.dtype(char).type for char in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"]
_SCALARS = _PYTHON_SCALARS | {kind: np.dtype(kind) for kind in _NUMPY_SCALARS}
_IMMUTABLE = frozenset({*_SCALARS, complex, str, bytes, type(None)})
_STRING = frozenset({str})


@dataclass(frozen=True)
class InfoSelection:
    """
    Which infos travel to the learner.

    :param every_step: whether those of all steps do, or only those that end an episode
    :param keys: which of their keys do, ``None`` for all of them. With chosen keys, what SB3 itself reads is kept, too:
        ``"TimeLimit.truncated"`` everywhere; ``"episode"``, ``"terminal_observation"`` and ``"is_success"`` where an
        episode ends
    """

    every_step: bool = False
    keys: tuple[str, ...] | None = None

    def area_nbytes(self, n_steps: int, n_envs: int) -> int:
        """
        How much memory a chunk's infos should be given. With less, more of them is pickled.

        :param n_steps: most steps of a chunk, T
        :param n_envs: environments of a sampler, B
        :return: size in bytes: none if only the ends of episodes travel; else ``T * B`` numbers of 8 bytes for each
            chosen key, or for each of ``COLUMNS_OF_COMPLETE_INFOS``
        """
        if not self.every_step:
            return 0
        n_columns = COLUMNS_OF_COMPLETE_INFOS if self.keys is None else len({*self.keys, TRUNCATED})
        return n_columns * align(8 * n_steps * n_envs)


def select_infos(info_keys: InfoKeys, callbacks_may_look: bool) -> InfoSelection:
    """
    :param info_keys: ``"all"``: complete infos of all steps; ``"auto"``: the same if a callback may look at them, else
        only those that end an episode; or the keys that are needed of every step, which may be none
    :param callbacks_may_look: whether there is a callback that may look at any info
    :return: which infos travel
    :raises TypeError: if it is neither a string nor a sequence of strings
    :raises ValueError: if it is another string
    """
    checked = checked_info_keys(info_keys)
    if isinstance(checked, tuple):
        return InfoSelection(every_step=len(checked) > 0, keys=checked)
    return InfoSelection(every_step=checked == _ALL or callbacks_may_look)


def checked_info_keys(info_keys: InfoKeys) -> str | tuple[str, ...]:
    """
    :param info_keys: what a user gave
    :return: ``"auto"``, ``"all"``, or the keys, each once
    :raises TypeError: if it is neither a string nor a sequence of strings
    :raises ValueError: if it is another string
    """
    allowed = f'"{_AUTO}", "{_ALL}" or a sequence of keys such as ("x_velocity",)'
    if isinstance(info_keys, str):
        if info_keys in (_AUTO, _ALL):
            return info_keys
        raise ValueError(
            f"info_keys must be {allowed}, got the string {info_keys!r}. For this key alone, pass ({info_keys!r},)."
        )
    if not isinstance(info_keys, Sequence):
        raise TypeError(f"info_keys must be {allowed}, got {info_keys!r} of {type(info_keys)}")
    for key in info_keys:
        if not isinstance(key, str):
            raise TypeError(f"info_keys must be {allowed}, got {info_keys!r}, in which {key!r} is of {type(key)}")
    return tuple(dict.fromkeys(info_keys))


class _Scalars(NamedTuple):
    """Numbers of one type, side by side in memory: Python's ``bool``, ``int`` or ``float``, or NumPy's scalars."""

    kind: type

    @property
    def value_nbytes(self) -> int:
        return _SCALARS[self.kind].itemsize

    def write(self, values: Sequence[Any], memory: np.ndarray) -> None:
        """Raises ``OverflowError`` if one of the values is an integer beyond 64 bits."""
        dtype = _SCALARS[self.kind]
        memory.view(dtype)[:] = np.fromiter(values, dtype, len(values))

    def read(self, memory: np.ndarray, n_values: int) -> list[Any]:
        numbers = memory.view(_SCALARS[self.kind])
        return numbers.tolist() if self.kind in _PYTHON_SCALARS else list(numbers)


class _Arrays(NamedTuple):
    """Arrays of one data type and shape, side by side in memory."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def value_nbytes(self) -> int:
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    def write(self, values: Sequence[np.ndarray], memory: np.ndarray) -> None:
        np.concatenate([array.ravel() for array in values], out=memory.view(self.dtype))

    def read(self, memory: np.ndarray, n_values: int) -> list[np.ndarray]:
        dtype = np.dtype(self.dtype)
        if not _is_numeric(dtype):
            raise TransportError(f"Infos in shared memory are said to be {self}, but only numbers can lie there")
        rows = memory.view(dtype).reshape(n_values, prod(self.shape))
        return [row.reshape(self.shape).copy() for row in rows]


class _Column(NamedTuple):
    """Values of a key that lie in the area, and where they begin there in bytes."""

    form: _Scalars | _Arrays
    offset: int


class _Schema(NamedTuple):
    """The keys of a record in their order, and for each of them the index of the column that holds its values."""

    keys: tuple[Hashable, ...]
    columns: tuple[int, ...]


@dataclass(frozen=True)
class PackedInfos:
    """
    The infos of a chunk without the numbers that lie in its area: names, types and offsets, and what cannot lie there.

    In a column, values are in the order of the schemas, and of the records within each schema.

    :param positions: step and environment of each record; if there is one record for each of the first steps of
        environments 0 to B - 1, in this order, only B
    :param runs: for each row of records with the same schema, the index of the schema and how many records these are
    :param schemas: the keys of the records
    :param columns: values of each key: a place in the area, or the values themselves
    """

    positions: int | tuple[tuple[int, int], ...]
    runs: tuple[tuple[int, int], ...]
    schemas: tuple[_Schema, ...]
    columns: tuple[_Column | list[Any], ...]


class InfoRecorder:
    """
    Collects the infos of a chunk.

    :param selection: which of them travel
    """

    def __init__(self, selection: InfoSelection) -> None:
        self._every_step = selection.every_step
        keys = None if selection.keys is None else frozenset({*selection.keys, TRUNCATED})
        self._keys = keys
        self._keys_at_end = None if keys is None else keys | {EPISODE, IS_SUCCESS, *TERMINAL_OBSERVATIONS}
        self._positions: list[tuple[int, int]] = []
        self._infos: list[dict[Any, Any]] = []

    def note(self, step: int, env: int, info: dict[str, Any], done: bool) -> None:
        """
        Keep an info, if it is one of those that travel.

        :param step: index of the step
        :param env: index of the environment
        :param info: its info, which will arrive as a plain dictionary; the environment may change it afterwards
        :param done: whether its episode ended
        """
        # SB3 logs an episode wherever an info tells of one, whether the environment says that it is over or not.
        tells_of_episode = done or EPISODE in info
        if not (tells_of_episode or self._every_step):
            return
        keys = self._keys_at_end if tells_of_episode else self._keys
        kept = dict(info) if keys is None else {key: value for key, value in info.items() if key in keys}
        if not _IMMUTABLE.issuperset(map(type, kept.values())):
            _copy_mutable_values(kept)
        self._positions.append((step, env))
        self._infos.append(kept)

    def pack(self, area: np.ndarray) -> PackedInfos:
        """
        Lay what was noted into memory. After this, the recorder is empty.

        :param area: receives numbers as far as they fit, bytes
        :return: the rest, and what is needed to read the area
        :raises TransportError: if the area is not a contiguous row of bytes
        """
        positions, infos = self._positions, self._infos
        self._positions, self._infos = [], []
        _check_area(area)
        runs, members = _group(infos)
        schemas, columns = _columns(members)
        return PackedInfos(_packed_positions(positions), runs, schemas, _placed(columns, area))


def unpack(packed: PackedInfos, area: np.ndarray) -> list[InfoRecord]:
    """
    :param packed: what an :class:`InfoRecorder` packed
    :param area: the area that it was given, bytes
    :return: what was noted, in the same order; nothing in it refers to the area
    :raises TransportError: if the two do not belong together
    """
    _check_area(area)
    try:
        return _unpack(packed, area)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise TransportError(f"The infos of a chunk cannot be read: {error!r}") from error


def _unpack(packed: PackedInfos, area: np.ndarray) -> list[InfoRecord]:
    n_members = [0] * len(packed.schemas)
    for schema, n_records in packed.runs:
        n_members[schema] += n_records
    n_values = [0] * len(packed.columns)
    for (_, columns), n_records in zip(packed.schemas, n_members, strict=True):
        for column in columns:
            n_values[column] += n_records
    values = [iter(_values(*column, area)) for column in zip(packed.columns, n_values, strict=True)]
    members = [
        iter(_infos(keys, [islice(values[column], n_records) for column in columns], n_records))
        for (keys, columns), n_records in zip(packed.schemas, n_members, strict=True)
    ]
    infos = chain.from_iterable(islice(members[schema], n_records) for schema, n_records in packed.runs)
    positions = _unpacked_positions(packed.positions, sum(n_members))
    return [(step, env, info) for (step, env), info in zip(positions, infos, strict=True)]


def _values(column: _Column | list[Any], n_values: int, area: np.ndarray) -> list[Any]:
    """A column's values, of which there are as many as the schemas say."""
    if not isinstance(column, _Column):
        if len(column) != n_values:
            raise TransportError(f"A column of infos has {len(column)} values, but {n_values} were announced")
        return column
    form, offset = column
    nbytes = n_values * form.value_nbytes
    if not 0 <= offset <= offset + nbytes <= len(area):
        raise TransportError(f"{n_values} values of {column} do not lie within {len(area)} bytes")
    return form.read(area[offset : offset + nbytes], n_values)


def _infos(keys: tuple[Hashable, ...], columns: list[Any], n_records: int) -> list[dict[Any, Any]]:
    """Records with the same keys, from one column for each key."""
    if not keys and not columns:
        return [{} for _ in range(n_records)]
    if len(keys) != len(columns):
        raise TransportError(f"Infos have {len(keys)} keys, but {len(columns)} columns")
    # Checking every row again would take half as long as building it.
    return [dict(zip(keys, row)) for row in zip(*columns, strict=True)]  # noqa: B905


def _group(infos: list[dict[Any, Any]]) -> tuple[tuple[tuple[int, int], ...], list[list[dict[Any, Any]]]]:
    """Which records have the same keys in the same order. Returns runs of such records, and the records grouped."""
    # Keys that are equal but not the same, such as 1 and True, must not be taken for each other.
    only_strings = _STRING.issuperset(map(type, chain.from_iterable(infos)))
    numbers: dict[tuple[Hashable, ...], int] = {}
    schemas = [
        numbers.setdefault(tuple(info) if only_strings else (index,), len(numbers)) for index, info in enumerate(infos)
    ]
    members: list[list[dict[Any, Any]]] = [[] for _ in numbers]
    for schema, info in zip(schemas, infos, strict=True):
        members[schema].append(info)
    return tuple((schema, len(list(run))) for schema, run in groupby(schemas)), members


def _columns(members: list[list[dict[Any, Any]]]) -> tuple[tuple[_Schema, ...], list[list[Any]]]:
    """The keys of each group of records, and the values of each key over all of them."""
    schemas = []
    numbers: dict[Hashable, int] = {}
    columns: list[list[Any]] = []
    for infos in members:
        keys = tuple(infos[0])
        schemas.append(_Schema(keys, tuple(numbers.setdefault(key, len(numbers)) for key in keys)))
        columns.extend([] for _ in range(len(columns), len(numbers)))
        for column, values in zip(schemas[-1].columns, zip(*map(dict.values, infos), strict=True), strict=True):
            columns[column].extend(values)
    return tuple(schemas), columns


def _placed(columns: list[list[Any]], area: np.ndarray) -> tuple[_Column | list[Any], ...]:
    """Move values into the area as far as they fit: first those that most records have, of these the smallest."""
    placed: list[_Column | list[Any]] = list(columns)
    forms = {index: form for index, values in enumerate(columns) if (form := _form(values)) is not None}
    begin = 0
    for index in sorted(forms, key=lambda index: (-len(columns[index]), forms[index].value_nbytes)):
        form, values = forms[index], columns[index]
        end = begin + len(values) * form.value_nbytes
        if end > len(area):
            continue
        try:
            form.write(values, area[begin:end])
        except OverflowError:
            continue
        placed[index] = _Column(form, begin)
        begin = align(end)
    return tuple(placed)


def _form(values: list[Any]) -> _Scalars | _Arrays | None:
    """What all the values are, if they can lie in flat memory."""
    kinds = set(map(type, values))
    kind = kinds.pop()
    if kinds:
        return None
    if kind in _SCALARS:
        return _Scalars(kind)
    if kind is not np.ndarray:
        return None
    dtype, shape = values[0].dtype, values[0].shape
    same = _is_numeric(dtype) and all(array.dtype == dtype and array.shape == shape for array in values)
    return _Arrays(dtype.str, shape) if same else None


def _packed_positions(positions: list[tuple[int, int]]) -> int | tuple[tuple[int, int], ...]:
    if positions:
        n_steps, n_envs = positions[-1][0] + 1, positions[-1][1] + 1
        # The product is first compared as a number: it may be of any size.
        if n_steps * n_envs == len(positions) and positions == list(product(range(n_steps), range(n_envs))):
            return n_envs
    return tuple(positions)


def _unpacked_positions(positions: int | tuple[tuple[int, int], ...], n_records: int) -> Sequence[tuple[int, int]]:
    if not isinstance(positions, int):
        return positions
    return list(product(range(n_records // positions), range(positions)))


def _copy_mutable_values(info: dict[Any, Any]) -> None:
    """Replace what an environment may change later by copies."""
    memo: dict[int, Any] = {}
    for key, value in info.items():
        if type(value) is np.ndarray and not value.dtype.hasobject:
            info[key] = value.copy()
        elif type(value) not in _IMMUTABLE:
            info[key] = deepcopy(value, memo)


def _check_area(area: np.ndarray) -> None:
    if area.dtype != np.uint8 or area.ndim != 1 or not area.flags.c_contiguous:
        raise TransportError(f"Infos lie in a contiguous row of bytes, not in {area.shape} values of {area.dtype}")


def _is_numeric(dtype: np.dtype) -> bool:
    return dtype.kind in "biufc"
