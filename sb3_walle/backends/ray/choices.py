"""What a user chooses of a Ray cluster."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RayChoices:
    """
    Where samplers run, and what Ray sets aside for them. :class:`~sb3_walle.backends.ray.RayBackend` explains each.

    :raises ValueError: if a number is out of range
    """

    address: str | None = None
    samplers_per_node: int | None = None
    cpus_per_sampler: float | None = None
    runtime_env: Mapping[str, Any] | None = None
    node_grace: float = 300.0
    heartbeat_timeout: float = 10.0

    def __post_init__(self) -> None:
        if self.samplers_per_node is not None and self.samplers_per_node < 1:
            raise ValueError(f"samplers_per_node must be at least 1, or None, got {self.samplers_per_node!r}")
        if self.cpus_per_sampler is not None and self.cpus_per_sampler < 0:
            raise ValueError(f"cpus_per_sampler must be at least 0, or None, got {self.cpus_per_sampler!r}")
        if self.node_grace < 0:
            raise ValueError(f"node_grace must be a number of seconds of at least 0, got {self.node_grace!r}")
        if self.heartbeat_timeout < 2:
            raise ValueError(
                f"heartbeat_timeout must be a number of seconds of at least 2, got {self.heartbeat_timeout!r}"
            )
