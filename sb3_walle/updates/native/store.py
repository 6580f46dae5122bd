"""Compiled programs on disk, so that the next run need not compile them again."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from sb3_walle.updates.unsupported import Unsupported

#: where programs are kept, if not in the user's cache
DIRECTORY_VARIABLE = "SB3_WALLE_CACHE_DIR"
# Each is about 2 MB. What was not used for longest goes first.
MAX_PROGRAMS = 64


class ProgramStore:
    """
    A directory of compiled programs.

    :param directory: by default ``SB3_WALLE_CACHE_DIR``, or else ``sb3_walle`` in the user's cache
    :raises Unsupported: if it cannot be written, or others can write there: its programs are run
    """

    def __init__(self, directory: Path | None = None) -> None:
        # The process may move on to another directory.
        self._directory = (directory or _default_directory()).absolute()
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self._directory.stat()
            writable = os.access(self._directory, os.W_OK | os.X_OK)
        except OSError as error:
            raise Unsupported(f"nothing can be kept in '{self._directory}' ({error.strerror}). {_ADVICE}") from error
        if not writable:
            raise Unsupported(f"'{self._directory}' is write-protected. {_ADVICE}")
        if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Unsupported(f"others may write to '{self._directory}', and what is there is run. {_ADVICE}")

    def path(self, key: str) -> Path:
        """Where a program is, or will be."""
        return self._directory / f"{key}.so"

    def has(self, key: str) -> bool:
        return self.path(key).is_file()

    def has_any(self) -> bool:
        return any(self._directory.glob("*.so"))

    def note_use(self, key: str) -> None:
        """Programs that have not been used for longest are removed first."""
        with suppress(OSError):
            os.utime(self.path(key))

    def remove(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)

    def make_room(self) -> None:
        programs = sorted(self._directory.glob("*.so"), key=_last_use, reverse=True)
        for path in programs[MAX_PROGRAMS:]:
            path.unlink(missing_ok=True)


_ADVICE = f"Set {DIRECTORY_VARIABLE} to a directory of your own"


def _default_directory() -> Path:
    chosen = os.environ.get(DIRECTORY_VARIABLE)
    if chosen:
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(cache) if cache else Path.home() / ".cache") / "sb3_walle"
    except RuntimeError as error:
        raise Unsupported(f"there is no home directory to keep anything in. {_ADVICE}") from error


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        # Another process has removed it in the meantime.
        return 0.0
