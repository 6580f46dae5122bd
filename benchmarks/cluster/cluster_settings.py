"""What the benchmark is asked for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ClusterSettings:
    """
    What to measure.

    :param env_id: Gymnasium id of the environment
    :param n_samplers: samplers of one environment
    :param address: address of a cluster for throughput; by default the one of this machine, or a new one
    :param rllib: measure RLlib, too
    :param n_steps: steps of each environment in a rollout
    """

    env_id: str
    n_samplers: int = 10
    address: str | None = None
    rllib: bool = False
    n_steps: int = 256

    @property
    def rollout(self) -> int:
        """Steps of a rollout, all environments together."""
        return self.n_steps * self.n_samplers
