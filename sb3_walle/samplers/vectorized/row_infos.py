"""The infos of Gymnasium's vectorised environments, row by row."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def info_of_row(infos: Mapping[str, Any], row: int) -> dict[str, Any]:
    """
    :param infos: one array a key, with one element a row. Where not all rows have a key, the array ``_key`` tells
        which ones do; a dictionary is made of such arrays again
    :return: the info of one row
    """
    info = {}
    for key, value in infos.items():
        if key.startswith("_") and key[1:] in infos:
            continue
        mask = infos.get(f"_{key}")
        if mask is None or mask[row]:
            info[key] = _of_row(value, row)
    return info


def _of_row(value: Any, row: int) -> Any:
    if isinstance(value, Mapping):
        return info_of_row(value, row)
    # Something that all rows have in common is no array.
    return value[row] if isinstance(value, np.ndarray) and value.ndim > 0 else value
