"""sb3-contrib's rollout buffers of recurrent policies, for rollouts whose columns may change the environment."""

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib.common.recurrent import buffers
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import obs_as_tensor

from sb3_walle.samplers.actors.lstm_states import LSTM_STATES
from sb3_walle.transport.chunk import row

# Stands in front of both of sb3-contrib's buffers.
if TYPE_CHECKING:
    _Base = buffers.RecurrentRolloutBuffer
else:
    _Base = object


class SequenceStarts(_Base):
    """
    Tells the beginning of a sequence from that of an episode.

    For sb3-contrib's buffers, a sequence begins where ``episode_starts`` says so, with states of zero. In mode
    ``"free"`` a column may continue with the steps of another environment, in the middle of its episode. There, a
    sequence begins with the states that were recorded.
    """

    def reset(self) -> None:
        super().reset()
        #: where states are zero: the first step of an episode, ``[n_steps, n_envs]``
        self.state_resets = np.zeros((self.buffer_size, self.n_envs), np.float32)

    def add(self, *args: Any, **kwargs: Any) -> None:
        """As in sb3-contrib, whose sequences begin with an episode."""
        _, _, _, self.state_resets[self.pos], *_ = args
        super().add(*args, **kwargs)

    def get(self, batch_size: int | None = None) -> Generator[Any, None, None]:
        if not self.generator_ready:
            self.state_resets = self.swap_and_flatten(self.state_resets)
        yield from super().get(batch_size)

    def _get_samples(self, batch_inds: np.ndarray, *args: Any, **kwargs: Any) -> Any:
        samples = super()._get_samples(batch_inds, *args, **kwargs)
        return samples._replace(episode_starts=self.pad_and_flatten(self.state_resets[batch_inds]))


class RecurrentRolloutBuffer(SequenceStarts, buffers.RecurrentRolloutBuffer):
    """sb3-contrib's, with :class:`SequenceStarts`."""


class RecurrentDictRolloutBuffer(SequenceStarts, buffers.RecurrentDictRolloutBuffer):
    """sb3-contrib's for dictionaries, with :class:`SequenceStarts`."""


def new_recurrent_rollout_buffer(algorithm: OnPolicyAlgorithm, state_shape: tuple[int, int]) -> SequenceStarts:
    """
    :param state_shape: number of layers of an LSTM, and number of its units
    :return: a buffer for the algorithm's present number of environments
    """
    is_dict = isinstance(algorithm.observation_space, spaces.Dict)
    n_layers, n_units = state_shape
    buffer_class: type[Any] = RecurrentDictRolloutBuffer if is_dict else RecurrentRolloutBuffer
    return buffer_class(
        algorithm.n_steps,
        algorithm.observation_space,
        algorithm.action_space,
        (algorithm.n_steps, n_layers, algorithm.n_envs, n_units),
        algorithm.device,
        gamma=algorithm.gamma,
        gae_lambda=algorithm.gae_lambda,
        n_envs=algorithm.n_envs,
    )


def states_of_rows(buffer: SequenceStarts, rows: range, device: th.device) -> RNNStates:
    """:return: the states before all steps of some rows, one row after the other, ``[n_layers, n_samples, n_units]``"""

    def joined(name: str) -> th.Tensor:
        states = getattr(buffer, name)[rows.start : rows.stop].swapaxes(0, 1)
        return th.as_tensor(states.reshape(len(states), -1, states.shape[-1]), device=device)

    hidden_pi, cell_pi, hidden_vf, cell_vf = map(joined, LSTM_STATES)
    return RNNStates((hidden_pi, cell_pi), (hidden_vf, cell_vf))


def renew_memory(buffer: SequenceStarts, policy: RecurrentActorCriticPolicy) -> RNNStates:
    """
    Replace the states and values in a complete buffer, which older policies had, by those that a policy has for the
    same observations, from where a sequence begins.

    :param policy: the policy before the update
    :return: the states after the last row, ``[n_layers, n_envs, n_units]`` each
    """
    device, states = policy.device, states_of_rows(buffer, range(1), policy.device)
    for step in range(buffer.buffer_size):
        # In the middle of another environment's episode: there is nothing before to go through.
        begins = (buffer.episode_starts[step] > 0) & (buffer.state_resets[step] == 0)
        for name, state in zip(LSTM_STATES, (*states.pi, *states.vf), strict=True):
            getattr(buffer, name)[step][:, ~begins] = state.cpu().numpy()[:, ~begins]
        with th.no_grad():
            _, values, _, states = policy.forward(
                obs_as_tensor(row(buffer.observations, step), device),  # type: ignore[arg-type]
                states_of_rows(buffer, range(step, step + 1), device),
                th.as_tensor(buffer.state_resets[step], device=device),
                deterministic=True,
            )
        buffer.values[step] = values.cpu().numpy().flatten()
    return states
