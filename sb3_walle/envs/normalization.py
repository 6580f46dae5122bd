"""VecNormalize across samplers, the learner's side: publishes its statistics, and merges what samplers measured."""

from collections.abc import Mapping

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from sb3_walle.samplers.normalizer import RETURNS, WHOLE, NormalizerSpec, mean_of, variance_of
from sb3_walle.transport.chunk import Chunk


class Normalization:
    """
    A ``VecNormalize`` whose work samplers do.

    Its statistics are what counts. Samplers get copies of them together with the policy's weights, normalise with
    these, and report the mean, variance and number of what they saw. These are merged into the statistics, which then
    are those of all steps, as if the wrapper had seen them itself (Chan, Golub & LeVeque, 1979, "Updating formulae and
    a pairwise algorithm for computing sample variances"). SB3 moves them at every step; here they stand still between
    two publications.
    """

    def __init__(self, vec_normalize: VecNormalize) -> None:
        self.vec_normalize = vec_normalize
        self.spec = normalizer_spec(vec_normalize)

    def published(self) -> dict[str, np.ndarray]:
        """:return: copies of the statistics that samplers need, by name"""
        return {
            name: np.array(values, dtype=np.float64)
            for part, statistics in self._statistics().items()
            for name, values in ((mean_of(part), statistics.mean), (variance_of(part), statistics.var))
        }

    def merge(self, chunk: Chunk) -> None:
        """Add what a sampler measured to the statistics, unless they are fixed (``training=False``)."""
        count = chunk.n_steps * chunk.n_envs
        if not self.vec_normalize.training or count == 0:
            return
        for part, statistics in self._statistics().items():
            # Copies, because the statistics keep what they are given, and the chunk's memory is used again.
            mean, variance = (chunk.arrays[name(part)].copy() for name in (mean_of, variance_of))
            shape = statistics.mean.shape
            statistics.update_from_moments(mean.reshape(shape), variance.reshape(shape), count)

    def n_samples_seen(self) -> float:
        """:return: from how many samples the statistics that are in use were made; infinite if they are fixed"""
        if not self.vec_normalize.training:
            return np.inf
        in_use = [
            statistics.count
            for part, statistics in self._statistics().items()
            if part != RETURNS or self.spec.norm_reward
        ]
        return min(in_use, default=np.inf)

    def _statistics(self) -> Mapping[str, RunningMeanStd]:
        """The wrapper's present statistics: a callback may have exchanged the objects."""
        found = {RETURNS: self.vec_normalize.ret_rms}
        if self.spec.parts:
            statistics = self.vec_normalize.obs_rms
            found |= statistics if isinstance(statistics, dict) else {WHOLE: statistics}
        return found


def normalizer_spec(vec_normalize: VecNormalize) -> NormalizerSpec:
    """:return: how to do in a sampler what the wrapper does"""
    parts: tuple[str, ...] = ()
    if vec_normalize.norm_obs:
        parts = tuple(vec_normalize.obs_rms) if isinstance(vec_normalize.obs_rms, dict) else (WHOLE,)
    return NormalizerSpec(
        original_space=vec_normalize.venv.observation_space,
        observation_space=vec_normalize.observation_space,
        parts=parts,
        norm_reward=vec_normalize.norm_reward,
        clip_obs=float(vec_normalize.clip_obs),
        clip_reward=float(vec_normalize.clip_reward),
        gamma=float(vec_normalize.gamma),
        epsilon=float(vec_normalize.epsilon),
    )
