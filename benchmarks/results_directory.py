"""Directories with results, to which more of the same can be added."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sb3_walle.cli.arguments import UsageError
from sb3_walle.cli.training import SETTINGS


def open_results(directory: Path, settings: Mapping[str, Any], results: str) -> None:
    """
    Make a directory for results, or check that what is there can be added to.

    :param directory: the directory
    :param settings: what results must have in common, as JSON-serialisable values by name
    :param results: name of a file that is there if there are results
    :raises UsageError: if it cannot be made, or has results of something else
    """
    file = directory / SETTINGS
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if file.exists() or (directory / results).exists():
            check_same_settings(file, settings)
        file.write_text(json.dumps(settings, indent=2) + "\n")
    except OSError as error:
        raise UsageError(f"cannot use the directory '{directory}': {error.strerror}") from error


def check_same_settings(file: Path, wanted: Mapping[str, Any]) -> None:
    """
    Refuse to mix results of different settings.

    :param file: the settings of the results that are there
    :param wanted: the settings of those that come
    :raises UsageError: if they differ
    """
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        raise UsageError(f"'{file}' cannot be read. Use another directory") from error
    differing = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    if differing:
        values = ", ".join(f"{name} was {found.get(name)} and is {wanted.get(name)}" for name in differing)
        raise UsageError(f"'{file.parent}' has results of other settings: {values}. Use another directory")
