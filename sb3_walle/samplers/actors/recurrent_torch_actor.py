"""Runs a policy of sb3-contrib's RecurrentPPO, and keeps the states of its LSTMs from one step to the next."""

from dataclasses import dataclass

import numpy as np
import torch as th
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_walle.samplers.actors.lstm_states import LSTM_STATES, lstm_fields
from sb3_walle.samplers.actors.torch_actor import TorchActor, TorchActorSpec
from sb3_walle.transport.chunk import Chunk
from sb3_walle.transport.layout import Field


@dataclass(frozen=True)
class RecurrentTorchActorSpec(TorchActorSpec):
    """
    How to build a :class:`RecurrentTorchActor`.

    :param state_shape: number of layers of an LSTM, and number of its units
    """

    state_shape: tuple[int, int] = (1, 1)

    def fields(self, n_steps: int, n_envs: int) -> tuple[Field, ...]:
        """:return: those of any policy, and the states before each step, ``[T, B, n_layers, n_units]``"""
        return (*super().fields(n_steps, n_envs), *lstm_fields(n_steps, n_envs, *self.state_shape))

    def build(self, n_envs: int) -> "RecurrentTorchActor":
        return RecurrentTorchActor(self, n_envs)


class RecurrentTorchActor(TorchActor):
    """
    A copy of the learner's policy with the states of its LSTMs, which are zero at first, and continue from one chunk to
    the next. The policy itself begins an episode with states of zero.
    """

    policy: RecurrentActorCriticPolicy

    def __init__(self, spec: RecurrentTorchActorSpec, n_envs: int) -> None:
        super().__init__(spec, n_envs)
        n_layers, n_units = spec.state_shape
        self._states = RNNStates(*((_zeros(n_layers, n_envs, n_units), _zeros(n_layers, n_envs, n_units)),) * 2)

    def begin_chunk(self, chunk: Chunk) -> None:
        super().begin_chunk(chunk)
        # As the states are laid out, ``[n_layers, B, n_units]`` a step.
        self._recorded = [chunk.arrays[name].swapaxes(1, 2) for name in LSTM_STATES]

    def _forward(self, observations: PyTorchObs, step: int) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        for rows, state in zip(self._recorded, (*self._states.pi, *self._states.vf), strict=True):
            rows[step] = state.numpy()
        starts = _as_floats(self._chunk.episode_starts[step])
        actions, values, log_probs, self._states = self.policy(observations, self._states, starts)
        return actions, values, log_probs

    def _terminal_value(self, observation: PyTorchObs, env: int) -> th.Tensor:
        hidden, cell = (state[:, env : env + 1].contiguous() for state in self._states.vf)
        return self._predict_values(observation, hidden, cell, th.zeros(1))[0]

    def _values_after(self, observations: PyTorchObs, n_steps: int) -> th.Tensor:
        starts = _as_floats(self._chunk.episode_starts[n_steps])
        hidden, cell = self._states.vf
        return self._predict_values(observations, hidden, cell, starts)

    def _predict_values(
        self, observations: PyTorchObs, hidden: th.Tensor, cell: th.Tensor, starts: th.Tensor
    ) -> th.Tensor:
        return self.policy.predict_values(observations, (hidden, cell), starts)  # type: ignore[arg-type]


def _zeros(*shape: int) -> th.Tensor:
    return th.zeros(shape)


def _as_floats(episode_starts: np.ndarray) -> th.Tensor:
    return th.tensor(episode_starts, dtype=th.float32)
