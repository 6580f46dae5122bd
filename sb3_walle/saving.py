"""Files that are there whole or not at all."""

import io
import json
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sb3_walle.user_warning import warn_user


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[io.BufferedWriter]:
    """
    Open a file for writing, and put it in its place at the end of the block. An exception or a kill before that leaves
    what was there; a power failure after it takes nothing back.

    Until then the file is called ``.<name>.unfinished``, in the same folder. The next write to the same path replaces
    one that a kill has left. Permissions are as ``open(path, "wb")`` would leave them. Symbolic links are followed;
    hard links keep the old contents. Only one at a time may write to a path.

    :param path: where to put the file
    :return: the file, to be written in the block
    :raises OSError: if it cannot be written there
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        # A device or a pipe takes what it gets.
        with open(target, "wb") as file:
            yield file
        return
    permissions = _permissions_to_keep(target)
    unfinished = target.with_name(f".{target.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    try:
        with open(unfinished, "wb") as file:
            if permissions is not None:
                os.fchmod(file.fileno(), permissions)
            yield file
            flush_to_disk(file)
        os.replace(unfinished, target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _flush_folder_to_disk(target.parent)


def flush_to_disk(file: io.BufferedWriter) -> None:
    """
    :param file: a file; what has been written to it survives a power failure from now on
    """
    file.flush()
    os.fsync(file.fileno())


def model_path(path: str | Path) -> Path:
    """
    Find the path that SB3 saves a model to, and make the folders above it. As SB3 does, this warns of a path that is
    taken by a folder, and of folders that it makes.

    :param path: where to save the model, with or without a suffix
    :return: the path with the suffix ``.zip`` if it had none, or another one beside it if it is a folder
    """
    found = Path(path) if Path(path).suffix else Path(f"{path}.zip")
    while found.is_dir():
        beside = Path(f"{found}_2")
        warn_user(f"'{found}' is a folder. The model is saved to '{beside}' instead.")
        found = beside
    if not found.parent.exists():
        warn_user(f"The folder '{found.parent}' does not exist. It is made.")
        found.parent.mkdir(parents=True, exist_ok=True)
    return found


def saved_value(path: str | Path | io.BufferedIOBase, name: str) -> Any:
    """
    :param path: where a model was saved, with or without a suffix, or a file to read from its present position
    :param name: name of an attribute that is a number or a string
    :return: its value; ``None`` if the model has no such attribute, or cannot be read, which loading it tells
    """
    with suppress(OSError, ValueError, zipfile.BadZipFile, KeyError):
        if not isinstance(path, str | Path):
            position = path.tell()
            try:
                return _value_in(path, name)
            finally:
                path.seek(position)
        return _value_in(path if Path(path).exists() else f"{path}.zip", name)
    return None


def _value_in(file: Any, name: str) -> Any:
    with zipfile.ZipFile(file) as archive:
        return json.loads(archive.read("data")).get(name)


def _permissions_to_keep(target: Path) -> int | None:
    """Those of the file that is replaced, if there is one."""
    if not target.exists():
        return None
    # Replacing a file does not ask whether it is write-protected. Opening it does.
    with open(target, "ab") as file:
        return stat.S_IMODE(os.fstat(file.fileno()).st_mode)


def _flush_folder_to_disk(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some file systems have no such thing for a folder, and the file is complete all the same.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
