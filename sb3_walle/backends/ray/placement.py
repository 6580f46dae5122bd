"""Which node runs how many samplers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Node:
    """
    A machine of the cluster.

    :param node_id: Ray's name of it
    :param address: its IP address
    :param n_cpus: how many CPUs Ray may use there
    :param n_free_cpus: how many of them nothing has set aside
    """

    node_id: str
    address: str
    n_cpus: float
    n_free_cpus: float


def cpus_of_a_sampler(n_samplers: int, nodes: Sequence[Node]) -> float:
    """
    :param n_samplers: number of samplers
    :param nodes: the nodes
    :return: CPUs to set aside for each sampler: one, or where there are too few, the largest share with which the nodes
        hold all samplers
    """
    fair = min(1.0, sum(node.n_free_cpus for node in nodes) / n_samplers)
    shares = {node.n_free_cpus / k for node in nodes for k in range(1, n_samplers + 1)}
    # Ray counts in steps of 1 / 10,000.
    shares = {math.floor(share * 10_000) / 10_000 for share in {fair, *shares} if share <= fair}
    fitting = [share for share in shares if sum(room(node, None, share) for node in nodes) >= n_samplers]
    return max(fitting, default=0.0)


def room(node: Node, samplers_per_node: int | None, cpus_per_sampler: float) -> float:
    """
    :param node: a node
    :param samplers_per_node: most samplers of one node
    :param cpus_per_sampler: CPUs of each sampler
    :return: how many samplers fit on the node, which may be infinite
    """
    # Of what is a whole number but for rounding, nothing is taken away.
    by_cpus = math.floor(node.n_free_cpus / cpus_per_sampler + 1e-6) if cpus_per_sampler > 0 else float("inf")
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
                f"{n_samplers} samplers do not fit on the cluster's nodes, which hold {held or 'none'} beside what "
                "runs there. Use fewer samplers, or pass RayBackend(samplers_per_node=..., cpus_per_sampler=...): "
                "cpus_per_sampler may be a fraction, or 0."
            )
        node = min(free, key=lambda node: (len(shares[node.node_id]) + 1) / node.n_cpus)
        shares[node.node_id].append(sampler)
    return {node_id: samplers for node_id, samplers in shares.items() if samplers}
