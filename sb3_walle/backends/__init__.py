"""Where samplers live."""

from collections.abc import Callable

from sb3_walle.backends.inline import InlineBackend
from sb3_walle.backends.protocol import Backend
from sb3_walle.backends.ray import RayBackend


def _process() -> Backend:
    # Its modules exist on Linux only.
    from sb3_walle.backends.process import ProcessBackend

    return ProcessBackend()


#: the backends that have a name
BACKENDS: dict[str, Callable[[], Backend]] = {"process": _process, "inline": InlineBackend, "ray": RayBackend}


def check_drives_plants(backend: str | Backend) -> None:
    """
    :raises ValueError: if samplers of a backend cannot act in real time, because they do not reach the learner's memory
    """
    if not getattr(as_backend(backend), "drives_plants", False):
        raise ValueError(
            f"backend={backend!r} cannot act in real time: experience takes its way over a network. Run the learner on "
            "the machine that the plant is connected to, with backend='process'."
        )


def as_backend(backend: str | Backend) -> Backend:
    """
    :param backend: the name of a backend, or a backend
    :raises ValueError: if there is none of that name
    :raises TypeError: if it is neither
    """
    if isinstance(backend, str):
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {tuple(BACKENDS)}, got {backend!r}")
        return BACKENDS[backend]()
    if isinstance(backend, type) or not all(hasattr(backend, name) for name in ("launch", "n_cpus", "shares_objects")):
        raise TypeError(f"backend must be one of {tuple(BACKENDS)}, or an object like these, got {backend!r}")
    return backend
