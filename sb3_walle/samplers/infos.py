"""
How the infos that environments return travel to the learner: in the report of a chunk, once the chunk is complete.

An environment may put numbers into the info of every step. NumPy's scalars are slow to pickle one by one, so those with
the same key travel as one array.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import numpy as np

#: step within the chunk, environment within the sampler, and the info
InfoRecord: TypeAlias = tuple[int, int, dict[str, Any]]
InfoKeys: TypeAlias = str | Sequence[str]

EPISODE = "episode"
IS_SUCCESS = "is_success"
TERMINAL_OBSERVATION = "terminal_observation"
#: before ``VecNormalize``; not for callbacks, so that it is taken out of the infos again
ORIGINAL_TERMINAL_OBSERVATION = "sb3_walle.original_terminal_observation"
TERMINAL_OBSERVATIONS = (TERMINAL_OBSERVATION, ORIGINAL_TERMINAL_OBSERVATION)
TRUNCATED = "TimeLimit.truncated"

_AUTO, _ALL = "auto", "all"
_NUMPY_SCALARS = frozenset(np.dtype(char).type for char in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?")
_IMMUTABLE = frozenset({bool, int, float, complex, str, bytes, type(None), *_NUMPY_SCALARS})


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


class InfoGroup(NamedTuple):
    """
    Infos of a chunk that have the same keys.

    :param places: step and environment of each
    :param keys: their keys
    :param columns: for each key, the values of all infos; an array where these are NumPy's scalars of one type
    """

    places: list[tuple[int, int]]
    keys: tuple[str, ...]
    columns: list[list[Any] | np.ndarray]


PackedInfos: TypeAlias = list[InfoGroup]


class InfoRecorder:
    """Collects the infos of a chunk."""

    def __init__(self, selection: InfoSelection) -> None:
        self._every_step = selection.every_step
        keys = None if selection.keys is None else frozenset({*selection.keys, TRUNCATED})
        self._keys = keys
        self._keys_at_end = None if keys is None else keys | {EPISODE, IS_SUCCESS, *TERMINAL_OBSERVATIONS}
        self._records: list[InfoRecord] = []

    def note(self, step: int, env: int, info: dict[str, Any], done: bool) -> None:
        """
        Keep an info, if it is one of those that travel. It arrives as a plain dictionary; the environment may change it
        afterwards.
        """
        # SB3 logs an episode wherever an info tells of one, whether the environment says that it is over or not.
        tells_of_episode = done or EPISODE in info
        if not (tells_of_episode or self._every_step):
            return
        keys = self._keys_at_end if tells_of_episode else self._keys
        kept = dict(info) if keys is None else {key: value for key, value in info.items() if key in keys}
        if not _IMMUTABLE.issuperset(map(type, kept.values())):
            _copy_mutable_values(kept)
        self._records.append((step, env, kept))

    def move_to(self, other: "InfoRecorder", places: np.ndarray) -> None:
        """
        Hand over what was noted to another recorder.

        :param places: the step that it has there, by step and environment; -1 to leave it out
        """
        records, self._records = self._records, []
        other._records += [(int(places[step, env]), env, info) for step, env, info in records if places[step, env] >= 0]

    def pack(self) -> PackedInfos:
        """:return: what was noted. After this, the recorder is empty"""
        records, self._records = self._records, []
        groups: dict[tuple[str, ...], list[InfoRecord]] = {}
        for record in records:
            groups.setdefault(tuple(record[2]), []).append(record)
        return [
            InfoGroup(
                [(step, env) for step, env, _ in members],
                keys,
                [_column(values) for values in zip(*(info.values() for _, _, info in members), strict=True)],
            )
            for keys, members in groups.items()
        ]


def unpack(packed: PackedInfos) -> list[InfoRecord]:
    """:return: what an :class:`InfoRecorder` noted, in the order of steps and environments"""
    records: list[InfoRecord] = []
    for places, keys, columns in packed:
        # Iterating over an array gives back NumPy's scalars.
        rows = zip(*columns, strict=True) if keys else [()] * len(places)
        records += [
            (step, env, dict(zip(keys, row, strict=True))) for (step, env), row in zip(places, rows, strict=True)
        ]
    # Those of a group are in order.
    return records if len(packed) == 1 else sorted(records, key=itemgetter(0, 1))


def _column(values: Sequence[Any]) -> list[Any] | np.ndarray:
    kinds = set(map(type, values))
    return np.array(values) if len(kinds) == 1 and kinds <= _NUMPY_SCALARS else list(values)


def _copy_mutable_values(info: dict[Any, Any]) -> None:
    """Replace what an environment may change later by copies."""
    memo: dict[int, Any] = {}
    for key, value in info.items():
        if type(value) is np.ndarray and not value.dtype.hasobject:
            info[key] = value.copy()
        elif type(value) not in _IMMUTABLE:
            info[key] = deepcopy(value, memo)
