"""The connection to a cluster, and the nodes that it has."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

import ray

from sb3_walle.backends.ray.placement import Node

LOCAL_LINE = 'backend="ray": no Ray cluster found, so Ray is started on this machine alone.'


class Connection:
    """
    This process's connection to a cluster, which all samplers of this process share. A cluster that was started for
    them ends with the last of them.

    :param address: its address, ``None`` for any that there is, or else a new one
    :param runtime_env: Ray's runtime environment for the samplers
    :raises ValueError: if the address is one of Ray Client's
    :raises ConnectionError: if there is no cluster at the address, or it does not let this process in
    """

    # By address of the cluster and number of the job: users, and whether the cluster was started for them.
    _n_users: ClassVar[Counter[tuple[str, str]]] = Counter()
    _ours: ClassVar[set[tuple[str, str]]] = set()

    def __init__(self, address: str | None, runtime_env: Mapping[str, Any] | None) -> None:
        address = address or os.environ.get("RAY_ADDRESS") or None
        if address is not None and address.startswith("ray://"):
            raise ValueError(
                f"{address!r} is an address of Ray Client, which makes a fifth of the calls and carries a hundredth of "
                'the bytes per second. Run the program on a node of the cluster, and pass address="auto".'
            )
        own = None if runtime_env is None else dict(runtime_env)
        #: what each host needs to be told of it; local modules can only be taken along by a whole job
        self.runtime_env_of_hosts = own if ray.is_initialized() else None
        is_started = not ray.is_initialized() and _connect(address, own)
        self._job = _present_job()
        if is_started:
            self._ours.add(self._job)
        self._n_users[self._job] += 1
        self._is_open = True

    def close(self) -> None:
        """End the cluster if it was started for samplers, and these were the last."""
        if not self._is_open:
            return
        self._is_open = False
        self._n_users[self._job] -= 1
        if self._n_users[self._job] == 0 and self._job in self._ours:
            self._ours.discard(self._job)
            # The user may have ended it, and begun another one.
            if ray.is_initialized() and _present_job() == self._job:
                ray.shutdown()


def _present_job() -> tuple[str, str]:
    context = ray.get_runtime_context()
    return context.gcs_address, context.get_job_id()


def _connect(address: str | None, runtime_env: dict[str, Any] | None) -> bool:
    """Connect to a cluster. Returns whether it was started for that."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address or "auto", runtime_env=runtime_env)
        return address == "local"
    except Exception as error:
        if address is None and isinstance(error, ConnectionError):
            print(LOCAL_LINE)
            ray.init(address="local", include_dashboard=False, runtime_env=runtime_env)
            return True
        raise ConnectionError(
            f"Could not connect to the Ray cluster at {address or 'auto'!r}: {type(error).__name__}: {error}"
        ) from error
    finally:
        # Ray has set one of its own, which would keep training from ending in order.
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)


def nodes() -> list[Node]:
    """:return: the nodes that are alive and whose CPUs Ray may use, in an order that does not change"""
    found = [
        Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"]["CPU"])
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0.0) > 0
    ]
    return sorted(found, key=lambda node: node.node_id)
