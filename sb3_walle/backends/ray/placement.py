"""Which node runs how many samplers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Node:
    """
    A machine of the cluster.

    :param node_id: Ray's name of it
    :param address: its IP address
    :param n_cpus: how many CPUs Ray may use there
    """

    node_id: str
    address: str
    n_cpus: float


def cpus_of_a_sampler(wanted: float | None, n_samplers: int, n_cpus_left: float) -> float:
    """
    :param wanted: what the user asks for, ``None`` for one where there are enough
    :param n_samplers: number of samplers
    :param n_cpus_left: CPUs of the cluster that nothing has set aside
    :return: CPUs to set aside for each sampler
    """
    if wanted is not None:
        return wanted
    # Ray counts in steps of 1 / 10,000.
    return min(1.0, int(n_cpus_left / n_samplers * 100) / 100)


def room(node: Node, samplers_per_node: int | None, cpus_per_sampler: float) -> float:
    """
    :param node: a node
    :param samplers_per_node: most samplers of one node
    :param cpus_per_sampler: CPUs of each sampler
    :return: how many samplers fit on the node, which may be infinite
    """
    by_cpus = node.n_cpus // cpus_per_sampler if cpus_per_sampler > 0 else float("inf")
    return min(by_cpus, float("inf") if samplers_per_node is None else samplers_per_node)


def divide(n_samplers: int, nodes: Sequence[Node], rooms: Mapping[str, float]) -> dict[str, list[int]]:
    """
    Give each sampler to the node that is least full then, in proportion to its CPUs.

    :param n_samplers: number of samplers
    :param nodes: the nodes
    :param rooms: how many samplers fit on each node
    :return: numbers of the samplers of each node that has any
    :raises RuntimeError: if the nodes do not hold them all
    """
    shares: dict[str, list[int]] = {node.node_id: [] for node in nodes}
    for sampler in range(n_samplers):
        free = [node for node in nodes if len(shares[node.node_id]) < rooms[node.node_id]]
        if not free:
            held = ", ".join(f"{node.address}: {rooms[node.node_id]:.0f}" for node in nodes)
            raise RuntimeError(
                f"{n_samplers} samplers do not fit on the cluster's nodes, which hold {held or 'none'}. Use fewer "
                "samplers, or pass RayBackend(samplers_per_node=..., cpus_per_sampler=...): cpus_per_sampler may be a "
                "fraction, or 0."
            )
        node = min(free, key=lambda node: (len(shares[node.node_id]) + 1) / node.n_cpus)
        shares[node.node_id].append(sampler)
    return {node_id: samplers for node_id, samplers in shares.items() if samplers}
