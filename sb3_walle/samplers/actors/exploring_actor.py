"""Runs the SB3 policy of an off-policy algorithm and explores with it: any policy, at torch's cost per call."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.noise import ActionNoise, VectorizedActionNoise

from sb3_walle.samplers.actors.exploration import EXPLORATION, ExplorationPlan
from sb3_walle.samplers.actors.protocol import RANDOM_STATE, actions_field
from sb3_walle.samplers.actors.random_streams import RandomStreams, global_state
from sb3_walle.samplers.actors.torch_policy import load_policy
from sb3_walle.transport.chunk import Chunk, Observations
from sb3_walle.transport.layout import Field


@dataclass(frozen=True)
class ExploringActorSpec:
    """
    How to build an :class:`ExploringActor`.

    :param policy: the pickled policy
    :param policy_names: those tensors of its ``state_dict()`` that decide its actions
    :param action_space: the policy's action space
    :param seed: what determines the random numbers; samplers need different ones
    :param action_dtype: data type in which scaled actions are recorded
    :param action_noise: added to scaled actions, of one environment; ``None`` for no noise
    :param is_epsilon_greedy: whether the algorithm takes a random action now and then
    :param fixed_rate: with which probability, if it is not what the learner plans
    :param sde_sample_freq: draw new gSDE noise every so many steps, -1 for once per rollout, ``None`` without gSDE
    :param shares_random_state: whether the random streams continue the learner's, and the learner's these
    :param replaces_dead: whether it takes the place of the actor of a sampler that died. The random state that it finds
        with its first weights is then one from which random numbers were drawn already
    """

    policy: bytes
    policy_names: tuple[str, ...]
    action_space: spaces.Space
    seed: tuple[int, ...]
    action_dtype: str = "<f4"
    action_noise: ActionNoise | None = None
    is_epsilon_greedy: bool = False
    fixed_rate: float | None = None
    sde_sample_freq: int | None = None
    shares_random_state: bool = False
    replaces_dead: bool = False

    @property
    def weight_names(self) -> tuple[str, ...]:
        return (*self.policy_names, *EXPLORATION, *((RANDOM_STATE,) if self.shares_random_state else ()))

    def fields(self, n_steps: int, n_envs: int) -> tuple[Field, ...]:
        """
        :return: ``actions``, scaled to [-1, 1] if they are continuous; and the random state after the last step, if it
            came with the weights
        """
        random_state = (_random_state_field(self.action_space),) if self.shares_random_state else ()
        return (actions_field(self.action_space, n_steps, n_envs, self.action_dtype), *random_state)

    def for_successor(self, incarnation: int) -> "ExploringActorSpec":
        return replace(self, seed=(*self.seed, incarnation), replaces_dead=True)

    def build(self, n_envs: int) -> "ExploringActor":
        return ExploringActor(self, n_envs)


class ExploringActor:
    """
    A copy of the learner's policy that chooses actions as SB3's ``OffPolicyAlgorithm._sample_action()`` does, with the
    same calls in the same order, so that one sampler computes what SB3 computes to the last bit.

    :param spec: the policy, and how to explore with it
    :param n_envs: environments of the sampler, B
    """

    def __init__(self, spec: ExploringActorSpec, n_envs: int) -> None:
        self.policy = load_policy(spec.policy)
        state = self.policy.state_dict()
        # They share the policy's memory.
        self._tensors = {name: state[name] for name in spec.policy_names}
        self.n_envs = n_envs
        self._plan = ExplorationPlan()
        self._streams = RandomStreams(spec.seed, spec.action_space)
        self._is_continuous = isinstance(spec.action_space, spaces.Box)
        self._noise = _noise_for(spec.action_noise, n_envs)
        self._is_epsilon_greedy = spec.is_epsilon_greedy
        self._fixed_rate = spec.fixed_rate
        self._sde_sample_freq = spec.sde_sample_freq
        self._ignores_random_state = spec.replaces_dead
        # Since weights were loaded, which happens once a rollout.
        self._n_steps = 0

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        if self._plan.load(weights) and self._noise is not None:
            self._noise.reset()
        self._n_steps = 0
        if RANDOM_STATE in weights:
            if not self._ignores_random_state:
                self._streams.state = weights[RANDOM_STATE]
            self._ignores_random_state = False
        with th.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(th.from_numpy(weights[name]))

    def begin_chunk(self, chunk: Chunk) -> None:
        self._chunk = chunk

    def act(self, observations: Observations, step: int) -> np.ndarray:
        is_random, rate = self._plan.next_step()
        if self._fixed_rate is not None:
            rate = self._fixed_rate
        with th.no_grad(), self._streams:
            self._resample_sde_noise()
            self._begin_episodes(self._chunk.episode_starts[step])
            actions = self._random_actions() if is_random else self._policy_actions(observations, rate)
            if self._is_continuous:
                actions = self.policy.scale_action(actions)
                if self._noise is not None:
                    actions = np.clip(actions + self._noise(), -1, 1)
        self._n_steps += 1
        self._chunk.actions[step] = actions
        return actions

    def bootstrap(self, terminal_observation: Observations, step: int, env: int) -> None:
        """Nothing is recorded: the learner computes values when it has sampled the step from its replay buffer."""

    def end_chunk(self, observations: Observations, n_steps: int) -> None:
        if RANDOM_STATE in self._chunk.arrays:
            self._chunk.arrays[RANDOM_STATE][...] = self._streams.state

    def _random_actions(self) -> np.ndarray:
        return np.array([self._streams.action_space.sample() for _ in range(self.n_envs)])

    def _policy_actions(self, observations: Observations, rate: float) -> np.ndarray:
        if self._is_epsilon_greedy and np.random.rand() < rate:
            return self._random_actions()
        actions, _ = self.policy.predict(observations, deterministic=False)
        return actions

    def _begin_episodes(self, episode_starts: np.ndarray) -> None:
        if self._noise is None or not episode_starts.any():
            return
        if isinstance(self._noise, VectorizedActionNoise):
            self._noise.reset(indices=np.flatnonzero(episode_starts).tolist())
        else:
            self._noise.reset()

    def _resample_sde_noise(self) -> None:
        """gSDE's noise, as often as SB3's ``collect_rollouts`` draws it: at the start, then every few steps."""
        if self._sde_sample_freq is None:
            return
        if self._n_steps == 0:
            self.policy.reset_noise(self.n_envs)  # type: ignore[operator]
        if self._sde_sample_freq > 0 and self._n_steps % self._sde_sample_freq == 0:
            self.policy.reset_noise(self.n_envs)  # type: ignore[operator]


def _random_state_field(action_space: spaces.Space) -> Field:
    return Field(RANDOM_STATE, global_state(action_space).shape, "|u1")


def _noise_for(noise: ActionNoise | None, n_envs: int) -> ActionNoise | None:
    # As SB3 does it, which leaves the noise of one environment as it is. A copy: this one has a state of its own.
    return deepcopy(noise) if noise is None or n_envs == 1 else VectorizedActionNoise(noise, n_envs)
