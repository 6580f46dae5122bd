"""Why something cannot be compiled."""

# Enough to recognise an error of torch, which may have pages.
MAX_LENGTH = 200


class Unsupported(Exception):
    """An update has to stay eager. The message says why."""


def in_short(error: Exception) -> str:
    """The type and message of an exception in one line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 3] + "..."
