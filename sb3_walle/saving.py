"""Files that are there whole or not at all."""

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sb3_walle.user_warning import warn_user

# What opening a file without a name raises where the kernel or the file system does not know of such files.
_NO_NAMELESS_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[io.BufferedWriter]:
    """
    Open a file for writing, and put it in its place at the end of the block.

    Until then, and for good if the block raises an exception or the process is killed, whatever was there before stays
    as it is. At the end of the block the file is on the disk, so that not even a power failure can take it back.

    A new file, while it is written, has no name where the file system allows that (most of Linux), so nobody has to
    clean up after a kill. To replace a file it has to be given a name of its own for an instant, and elsewhere it has
    one all the time: ``.<name>.unfinished``, in the same directory. Writing to the same path again removes it.

    What ``open(path, "wb")`` would refuse is refused, and permissions are as that would leave them. Symbolic links are
    followed. Hard links are not: the other names keep the old contents. Only one at a time may write to a path.

    :param path: where to put the file
    :return: the file, to be written in the block
    :raises OSError: if it cannot be written there
    """
    target = os.path.realpath(path)
    if os.path.exists(target) and not os.path.isfile(target):
        # A device or a pipe takes what it gets. Putting a file in its place is not what anybody wants.
        with open(target, "wb") as file:
            yield file
        return
    with _opened_folder(os.path.dirname(target)) as place:
        with _new_file(target, place) as file:
            yield file
            flush_to_disk(file)
            _put_in_place(file, place, os.path.basename(target))
        _flush_folder_to_disk(place)


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


@contextmanager
def _opened_folder(folder: str) -> Iterator[int]:
    """The file gets its name relative to the open folder, which may be moved in the meantime."""
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield place
    finally:
        os.close(place)


@contextmanager
def _new_file(target: str, place: int) -> Iterator[io.BufferedWriter]:
    """An empty file that has not got its name yet, and goes away if the block raises an exception."""
    permissions = _permissions_to_keep(target)
    folder, name = os.path.split(target)
    hidden = _hidden(name)
    _remove(hidden, place)
    try:
        fd = _nameless_file(folder)
        if fd is None:
            fd = os.open(os.path.join(folder, hidden), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(fd, "wb") as file:
            if permissions is not None:
                os.fchmod(fd, permissions)
            yield file
    except BaseException:
        _remove(hidden, place)
        raise


def _permissions_to_keep(target: str) -> int | None:
    """Those of the file that is going to be replaced, if there is one."""
    try:
        # Opening it raises what overwriting it would have raised: renaming does not ask whether it is write-protected.
        fd = os.open(target, os.O_WRONLY)
    except FileNotFoundError:
        return None
    try:
        return stat.S_IMODE(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def _nameless_file(folder: str) -> int | None:
    """A file in the folder that nobody else can see; None if there is no such thing here."""
    if not hasattr(os, "O_TMPFILE") or not os.path.exists("/proc/self/fd"):
        return None
    try:
        return os.open(folder, os.O_WRONLY | os.O_TMPFILE, 0o666)
    except OSError as error:
        if error.errno not in _NO_NAMELESS_FILES:
            raise
        return None


def _put_in_place(file: io.BufferedWriter, place: int, name: str) -> None:
    if os.fstat(file.fileno()).st_nlink == 0:
        try:
            _give_name(file, place, name)
            return
        except FileExistsError:
            # A link cannot replace a file. Only a renamed file can.
            _give_name(file, place, _hidden(name))
    os.replace(_hidden(name), name, src_dir_fd=place, dst_dir_fd=place)


def _give_name(file: io.BufferedWriter, place: int, name: str) -> None:
    # Only together with a directory does Python tell the kernel to follow the link in /proc.
    os.link(f"/proc/self/fd/{file.fileno()}", name, src_dir_fd=place, dst_dir_fd=place, follow_symlinks=True)


def _flush_folder_to_disk(place: int) -> None:
    try:
        os.fsync(place)
    except OSError as error:
        # Some file systems have no such thing for a folder, and the file is complete all the same.
        if error.errno != errno.EINVAL:
            raise


def _hidden(name: str) -> str:
    return f".{name}.unfinished"


def _remove(name: str, place: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=place)
