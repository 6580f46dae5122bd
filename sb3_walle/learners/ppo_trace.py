"""From an algorithm to its traced step."""

from collections.abc import Hashable
from typing import NamedTuple

import torch as th
from stable_baselines3.ppo import PPO
from torch.fx import GraphModule

from sb3_walle.learners.adam import AdamSettings
from sb3_walle.learners.flat import FlatLayout
from sb3_walle.learners.minibatches import check_buffer, example_minibatch, observation_keys
from sb3_walle.learners.ppo_objective import COEFFICIENTS, PPOVariant
from sb3_walle.learners.ppo_step import LIMITS, PolicyTensors, PPOStep, StepState, policy_tensors
from sb3_walle.learners.trace import copied_policy, has_hooks, random_states_kept, traced

N_ADAM_COEFFICIENTS = 3


class TracedStep(NamedTuple):
    """
    One minibatch of an algorithm, in two forms.

    :param step: as a function that calls the policy
    :param graph: as a graph of operators
    :param inputs: an example of what both take
    :param batch_size: samples of the minibatch
    """

    step: PPOStep
    graph: GraphModule
    inputs: list[th.Tensor]
    batch_size: int

    @property
    def n_in_place(self) -> int:
        """How many of the inputs, the first ones, are changed in place."""
        return 2 + len(self.step.adam.moments) + len(self.step.tensors.buffers)

    @property
    def observations(self) -> list[th.Tensor]:
        """Those of the inputs that are observations."""
        first = self.n_in_place + len(self.step.tensors.fixed)
        return self.inputs[first : first + self.step.n_observations]


def minibatch_size(algorithm: PPO) -> int:
    """
    :param algorithm: an algorithm
    :return: samples of all of its minibatches but perhaps the last
    """
    return min(algorithm.batch_size, algorithm.rollout_buffer.buffer_size * algorithm.rollout_buffer.n_envs)


def what_decides(algorithm: PPO) -> Hashable:
    """
    :param algorithm: an algorithm
    :return: what its traced step depends on; if it changes, another trace is needed
    :raises Unsupported: if it cannot be traced
    """
    policy, buffer = algorithm.policy, algorithm.rollout_buffer
    check_buffer(buffer)
    # One sample tells the types and shapes.
    kinds = tuple((tensor.dtype, tensor.shape) for tensor in example_minibatch(buffer, 1, policy.device))
    return (
        id(policy),
        id(policy.optimizer),
        AdamSettings.of(policy.optimizer),
        _variant(algorithm),
        minibatch_size(algorithm),
        observation_keys(buffer),
        kinds,
        tuple((id(parameter), parameter.requires_grad) for parameter in policy.parameters()),
        has_hooks(policy),
        policy.device,
    )


def trace_ppo(algorithm: PPO) -> TracedStep:
    """
    :param algorithm: an algorithm that has been set up
    :return: its step
    :raises Unsupported: if it cannot be traced
    """
    policy, buffer = algorithm.policy, algorithm.rollout_buffer
    check_buffer(buffer)
    adam, variant = AdamSettings.of(policy.optimizer), _variant(algorithm)
    copied, probed = copied_policy(policy), copied_policy(policy)
    for each in (copied, probed):
        # As it is during an update. After a rollout it is in evaluation mode.
        each.set_training_mode(True)
    batch_size = minibatch_size(algorithm)
    dtype = next(policy.parameters()).dtype
    numbers = (len(COEFFICIENTS), len(LIMITS), N_ADAM_COEFFICIENTS)
    coefficients = [th.zeros(n, dtype=dtype, device=policy.device) for n in numbers]
    minibatch = [*example_minibatch(buffer, batch_size, policy.device), *coefficients]

    def step(of: th.nn.Module, tensors: PolicyTensors, layout: FlatLayout) -> PPOStep:
        return PPOStep(of, tensors, layout, observation_keys(buffer), variant, adam)  # type: ignore[arg-type]

    probe = step(probed, PolicyTensors((), (), ()), FlatLayout([]))
    with random_states_kept(policy.device):
        tensors = policy_tensors(policy, probed, lambda: probe.objective(minibatch).loss)
    parameters, buffers = dict(policy.named_parameters()), dict(policy.named_buffers())
    trained = [parameters[name] for name in tensors.trained]
    layout = FlatLayout(trained)
    vector = FlatLayout.flatten(trained)
    moments = tuple(vector for _ in adam.moments)
    state = StepState(vector, moments, vector, tuple(buffers[name] for name in tensors.buffers))
    fixed = [parameters[name].detach() for name in tensors.fixed]
    inputs = [*state.clone().tensors(), *fixed, *minibatch]
    with random_states_kept(policy.device):
        graph = traced(step(copied, tensors, layout), inputs)
    return TracedStep(step(policy, tensors, layout), graph, inputs, batch_size)


def _variant(algorithm: PPO) -> PPOVariant:
    return PPOVariant(algorithm.normalize_advantage, algorithm.clip_range_vf is not None)
