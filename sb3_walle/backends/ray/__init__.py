"""Samplers on the nodes of a Ray cluster: one host a node, which runs its samplers in processes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sb3_walle.backends.ray.choices import RayChoices
from sb3_walle.backends.supervision import Supervision

if TYPE_CHECKING:
    from sb3_walle.backends.ray.samplers import RaySamplers


@dataclass(frozen=True)
class RayBackend(RayChoices):
    """
    Samplers on the nodes of a `Ray <https://docs.ray.io>`_ cluster, for ``backend=``. ``backend="ray"`` is the same
    with all defaults.

    :param address: address of a cluster, as for ``ray.init()``; by default ``RAY_ADDRESS``, or the cluster of this
        machine, or else a new one on this machine alone, which ends with the samplers
    :param samplers_per_node: most samplers of one node; by default the samplers are divided in proportion to the nodes'
        CPUs
    :param cpus_per_sampler: CPUs that Ray sets aside for each sampler, which may be a fraction or 0; by default 1, or
        an even share where the cluster has fewer CPUs left
    :param runtime_env: Ray's runtime environment for the samplers, ``{"py_modules": [...]}`` for example
    :param node_grace: seconds to wait for a node when samplers have lost theirs and no other is left, before that is an
        error
    :param heartbeat_timeout: seconds without a sign of life after which a node counts as lost
    :raises ValueError: if a number is out of range, or the address is one of Ray Client's
    """

    shares_objects: ClassVar[bool] = False

    def n_cpus(self) -> float:
        return math.inf

    def launch(self, n_samplers: int, preload: Iterable[str], supervision: Supervision) -> "RaySamplers":
        """
        :param n_samplers: number of samplers
        :param preload: names of modules to import before forking
        :param supervision: how samplers are run
        :return: the samplers, idle and without environments
        :raises ImportError: if Ray is not installed
        :raises ConnectionError: if there is no cluster at the address
        :raises RuntimeError: if the nodes cannot hold the samplers, or have other versions of what samplers need
        """
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise ImportError('backend="ray" needs Ray: pip install "sb3_walle[ray]"') from error
        from sb3_walle.backends.ray.samplers import RaySamplers

        return RaySamplers(self, n_samplers, tuple(preload), supervision)
