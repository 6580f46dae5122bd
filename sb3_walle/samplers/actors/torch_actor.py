"""Runs the SB3 policy itself: any policy, at torch's cost per call."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_walle.samplers.actors.protocol import (
    BOOTSTRAP_VALUES,
    LAST_VALUES,
    LOG_PROBS,
    RANDOM_STATE,
    VALUES,
    actions_field,
)
from sb3_walle.samplers.actors.torch_policy import aligned_tensors, load_policy
from sb3_walle.transport.chunk import Chunk, Observations
from sb3_walle.transport.layout import Field


@dataclass(frozen=True)
class TorchActorSpec:
    """
    How to build a :class:`TorchActor`.

    :param policy: the pickled policy
    :param weight_names: tensors of its ``state_dict()``
    :param action_space: the policy's action space
    :param seed: what determines the random numbers; samplers need different ones. If the weights bring a
        :data:`~sb3_walle.samplers.actors.protocol.RANDOM_STATE`, torch's random stream continues from there instead,
        and chunks take it back.
    :param sde_sample_freq: draw new gSDE noise every so many steps, -1 for once per rollout, ``None`` without gSDE
    :param n_rollout_steps: steps of a rollout, after which gSDE noise is drawn anew
    :param replaces_dead: whether it takes the place of the actor of a sampler that died. The random state that it finds
        with its first weights is then one from which random numbers were drawn already
    """

    policy: bytes
    weight_names: tuple[str, ...]
    action_space: spaces.Space
    seed: tuple[int, ...]
    sde_sample_freq: int | None = None
    n_rollout_steps: int = 1
    replaces_dead: bool = False

    def fields(self, n_steps: int, n_envs: int) -> tuple[Field, ...]:
        """
        :return: ``actions`` and ``log_probs``; ``values`` of the observations; ``bootstrap_values`` of the last
            observation of each episode that was truncated, zero elsewhere; ``last_values`` of what the last step led
            to, ``[B]``; and torch's random state after the last step, if it came with the weights
        """
        per_step = (n_steps, n_envs)
        return (
            actions_field(self.action_space, n_steps, n_envs),
            Field(LOG_PROBS, per_step, "<f4"),
            Field(VALUES, per_step, "<f4"),
            Field(BOOTSTRAP_VALUES, per_step, "<f4"),
            Field(LAST_VALUES, (n_envs,), "<f4"),
            *((Field(RANDOM_STATE, (len(th.get_rng_state()),), "|u1"),) if RANDOM_STATE in self.weight_names else ()),
        )

    def for_successor(self, incarnation: int) -> "TorchActorSpec":
        return replace(self, seed=(*self.seed, incarnation), replaces_dead=True)

    def build(self, n_envs: int) -> "TorchActor":
        return TorchActor(self, n_envs)


class TorchActor:
    """
    A copy of the learner's policy.

    It makes the calls that SB3's ``collect_rollouts`` makes, with the same batch shapes, so that one sampler computes
    what SB3 computes to the last bit. One forward pass gives actions, values and log-probabilities.

    :param spec: the policy and where its random stream begins
    :param n_envs: environments of the sampler, B
    """

    def __init__(self, spec: TorchActorSpec, n_envs: int) -> None:
        self.policy = cast(ActorCriticPolicy, load_policy(spec.policy))
        state = self.policy.state_dict()
        # What a module says of itself beyond its tensors (its "extra state") stays as it was when the policy was moved.
        self._extra_state = {name: value for name, value in state.items() if name not in spec.weight_names}
        self.n_envs = n_envs
        self._random_stream = _RandomStream(spec.seed)
        self._ignores_random_state = spec.replaces_dead
        self._sde_sample_freq = spec.sde_sample_freq
        self._n_rollout_steps = spec.n_rollout_steps
        self._rollout_step = 0

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        tensors = {name: th.from_numpy(array) for name, array in weights.items()}
        if RANDOM_STATE in tensors:
            state = tensors.pop(RANDOM_STATE).clone()
            if not self._ignores_random_state:
                self._random_stream.state = state
            self._ignores_random_state = False
        self.policy.load_state_dict({**self._extra_state, **tensors})
        # gSDE's noise depends on the weights, and so do the log-probabilities that are recorded.
        self._rollout_step = 0

    def begin_chunk(self, chunk: Chunk) -> None:
        self._chunk = chunk
        self._log_probs, self._values = chunk.arrays[LOG_PROBS], chunk.arrays[VALUES]
        self._bootstrap_values = chunk.arrays[BOOTSTRAP_VALUES]
        self._bootstrap_values[...] = 0.0

    def act(self, observations: Observations, step: int) -> np.ndarray:
        with th.no_grad(), self._random_stream:
            self._resample_noise()
            actions, values, log_probs = self._forward(aligned_tensors(observations), step)
        self._rollout_step = (self._rollout_step + 1) % self._n_rollout_steps
        self._values[step] = values.numpy().reshape(-1)
        self._log_probs[step] = log_probs.numpy()
        self._chunk.actions[step] = chosen = actions.numpy()
        return chosen

    def bootstrap(self, terminal_observation: Observations, step: int, env: int) -> None:
        with th.no_grad():
            tensor, _ = self.policy.obs_to_tensor(terminal_observation)
            self._bootstrap_values[step, env] = self._terminal_value(tensor, env).item()

    def end_chunk(self, observations: Observations, n_steps: int) -> None:
        with th.no_grad():
            values = self._values_after(aligned_tensors(observations), n_steps)
        self._chunk.arrays[LAST_VALUES][...] = values.numpy().reshape(-1)
        if RANDOM_STATE in self._chunk.arrays:
            self._chunk.arrays[RANDOM_STATE][...] = self._random_stream.state.numpy()

    def _forward(self, observations: PyTorchObs, step: int) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """:return: actions, values and log-probabilities of one step of all environments"""
        return self.policy(observations)

    def _terminal_value(self, observation: PyTorchObs, env: int) -> th.Tensor:
        """
        :param observation: the last one of an episode, ``[1, ...]``
        :param env: whose episode it was
        :return: its value, ``[1]``
        """
        return self.policy.predict_values(observation)[0]

    def _values_after(self, observations: PyTorchObs, n_steps: int) -> th.Tensor:
        """:return: values of what a chunk of so many steps led to, ``[B, 1]``"""
        return self.policy.predict_values(observations)

    def _resample_noise(self) -> None:
        """gSDE's noise, as often as SB3's ``collect_rollouts`` draws it: at the start, then every few steps."""
        if self._sde_sample_freq is None:
            return
        if self._rollout_step == 0:
            self.policy.reset_noise(self.n_envs)
        if self._sde_sample_freq > 0 and self._rollout_step % self._sde_sample_freq == 0:
            self.policy.reset_noise(self.n_envs)


class _RandomStream:
    """
    A random stream of an actor's own.

    torch's distributions draw from the one global generator. Where several samplers, or a sampler and the learner,
    live in one process, each would otherwise see the draws of the others.

    :param seed: what determines where the stream begins
    """

    def __init__(self, seed: tuple[int, ...]) -> None:
        generator = th.Generator()
        generator.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(1)))
        #: where it is at present
        self.state = generator.get_state()

    def __enter__(self) -> None:
        self._others = th.get_rng_state()
        th.set_rng_state(self.state)

    def __exit__(self, *exception: object) -> None:
        self.state = th.get_rng_state()
        th.set_rng_state(self._others)
