"""What a step looks like from the learner's side of the wrappers around the samplers."""

from typing import Any

from sb3_walle.collection.rollout import Rollout
from sb3_walle.envs.wrappers import WrappedSamplers
from sb3_walle.samplers.infos import EPISODE, TRUNCATED
from sb3_walle.samplers.normalizer import ORIGINAL_OBSERVATIONS, ORIGINAL_REWARDS
from sb3_walle.sb3_private import stop_recording


def infos_of_step(rollout: Rollout, step: int) -> list[dict[str, Any]]:
    """:return: the infos of a row as SB3's callbacks find them, one for each environment"""
    infos: list[dict[str, Any]] = [{TRUNCATED: False} for _ in range(rollout.n_envs)]
    for env, info in rollout.infos[step]:
        infos[env] = info
    return infos


def show_step_to_wrappers(env: WrappedSamplers, rollout: Rollout, step: int, infos: list[dict[str, Any]]) -> None:
    """
    Keep the wrappers up to date although samplers do their work: callbacks ask ``VecNormalize`` for the original
    observations and rewards, ``VecMonitor`` writes a file, and ``VecVideoRecorder`` counts.

    :param step: the row that the training has come to
    :param infos: its infos, one for each environment
    """
    if env.vec_normalize is not None:
        env.vec_normalize.old_obs = rollout.next_observations(step, ORIGINAL_OBSERVATIONS)
        env.vec_normalize.old_reward = rollout.fields[ORIGINAL_REWARDS][step]
    for monitor in env.monitors:
        for info in infos:
            if EPISODE in info:
                monitor.episode_count += 1
                if monitor.results_writer is not None:
                    monitor.results_writer.write_row(info[EPISODE])
    for recorder in env.video_recorders:
        recorder.step_id += 1


def leave_recording_to_samplers(env: WrappedSamplers) -> None:
    """
    End the recordings of each ``VecVideoRecorder`` when samplers begin to collect: from now on the first one records.
    """
    for recorder in env.video_recorders:
        if len(recorder.recorded_frames) > 1:
            stop_recording(recorder)
        # Where it has begun with this very step, which is where the sampler begins, too, there is nothing to write.
        recorder.recording, recorder.recorded_frames = False, []
