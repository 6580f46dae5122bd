"""What to do about too little memory."""

import contextlib
from collections.abc import Iterator

from sb3_walle.collection.queues import REMEDY


@contextlib.contextmanager
def memory_advice() -> Iterator[None]:
    """Say what to change where there is too little memory for what SB3 keeps in it, such as its buffer."""
    try:
        yield
    except MemoryError as error:
        raise MemoryError(f"{str(error).rstrip('.')}. {REMEDY}") from error
