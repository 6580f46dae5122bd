"""The nodes that hosts can be started on, and how many samplers fit on each."""

import math
import time
from collections.abc import Container

from sb3_walle.backends.ray.choices import RayChoices
from sb3_walle.backends.ray.cluster import nodes
from sb3_walle.backends.ray.placement import Node, cpus_of_a_sampler, room

# What a host that has ended had set aside is free again after this time.
RELEASE_SECONDS = 3.0
# For how long no host is started on a node where one did not start.
AVOIDED_SECONDS = 60.0


class HostNodes:
    """
    The nodes of the cluster, as far as they have room for samplers.

    :param choices: what the user chooses
    :param n_samplers: number of samplers
    """

    def __init__(self, choices: RayChoices, n_samplers: int) -> None:
        self._choices, self._n_samplers = choices, n_samplers
        # CPUs to set aside for each sampler.
        self._cpus = 0.0
        # Nodes with a host, or where a host was, as they were before: what a dead host had set aside is there again.
        self._as_before: dict[str, Node] = {}
        # Nodes to avoid, and until when.
        self._avoided: dict[str, float] = {}

    def at_start(self) -> list[Node]:
        """The nodes. What samplers that have just ended had set aside may take a moment to be free."""
        cpus = self._choices.cpus_per_sampler
        deadline = time.monotonic() + RELEASE_SECONDS
        while True:
            found = nodes()
            self._cpus = cpus_of_a_sampler(self._n_samplers, found) if cpus is None else cpus
            is_less = self._cpus < 1 if cpus is None else sum(map(self.room, found)) < self._n_samplers
            is_taken = any(node.n_free_cpus < node.n_cpus for node in found)
            if not (is_less and is_taken) or time.monotonic() >= deadline:
                return found
            time.sleep(RELEASE_SECONDS / 20)

    def free(self, taken: Container[str]) -> list[Node]:
        """
        :param taken: names of the nodes that have a host
        :return: the others that have room for a sampler
        """
        now = time.monotonic()
        found = [
            self._as_before.get(node.node_id, node)
            for node in nodes()
            if node.node_id not in taken and self._avoided.get(node.node_id, now) <= now
        ]
        return [node for node in found if self.room(node) >= 1]

    def room(self, node: Node) -> float:
        """:return: how many samplers fit on a node, which may be infinite"""
        return room(node, self._choices.samplers_per_node, self._cpus)

    def cpus_of_a_host(self, n_samplers: int) -> float:
        """:return: CPUs to set aside for a host with that many samplers"""
        cpus = n_samplers * self._cpus
        # Ray knows fractions of one CPU, but not of several.
        return cpus if cpus < 1 else math.ceil(round(cpus, 4))

    def take(self, node: Node) -> None:
        """Note that a host is started on a node."""
        self._as_before[node.node_id] = node

    def avoid(self, node: Node) -> None:
        """Have no host started on a node for a while."""
        self._avoided[node.node_id] = time.monotonic() + AVOIDED_SECONDS
