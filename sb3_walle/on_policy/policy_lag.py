"""Learning from what an older policy did."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.utils import obs_as_tensor

from sb3_walle.on_policy.advantages import accumulate
from sb3_walle.on_policy.rollout_buffer import is_sb3s_own
from sb3_walle.on_policy.values import flattened
from sb3_walle.transport.chunk import between

# As in V-trace. An action that the policy has come to like much better counts no more than any other.
MAX_IMPORTANCE_WEIGHT = 1.0
# Where the policy before the update has left an action further behind, the ratio is one to the policy that chose it:
# the slightest change of a policy changes the log-probability of what it hardly ever does by any amount, so that the
# other ratio would overflow, and make NaN of an advantage of 0.
MAX_LOG_RATIO = 5.0
# Enough for full speed, and images of as many samples still fit into memory.
SAMPLES_AT_ONCE = 2048


def _no_arguments(rows: range) -> dict[str, Any]:
    return {}


def correct_for_policy_lag(
    buffer: RolloutBuffer,
    policy: BasePolicy,
    normalizes_advantages: bool,
    arguments: Callable[[range], dict[str, Any]] = _no_arguments,
) -> float:
    """
    Prepare a rollout of older policies for PPO's update.

    The objective becomes the decoupled one of Hilton, Cobbe & Schulman (2022, "Batch size-invariance for policy
    optimization", https://arxiv.org/abs/2110.00641). In PPO, one policy has two roles: it chose the actions, and the
    new policy must stay close to it. With a policy lag these are two policies. If the new one had to stay close to the
    one that chose the actions, which the policy has already left with the update before, two updates would have to
    share the way of one. So the ratio that is clipped is made one to the policy as it is before the update, and the
    advantages are weighted with its ratio to the policy that chose the actions.

    Advantages and returns become those of V-trace (Espeholt et al., 2018, "IMPALA",
    https://arxiv.org/abs/1802.01561), see :func:`correct_traces`, unless the buffer is of a class that may estimate
    them in a way of its own.

    Where the update is going to subtract their mean from advantages, it is taken out before they are weighted. For
    actions of the policy itself, a constant in all advantages changes nothing on average. For another policy's actions,
    it would make them more likely or less, however good they were.

    :param buffer: a complete rollout buffer, whose ``log_probs`` are of the policies that chose the actions, and whose
        ``log_probs``, ``advantages`` and ``returns`` are changed, ``[n_steps, n_envs]``
    :param policy: the policy before the update
    :param normalizes_advantages: whether the update normalises advantages
    :param arguments: see :func:`log_probs_of`
    :return: how much a step counts on average, from 0 to 1
    """
    behaviour = buffer.log_probs
    log_probs = log_probs_of(buffer, policy, arguments)
    with np.errstate(over="ignore"):
        weights = np.exp(log_probs - behaviour)
    weights = np.minimum(weights, MAX_IMPORTANCE_WEIGHT)
    buffer.log_probs = np.maximum(log_probs, behaviour - MAX_LOG_RATIO)
    if is_sb3s_own(buffer):
        correct_traces(buffer, weights)
    # Updates leave a single advantage as it is.
    subtracts_mean = normalizes_advantages and weights.size > 1
    mean = _weighted_mean(buffer.advantages, weights) if subtracts_mean else np.float32(0.0)
    buffer.advantages = weights * (buffer.advantages - mean)
    return float(weights.mean())


def correct_traces(buffer: RolloutBuffer, weights: np.ndarray) -> None:
    """
    Make estimates of what a policy is worth from steps of others: the less it would take a step, the less counts what
    came with and after it.

    Returns become V-trace (Espeholt et al., 2018, eq. 1, with the lambda of remark 2). Advantages are accumulated with
    the same traces; like those of GAE, they are for an action that was taken, and so are not weighted with how likely
    that one is.

    :param buffer: a rollout buffer of SB3's own with GAE's advantages, whose ``advantages`` and ``returns`` are changed
    :param weights: importance weights of at most 1, ``[n_steps, n_envs]``
    """
    discounts = buffer.gamma * buffer.gae_lambda * (1.0 - buffer.episode_starts[1:])
    # Temporal-difference errors are what GAE has added up. They cannot be worked out again: the buffer does not hold
    # the value of what came after its last row.
    errors = buffer.advantages.copy()
    errors[:-1] -= discounts * buffer.advantages[1:]
    advantages = np.empty_like(errors)
    accumulate(errors, np.concatenate([discounts * weights[1:], np.zeros_like(errors[:1])]), advantages)
    buffer.advantages = advantages
    buffer.returns = buffer.values + weights * advantages


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.float32:
    total = weights.sum(dtype=np.float64)
    # A policy may have left all that was done.
    return np.float32((weights * values).sum(dtype=np.float64) / total) if total > 0 else np.float32(0.0)


def log_probs_of(
    buffer: RolloutBuffer, policy: BasePolicy, arguments: Callable[[range], dict[str, Any]] = _no_arguments
) -> np.ndarray:
    """
    :param arguments: what ``evaluate_actions()`` takes by name beyond observations and actions, for all steps of some
        rows of the buffer, one row after the other
    :return: log-probabilities of a complete buffer's actions under the policy, ``[n_steps, n_envs]``
    """
    rows_at_once = max(1, SAMPLES_AT_ONCE // buffer.n_envs)
    log_probs = np.empty_like(buffer.log_probs)
    for start in range(0, buffer.buffer_size, rows_at_once):
        rows = range(start, min(start + rows_at_once, buffer.buffer_size))
        observations = obs_as_tensor(flattened(between(buffer.observations, rows), 2), policy.device)
        # As the buffer hands them to an update: float32 for every action space.
        actions = th.as_tensor(flattened(between(buffer.actions, rows), 2), dtype=th.float32, device=policy.device)
        if isinstance(policy.action_space, spaces.Discrete):
            actions = actions.long().flatten()
        with th.no_grad():
            found = _log_probs(policy, observations, actions, arguments(rows))
        log_probs[start : rows.stop] = found.cpu().numpy().reshape(-1, buffer.n_envs)
    return log_probs


def _log_probs(policy: BasePolicy, observations: Any, actions: th.Tensor, arguments: dict[str, Any]) -> th.Tensor:
    # SB3's evaluate_actions() computes values and entropies, too, which take as long as the rest.
    own = (ActorCriticPolicy.evaluate_actions, ActorCriticPolicy.get_distribution)
    if (_function(policy, "evaluate_actions"), _function(policy, "get_distribution")) == own:
        return policy.get_distribution(observations).log_prob(actions)  # type: ignore[operator]
    return policy.evaluate_actions(observations, actions, **arguments)[1]  # type: ignore[operator]


def _function(policy: BasePolicy, name: str) -> Any:
    return getattr(getattr(policy, name, None), "__func__", None)
