"""The connection to a cluster, and the nodes that it has."""

import math
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

import ray

from sb3_walle.backends.ray.placement import Node
from sb3_walle.backends.ray.ray_private import check_token, free_cpus, full_address, has_started_cluster

LOCAL_LINE = 'backend="ray": no Ray cluster found, so Ray is started on this machine alone.'


class Connection:
    """
    This process's connection to a cluster, which all samplers of this process share. A cluster that was started for
    them ends with the last of them.

    :param address: its address, ``None`` for any that there is, or else a new one
    :param runtime_env: Ray's runtime environment for the samplers
    :raises ValueError: if the address is one of Ray Client's, or of another cluster than the one that this process is
        connected to
    :raises ConnectionError: if there is no cluster at the address, or it does not let this process in
    """

    # By address of the cluster and number of the job: users, and whether the cluster was started for them.
    _n_users: ClassVar[Counter[tuple[str, str]]] = Counter()
    _ours: ClassVar[set[tuple[str, str]]] = set()

    def __init__(self, address: str | None, runtime_env: Mapping[str, Any] | None) -> None:
        if ray.is_initialized():
            _check_is_connected_to(address)
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


def _check_is_connected_to(address: str | None) -> None:
    present = ray.get_runtime_context().gcs_address
    if address is None or address == "auto" or address.startswith("ray://"):
        return
    if has_started_cluster() if address == "local" else _ip_and_port(address) == _ip_and_port(present):
        return
    raise ValueError(
        f"RayBackend(address={address!r}) is another cluster than {present!r}, which this process is connected to. "
        "Leave address out to use that one, or call ray.shutdown() before."
    )


def _ip_and_port(address: str) -> tuple[str, str]:
    host, _, port = str(full_address(address)).rpartition(":")
    with suppress(OSError):
        host = socket.gethostbyname(host)
    return host, port


def _connect(address: str | None, runtime_env: dict[str, Any] | None) -> bool:
    """Connect to a cluster. Returns whether it was started for that."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        address = _found(address)
        if address == "local":
            ray.init(address=address, include_dashboard=False, runtime_env=runtime_env)
            return True
        ray.init(address=address, runtime_env=runtime_env)
        return False
    except Exception as error:
        raise ConnectionError(
            f"Could not connect to the Ray cluster at {address or 'auto'!r}: {type(error).__name__}: {error}"
        ) from error
    finally:
        # Ray has set one of its own, which would keep training from ending in order.
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)


def _found(address: str | None) -> str:
    """The address to connect to: that of the user, or any that there is, or ``"local"``."""
    try:
        present = full_address(address or "auto")
    except ConnectionError:
        if address is not None:
            raise
        print(LOCAL_LINE)
        return "local"
    if present is not None:
        check_token(present, is_found=address in (None, "auto"))
    return address or "auto"


def nodes() -> list[Node]:
    """:return: the nodes that are alive and whose CPUs Ray may use, in an order that does not change"""
    free, found = free_cpus(), []
    for node in ray.nodes():
        node_id, n_cpus = node["NodeID"], node["Resources"].get("CPU", 0.0)
        if node["Alive"] and n_cpus > 0:
            # One that has just joined has not told yet.
            n_free_cpus = _whole(free.get(node_id, n_cpus))
            found.append(Node(node_id, node["NodeManagerAddress"], n_cpus, n_free_cpus))
    return sorted(found, key=lambda node: node.node_id)


def _whole(n_cpus: float) -> float:
    """What one host can have of them: Ray knows fractions of one CPU, but not of several."""
    return n_cpus if n_cpus < 1 else math.floor(n_cpus + 1e-6)
