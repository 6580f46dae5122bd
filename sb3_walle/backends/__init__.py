"""Where samplers live."""

from collections.abc import Iterable

from sb3_walle.backends.inline import InlineBackend
from sb3_walle.backends.protocol import Backend

BACKENDS = ("process", "inline")


def make_backend(backend: str, n_samplers: int, preload: Iterable[str] = (), watches_steps: bool = False) -> Backend:
    """
    :param backend: one of ``BACKENDS``
    :param n_samplers: number of samplers
    :param preload: names of modules that samplers are going to import
    :param watches_steps: whether to keep track of how long environments take for a step
    :return: the samplers, idle and without environments
    """
    if backend == "inline":
        return InlineBackend(n_samplers)
    from sb3_walle.backends.process import ProcessBackend

    return ProcessBackend(n_samplers, preload, watches_steps)
