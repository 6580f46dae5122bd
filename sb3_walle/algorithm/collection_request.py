"""What an algorithm asks of its samplers."""

from dataclasses import dataclass

from sb3_walle.collection.stream_plan import StreamRules
from sb3_walle.collection.task import CollectionTask
from sb3_walle.envs.normalization import Normalization
from sb3_walle.envs.wrappers import WrappedSamplers
from sb3_walle.samplers.infos import InfoSelection


@dataclass(frozen=True)
class CollectionRequest:
    """
    What decides, beside the algorithm of SB3 itself, how a collector is made.

    :param env: the samplers, and what is around them
    :param n_steps: steps of each environment in a rollout
    :param max_policy_lag: its bound, ``None`` for the mode's own
    :param actor: what the user asked for, ``"auto"``, ``"numpy"`` or ``"torch"``
    :param infos: which infos are passed on
    :param check_finite: whether samplers refuse numbers that are not finite
    :param seed: seed of the samplers' random streams, ``None`` for fresh entropy
    :param n_collectors: how many collectors were made from this seed before
    """

    env: WrappedSamplers
    n_steps: int
    mode: str
    max_policy_lag: int | None
    actor: str
    infos: InfoSelection
    check_finite: bool
    seed: int | None
    n_collectors: int

    @property
    def n_samplers(self) -> int:
        """Number of samplers."""
        return self.env.vec_env.n_samplers

    @property
    def shares_random_state(self) -> bool:
        """Whether the one sampler and the learner, which waits for it, draw what SB3's one process draws."""
        return self.mode == "sync" and self.n_samplers == 1

    def task(self, squash_output: bool, streams: StreamRules | None = None) -> CollectionTask:
        """
        :param squash_output: whether the policy gives actions in [-1, 1]
        :param streams: see :class:`~sb3_walle.collection.task.CollectionTask`
        :return: what the collector collects
        """
        vec_normalize = self.env.vec_normalize
        return CollectionTask(
            self.env.observation_space,
            self.env.vec_env.envs_per_sampler,
            self.n_steps,
            squash_output,
            self.env.layers,
            None if vec_normalize is None else Normalization(vec_normalize),
            self.infos,
            self.check_finite,
            streams,
        )

    def summary(self, actor: str) -> str:
        """
        :param actor: the actor that was chosen
        :return: one line for the user
        """
        return (
            f"Collecting with {self.n_samplers} samplers, environments of each: {self.env.vec_env.envs_per_sampler}, "
            f"mode: {self.mode}, actor: {actor}"
        )
