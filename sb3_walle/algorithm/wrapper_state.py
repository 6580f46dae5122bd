"""What the learner's own wrappers would have noticed of the steps that samplers made."""

from typing import Any

from sb3_walle.collection.rollout import Rollout
from sb3_walle.envs.wrappers import WrappedSamplers
from sb3_walle.samplers.infos import EPISODE
from sb3_walle.samplers.normalizer import ORIGINAL_OBSERVATIONS, ORIGINAL_REWARDS


class WrapperState:
    """
    Keeps the wrappers around the samplers up to date while their work is done elsewhere: callbacks ask ``VecNormalize``
    for the original observations and rewards, and ``VecMonitor`` writes a file.

    :param env: the samplers and their wrappers
    """

    def __init__(self, env: WrappedSamplers) -> None:
        self._vec_normalize, self._monitors = env.vec_normalize, env.monitors

    def follow(self, rollout: Rollout, step: int, infos: list[dict[str, Any]]) -> None:
        """
        :param step: the row that the training has come to
        :param infos: the infos of this step, one for each environment
        """
        if self._vec_normalize is not None:
            self._vec_normalize.old_obs = rollout.next_observations(step, ORIGINAL_OBSERVATIONS)
            self._vec_normalize.old_reward = rollout.fields[ORIGINAL_REWARDS][step]
        for monitor in self._monitors:
            for info in infos:
                if EPISODE in info:
                    monitor.episode_count += 1
                    if monitor.results_writer is not None:
                        monitor.results_writer.write_row(info[EPISODE])
