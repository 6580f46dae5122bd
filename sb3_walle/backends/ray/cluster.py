"""The connection to a cluster, and the nodes that it has."""

import os
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

    _n_users: ClassVar[int] = 0
    _is_ours: ClassVar[bool] = False

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
        if not ray.is_initialized():
            Connection._is_ours, Connection._n_users = _connect(address, own), 0
        Connection._n_users += 1
        self._is_open = True

    def close(self) -> None:
        """End the cluster if it was started for samplers, and these were the last."""
        if self._is_open:
            self._is_open = False
            Connection._n_users -= 1
            if Connection._is_ours and Connection._n_users == 0:
                ray.shutdown()


def _connect(address: str | None, runtime_env: dict[str, Any] | None) -> bool:
    """Connect to a cluster. Returns whether it was started for that."""
    try:
        ray.init(address=address or "auto", runtime_env=runtime_env)
    except Exception as error:
        if address is None and isinstance(error, ConnectionError):
            print(LOCAL_LINE)
            ray.init(address="local", include_dashboard=False, runtime_env=runtime_env)
            return True
        raise ConnectionError(
            f"Could not connect to the Ray cluster at {address or 'auto'!r}: {type(error).__name__}: {error}"
        ) from error
    return False


def nodes() -> list[Node]:
    """:return: the nodes that are alive and whose CPUs Ray may use, in an order that does not change"""
    found = [
        Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"]["CPU"])
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0.0) > 0
    ]
    return sorted(found, key=lambda node: node.node_id)
