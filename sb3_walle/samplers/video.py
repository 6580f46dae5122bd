"""SB3's VecVideoRecorder in the first sampler: films its first environment while samplers collect."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import logger

from sb3_walle.samplers.layers import EnvLayer, InnermostEnvs, OnInfo
from sb3_walle.transport.chunk import Observations


@dataclass(frozen=True)
class VideoRecorderSpec:
    """
    The arguments of a ``VecVideoRecorder``; see there.

    :param fps: frames of a second
    :param first_step: number of steps that it has counted so far. The layer counts on by itself, so that no number
        makes another layer of it
    :param trigger_id: tells one trigger from another, also in a sampler, where each message brings a copy
    """

    video_folder: str
    record_video_trigger: Callable[[int], bool] = field(compare=False)
    video_length: int
    name_prefix: str
    fps: float
    first_step: int = field(default=0, compare=False)
    trigger_id: int = 0

    def build(self, inner: EnvLayer, envs: InnermostEnvs) -> EnvLayer:
        """:return: the layer that records, in the first sampler; in others, the layer below"""
        return VideoRecorder(self, inner, envs) if envs.first_env == 0 else inner


class VideoRecorder:
    """
    A layer that changes nothing, and records as ``VecVideoRecorder`` does, but the first environment only: the same
    trigger, frames and names of files.

    :param envs: the environments, of which the first one renders
    """

    def __init__(self, spec: VideoRecorderSpec, inner: EnvLayer, envs: InnermostEnvs) -> None:
        self.inner = inner
        self.n_envs = inner.n_envs
        self.observation_space, self.action_space = inner.observation_space, inner.action_space
        # The very arrays, which the layer below keeps up to date.
        self.observations = inner.observations
        #: number of steps so far
        self.step_id = spec.first_step
        self._spec, self._envs = spec, envs
        self._has_asked = False
        # Where the video goes that is being recorded.
        self._path: str | None = None
        self._frames: list[np.ndarray] = []

    def reset(self, seeds: Sequence[int | None], options: Sequence[dict[str, Any]]) -> None:
        self.inner.reset(seeds, options)
        self._begin_if_due()

    def step(
        self,
        actions: Sequence[Any] | np.ndarray,
        observations: Observations,
        rewards: np.ndarray,
        dones: np.ndarray,
        on_info: OnInfo,
    ) -> None:
        if not self._has_asked:
            # The reset was before this layer was built.
            self._begin_if_due()
        self.inner.step(actions, observations, rewards, dones, on_info)
        self.step_id += 1
        if self._path is None:
            self._begin_if_due()
            return
        self._capture()
        if len(self._frames) > self._spec.video_length:
            print(f"Saving video to {self._path}")
            self.end()

    def keep(self, observations: Observations) -> None:
        self.inner.keep(observations)

    def end(self) -> None:
        """Write what has been recorded, unless that is less than a step."""
        if len(self._frames) > 1:
            self._write()
        self._path, self._frames = None, []

    def _begin_if_due(self) -> None:
        self._has_asked = True
        if self._spec.record_video_trigger(self.step_id):
            self.end()
            name = f"{self._spec.name_prefix}-step-{self.step_id}-to-step-{self.step_id + self._spec.video_length}.mp4"
            self._path = os.path.join(self._spec.video_folder, name)
            self._capture()

    def _capture(self) -> None:
        frame = self._envs.render([0])[0]
        if isinstance(frame, np.ndarray):
            # A copy: the environment may paint the next one over it.
            self._frames.append(frame.copy())
            return
        logger.warn(f"Recording stopped: render() must return a numpy array, but it returned {type(frame)}")
        self.end()

    def _write(self) -> None:
        from moviepy.video.io.ImageSequenceClip import ImageSequenceClip

        if self._envs.pulse is not None:
            # No environment makes a step, however long this takes.
            self._envs.pulse.rest()
        os.makedirs(self._spec.video_folder, exist_ok=True)
        ImageSequenceClip(self._frames, fps=self._spec.fps).write_videofile(self._path, logger=None)
