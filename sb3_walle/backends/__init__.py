"""Where samplers live."""

from collections.abc import Iterable

from sb3_walle.backends.inline import InlineBackend
from sb3_walle.backends.protocol import Backend
from sb3_walle.backends.supervision import Supervision

BACKENDS = ("process", "inline")


def shares_objects(backend: str) -> bool:
    """
    :param backend: one of ``BACKENDS``
    :return: whether samplers live in this process and hold the very objects that they are given, rather than copies
    """
    return backend == "inline"


def make_backend(
    backend: str, n_samplers: int, preload: Iterable[str] = (), supervision: Supervision | None = None
) -> Backend:
    """
    :param backend: one of ``BACKENDS``
    :param n_samplers: number of samplers
    :param preload: names of modules that samplers are going to import
    :param supervision: how samplers are run, by default as for :class:`Supervision`
    :return: the samplers, idle and without environments
    """
    if backend == "inline":
        return InlineBackend(n_samplers)
    from sb3_walle.backends.process import ProcessBackend

    return ProcessBackend(n_samplers, preload, supervision)
