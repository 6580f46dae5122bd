"""
Names of Ray that are private, each in a function, as they are in Ray 2.60.0.

Another release may change them without notice. Then this is the file to mend.
"""

from typing import Any

from ray._private import services, state, worker

# Ray waits as long for a cluster that does not answer.
PROBE_MILLISECONDS = 1000


def free_cpus() -> dict[str, float]:
    """:return: by name of the node, how many of its CPUs nothing has set aside"""
    return {node: found.get("CPU", 0.0) for node, found in state.available_resources_per_node().items()}


def full_address(address: str) -> str | None:
    """
    :param address: an address as for ``ray.init()``
    :return: host and port, ``None`` if that means a new cluster
    :raises ConnectionError: if it means any cluster, and there is none
    """
    return services.canonicalize_bootstrap_address(address)


def has_started_cluster() -> bool:
    """Whether the cluster that this process is connected to was started by it."""
    node: Any = worker._global_node
    return node is not None and bool(node.is_head())


def check_token(address: str, is_found: bool) -> None:
    """
    Ask a cluster once whether it lets this process in. ``ray.init()`` asks for 20 s when it is turned away, and says
    only that it could not connect.

    :param address: host and port of the cluster
    :param is_found: whether Ray has found the cluster, and not the user has named it: Ray then uses a token file that
        there is, also where ``RAY_AUTH_MODE`` is not set
    :raises ray.exceptions.AuthenticationError: if the cluster asks for a token, and this process has another or none
    """
    try:
        from ray._private.authentication import authentication_token_setup as setup
        from ray._raylet import InnerGcsClient  # type: ignore[attr-defined]
        from ray.exceptions import AuthenticationError, RpcError
    except ImportError:
        # Clusters of this release ask for no token.
        return
    if is_found:
        setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    setup.ensure_token_if_auth_enabled({}, create_token_if_missing=False)
    try:
        InnerGcsClient.standalone(address, None, PROBE_MILLISECONDS)
    except AuthenticationError:
        raise
    except RpcError:
        # It does not answer, which ray.init() says as clearly, after having waited for it.
        return
