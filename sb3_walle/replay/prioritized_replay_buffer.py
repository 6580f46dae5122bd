"""A replay buffer that samples transitions the more often, the more there was to learn from them."""

from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_walle.errors import NonFiniteError
from sb3_walle.replay.n_step_returns import n_step_returns
from sb3_walle.replay.sum_tree import SumTree
from sb3_walle.sb3_private import normalized_observations, normalized_rewards

# Of transitions that are added before any error is known.
FIRST_PRIORITY = 1.0


class PrioritizedSamples(NamedTuple):
    """
    SB3's ``ReplayBufferSamples`` or ``DictReplayBufferSamples``, and what belongs to priorities.

    :param weights: by how much each sample counts in the loss, ``[B, 1]``, at most 1
    :param indices: where priorities are updated, ``[B]``
    """

    observations: Any
    actions: th.Tensor
    next_observations: Any
    dones: th.Tensor
    rewards: th.Tensor
    discounts: th.Tensor | None
    weights: th.Tensor
    indices: np.ndarray


class PrioritizedReplayBuffer(DictReplayBuffer):
    """
    Prioritised experience replay, proportional variant (Schaul et al., 2016, https://arxiv.org/abs/1511.05952), for
    array and ``Dict`` observations.

    Samples transition i with the probability P(i) = p_i^alpha / sum_k p_k^alpha, one from each of ``batch_size``
    equal shares of the sum. Its priority is p_i = abs(error) + ``min_priority``, with the temporal-difference error
    that it had when it was last sampled. A new transition has the greatest priority so far. Losses are multiplied by
    w_i = (N P(i))^-beta, divided by the largest weight of the minibatch. N is the number of transitions; beta changes
    linearly to ``final_beta`` while ``learn()`` runs.

    An update has to weight its losses and to return errors for all that. :class:`~sb3_walle.AsyncDQN` does both. With
    any other algorithm, :meth:`sample` is an error.

    .. code-block:: python

        model = AsyncDQN(
            "MlpPolicy",
            "CartPole-v1",
            replay_buffer_class=PrioritizedReplayBuffer,
            replay_buffer_kwargs={"alpha": 0.6, "beta": 0.4},
        )

    :param buffer_size: as in SB3
    :param observation_space: as in SB3
    :param action_space: as in SB3
    :param device: as in SB3
    :param n_envs: as in SB3
    :param optimize_memory_usage: as in SB3, for array observations and ``n_steps=1``
    :param handle_timeout_termination: as in SB3
    :param alpha: how much priorities decide, from 0 (nothing: uniform sampling) to 1
    :param beta: how much weights correct for that when ``learn()`` begins, from 0 (nothing) to 1
    :param final_beta: the same when ``learn()`` ends
    :param min_priority: the priority of transitions without error, so that they are still sampled
    :param n_steps: steps of a return, as in SB3's ``NStepReplayBuffer``
    :param gamma: discount factor within a return; of no importance for ``n_steps=1``
    :raises ValueError: if one of these arguments is out of range
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        alpha: float = 0.6,
        beta: float = 0.4,
        final_beta: float = 1.0,
        min_priority: float = 1e-6,
        n_steps: int = 1,
        gamma: float = 0.99,
    ) -> None:
        self._stored_by(observation_space).__init__(
            buffer_size,
            observation_space,
            action_space,
            device,
            n_envs,
            optimize_memory_usage=optimize_memory_usage,
            handle_timeout_termination=handle_timeout_termination,
        )
        self.alpha, self.beta, self.final_beta, self.min_priority = alpha, beta, final_beta, min_priority
        self.n_steps, self.gamma = n_steps, gamma
        self._check_arguments()
        self._forget_priorities()

    def _check_arguments(self) -> None:
        for name in ("alpha", "beta", "final_beta"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        if not 0 < self.min_priority < np.inf:
            raise ValueError(
                f"min_priority must be a number above 0, got {self.min_priority}: what has no priority is never sampled"
            )
        if self.n_steps < 1:
            raise ValueError(f"n_steps must be at least 1, got {self.n_steps}")
        if self.n_steps > 1 and self.optimize_memory_usage:
            raise ValueError(
                f"n_steps={self.n_steps} needs the next observation of each step, which optimize_memory_usage=True "
                "does not store. Leave out one of them."
            )

    def _stored_by(self, observation_space: spaces.Space) -> Any:
        """What stores transitions: ``DictReplayBuffer``, or for arrays the ``ReplayBuffer`` behind it."""
        return super() if isinstance(observation_space, spaces.Dict) else super(DictReplayBuffer, self)

    def _forget_priorities(self) -> None:
        #: the greatest priority so far
        self.max_priority = FIRST_PRIORITY
        # Of column e in row r at r * n_envs + e, each to the power of alpha.
        self._priorities = SumTree(self.buffer_size * self.n_envs)

    def reset(self) -> None:
        """Empty the buffer, as in SB3."""
        super().reset()
        self._forget_priorities()

    def add(self, *args: Any, **kwargs: Any) -> None:
        """As in SB3. The new transitions have the greatest priority so far."""
        added = self.pos
        self._stored_by(self.observation_space).add(*args, **kwargs)
        self._priorities[self._indices(added)] = self.max_priority**self.alpha
        if self.optimize_memory_usage:
            # What the newest step has led to stands there, in the place of the oldest one.
            self._priorities[self._indices(self.pos)] = 0.0

    def _indices(self, row: int) -> np.ndarray:
        return row * self.n_envs + np.arange(self.n_envs)

    @property
    def priorities(self) -> np.ndarray:
        """
        What sampling is proportional to, priorities to the power of ``alpha``, ``[buffer_size, n_envs]``; 0 where
        nothing is to be sampled.
        """
        return self._priorities[np.arange(self.buffer_size * self.n_envs)].reshape(self.buffer_size, self.n_envs)

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> NoReturn:
        """
        What updates call that know nothing of priorities.

        :raises RuntimeError: always
        """
        raise RuntimeError(
            "The update of this algorithm can make nothing of a PrioritizedReplayBuffer: it neither weights its losses "
            "nor returns errors to the buffer, which updates of Stable-Baselines3 do not do. Train with "
            "sb3_walle.AsyncDQN, or with another replay_buffer_class. An update of your own calls sample_weighted() "
            "and update_priorities()."
        )

    def sample_weighted(
        self, batch_size: int, env: VecNormalize | None = None, progress_remaining: float = 1.0
    ) -> PrioritizedSamples:
        """
        Sample by priorities, with NumPy's global random stream, as SB3 does.

        :param batch_size: number of samples B
        :param env: normalises observations and rewards
        :param progress_remaining: the share of ``learn()`` that is left, from 1 to 0: determines beta
        :return: the samples
        :raises ValueError: if the buffer is empty
        """
        total = self._priorities.total
        if total == 0:
            raise ValueError("The replay buffer is empty: there is nothing to sample.")
        shares = (np.arange(batch_size) + np.random.random(batch_size)) / batch_size
        indices = self._priorities.find(shares * total)
        # N and the sum of all priorities are the same for all weights, and so do not change their ratios.
        priorities = self._priorities[indices]
        weights = (priorities / priorities.min()) ** -self._beta(progress_remaining)
        transitions = self._get_samples(indices, env)._asdict()
        column = self.to_torch(weights.astype(np.float32).reshape(-1, 1))
        return PrioritizedSamples(**transitions, weights=column, indices=indices)

    def update_priorities(self, indices: np.ndarray, errors: np.ndarray | th.Tensor) -> None:
        """
        Note what an update has found.

        :param indices: those of :class:`PrioritizedSamples`, ``[B]``
        :param errors: temporal-difference errors of the same samples, ``[B]`` or ``[B, 1]``
        :raises NonFiniteError: if an error is not finite
        """
        found = errors.detach().cpu().numpy() if isinstance(errors, th.Tensor) else errors
        priorities = np.abs(found.reshape(-1).astype(np.float64)) + self.min_priority
        greatest = float(priorities.max())
        if not np.isfinite(greatest):
            raise NonFiniteError(
                "Temporal-difference errors are NaN or infinite, which makes no priorities: the network has diverged. "
                "Lower the learning rate, and check that observations and rewards are finite and not huge. "
                "check_nan=True stops before the weights are lost."
            )
        self._priorities[indices] = priorities**self.alpha
        self.max_priority = max(self.max_priority, greatest)

    def _beta(self, progress_remaining: float) -> float:
        return self.final_beta + progress_remaining * (self.beta - self.final_beta)

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> Any:
        """As in SB3, but the indices are those of transitions, column by column in each row."""
        rows, envs = np.divmod(batch_inds, self.n_envs)
        last, discounts = rows, None
        if self.n_steps == 1:
            rewards = normalized_rewards(self, self.rewards[rows, envs].reshape(-1, 1), env)
        else:
            last, rewards, discounts = n_step_returns(self, rows, envs, env)
        return DictReplayBufferSamples(
            self._observations_at(self.observations, rows, envs, env),
            self.to_torch(self.actions[rows, envs]),
            self._next_observations_at(last, envs, env),
            # An episode that a time limit has ended would have continued.
            self.to_torch((self.dones[last, envs] * (1 - self.timeouts[last, envs])).reshape(-1, 1)),
            self.to_torch(rewards),
            None if discounts is None else self.to_torch(discounts),
        )

    def _next_observations_at(self, rows: np.ndarray, envs: np.ndarray, env: VecNormalize | None) -> Any:
        if self.optimize_memory_usage:
            return self._observations_at(self.observations, (rows + 1) % self.buffer_size, envs, env)
        return self._observations_at(self.next_observations, rows, envs, env)

    def _observations_at(self, stored: Any, rows: np.ndarray, envs: np.ndarray, env: VecNormalize | None) -> Any:
        if not isinstance(stored, dict):
            return self.to_torch(normalized_observations(self, stored[rows, envs], env))
        found = {key: array[rows, envs] for key, array in stored.items()}
        return {key: self.to_torch(part) for key, part in normalized_observations(self, found, env).items()}
