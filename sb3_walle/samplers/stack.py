"""A sampler's environments, and the layers around them."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces

from sb3_walle.samplers.envs import SamplerEnvs
from sb3_walle.samplers.episode_limit import can_limit, own_limit
from sb3_walle.samplers.layers import EnvLayer, InnermostEnvs, OnInfo
from sb3_walle.samplers.normalizer import NormalizedEnvs
from sb3_walle.samplers.video import VideoRecorder
from sb3_walle.transport.chunk import Chunk, row


class LayerSpec(Protocol):
    """How to build a layer. Made by the learner, pickled, built in the sampler."""

    def build(self, inner: EnvLayer, envs: InnermostEnvs) -> EnvLayer:
        """
        :param inner: the layer below, which continues from where it is
        :param envs: the environments at the bottom
        :return: the layer around it
        """


@dataclass(frozen=True)
class EnvDescription:
    """
    What the learner has to know of the environments.

    :param metadata: Gymnasium's metadata
    :param identities: process and address of each environment, which no two have in common
    :param monitor_files: names of the monitor files that each environment writes
    :param resets_late: whether an environment whose episode has ended begins the next one in a step of the others
    :param max_episode_steps: after how many steps they truncate an episode, ``None`` if that is unknown
    :param takes_limit: whether a sampler can truncate an episode earlier
    :param is_vectorized: whether those of a sampler are one vectorised environment
    """

    observation_space: spaces.Space
    action_space: spaces.Space
    metadata: dict[str, Any]
    identities: Sequence[tuple[int, ...]] = ()
    monitor_files: Sequence[Sequence[str]] = ()
    resets_late: bool = False
    max_episode_steps: int | None = None
    takes_limit: bool = True
    is_vectorized: bool = False


class EnvStack:
    """
    Layers upon environments: at the bottom the environments themselves; then what belongs to the ``SamplerVecEnv``;
    then what was found around it.

    :param envs: the environments
    :param own_layers: what belongs to the ``SamplerVecEnv``, from the inside to the outside
    """

    def __init__(self, envs: InnermostEnvs, own_layers: Sequence[LayerSpec] = ()) -> None:
        self.envs = envs
        #: what the ``SamplerVecEnv`` shows
        self.vec_env_layer: EnvLayer = envs
        self._own: list[EnvLayer] = []
        for spec in own_layers:
            self.vec_env_layer = spec.build(self.vec_env_layer, envs)
            self._own.append(self.vec_env_layer)
        #: what the policy sees
        self.policy_layer: EnvLayer = self.vec_env_layer
        self._outer_layers: tuple[LayerSpec, ...] = ()
        # How many steps were made since those were put around.
        self._n_steps = 0
        # Those that were built and know where the environments are; the others are built when the next chunk begins.
        self._built: list[EnvLayer] = []
        #: whether what the environments show is the first observation of an episode, ``[B]``
        self.episode_starts = np.ones(envs.n_envs, dtype=bool)
        #: whether a step or a reset has failed, or there was none yet, so that it is unknown what the environments show
        self.needs_reset = True

    def describe(self) -> EnvDescription:
        layer, envs = self.vec_env_layer, self.envs
        return EnvDescription(
            layer.observation_space,
            layer.action_space,
            envs.metadata,
            envs.identities,
            envs.monitor_files,
            envs.resets_late,
            own_limit(envs.envs[0]) if envs.envs else None,
            can_limit(envs.envs),
            not isinstance(envs, SamplerEnvs),
        )

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Around a step or a reset of environments: an exception leaves them in the middle of it."""
        self.needs_reset = True
        yield
        self.needs_reset = False

    def wrap(self, layers: tuple[LayerSpec, ...], n_steps: int = 0) -> None:
        """
        Put layers around what the ``SamplerVecEnv`` shows. They are built when the next chunk begins, and continue
        from where the environments are.

        :param layers: from the inside to the outside
        :param n_steps: how many steps a sampler before this one has made with them
        """
        # Those below the first difference stay: they remember frames, episodes and the like.
        n_same = 0
        while n_same < min(len(layers), len(self._built)) and layers[n_same] == self._outer_layers[n_same]:
            n_same += 1
        self._outer_layers, self._n_steps = layers, n_steps
        self._keep_layers(n_same)

    def reset(self, seeds: Sequence[int | None], options: Sequence[dict[str, Any]]) -> None:
        """
        Start a new episode in every environment.

        :param seeds: one seed for each environment, or ``None``
        :param options: Gymnasium's reset options for each environment
        """
        with self.changing():
            self.policy_layer.reset(seeds, options)
            self.episode_starts[:] = True

    def step_in_lockstep(self, actions: np.ndarray, rewards: np.ndarray, on_info: OnInfo) -> None:
        """Step every environment once, as the ``SamplerVecEnv`` does in lockstep. The layers around it take no part."""
        self._keep_layers(0)
        self.step(actions, rewards, on_info)

    def step(self, actions: np.ndarray, rewards: np.ndarray, on_info: OnInfo) -> None:
        """Step every environment once, without a chunk: as the policy sees them, since :meth:`begin_evaluation`."""
        layer = self.policy_layer
        self.envs.tells_every_info = True
        with self.changing():
            layer.step(actions, layer.observations, rewards, self.episode_starts, on_info)
            layer.keep(layer.observations)
        self._n_steps += 1

    def begin_evaluation(
        self,
        layers: tuple[LayerSpec, ...],
        published: Mapping[str, np.ndarray],
        seeds: Sequence[int | None],
        options: Sequence[dict[str, Any]],
    ) -> None:
        """
        Start new episodes of the layer that the policy sees.

        :param layers: see :meth:`wrap`
        :param published: the statistics to normalise with
        :param seeds: one seed for each environment, or ``None``
        :param options: Gymnasium's reset options for each environment
        """
        self.wrap(layers)
        if self._normalizer is not None:
            self._normalizer.load_statistics(published)
        self._build_missing_layers(published)
        self.reset(seeds, options)

    def prepare(self, published: Mapping[str, np.ndarray], needs_every_info: bool) -> None:
        """
        Build the layers that are missing, and begin episodes if there are none.

        :param published: what the learner has published, statistics of observations and rewards among it
        :param needs_every_info: whether the infos of all steps are needed, or only those that end an episode
        """
        if self._normalizer is not None:
            self._normalizer.load_statistics(published)
        self._build_missing_layers(published)
        if self.needs_reset:
            self.reset([None] * self.envs.n_envs, [{}] * self.envs.n_envs)
        self.envs.tells_every_info = needs_every_info or self._infos_are_read()

    def begin_chunk(self, chunk: Chunk) -> None:
        """Get ready to step the layer that the policy sees, and to record into a chunk."""
        if self._normalizer is not None:
            self._normalizer.begin_chunk(chunk, is_outermost=self._normalizer is self.policy_layer)

    def end_chunk(self, chunk: Chunk, n_steps: int) -> None:
        """Note where the environments are after so many steps of a chunk."""
        self.policy_layer.keep(row(chunk.observations, n_steps))
        self.episode_starts[:] = chunk.episode_starts[n_steps]
        self._n_steps += n_steps

    def record_statistics(self, chunk: Chunk, n_steps: int) -> None:
        """Record what the learner needs to normalise with, of the first steps of a chunk."""
        if self._normalizer is not None:
            self._normalizer.record_statistics(chunk, n_steps)

    def close(self) -> None:
        """Close the environments, and write the video that is being recorded."""
        try:
            self.envs.close()
        finally:
            self._keep_layers(0)

    @property
    def _normalizer(self) -> NormalizedEnvs | None:
        return next((layer for layer in self._built if isinstance(layer, NormalizedEnvs)), None)

    def _infos_are_read(self) -> bool:
        """Whether a layer may look at any info."""
        return any(
            layer is not self.envs and not isinstance(layer, NormalizedEnvs | VideoRecorder)
            for layer in (*self._own, *self._built)
        )

    def _keep_layers(self, n_layers: int) -> None:
        """Forget all but the innermost of the outer layers."""
        for layer in self._built[n_layers:]:
            if isinstance(layer, VideoRecorder):
                layer.end()
        del self._built[n_layers:]
        self.policy_layer = self._built[-1] if self._built else self.vec_env_layer

    def _build_missing_layers(self, published: Mapping[str, np.ndarray]) -> None:
        for layer in self._outer_layers[len(self._built) :]:
            self.policy_layer = layer.build(self.policy_layer, self.envs)
            self._built.append(self.policy_layer)
            if isinstance(self.policy_layer, NormalizedEnvs):
                # Before the next layer looks at what it shows.
                self.policy_layer.load_statistics(published)
            elif isinstance(self.policy_layer, VideoRecorder):
                self.policy_layer.step_id += self._n_steps
