"""From an algorithm's update to graphs of operators."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch.fx import GraphModule

from sb3_walle.updates.algorithm_update import AlgorithmUpdate
from sb3_walle.updates.global_state import random_states_kept
from sb3_walle.updates.parameter_groups import ParameterGroup
from sb3_walle.updates.step import State, StepSpec, UpdateStep
from sb3_walle.updates.tracing import copied_policy, trace

N_ADAM_COEFFICIENTS = 3


@dataclass(frozen=True)
class TracedStep:
    """
    One minibatch of an algorithm as a function that calls the policy, and as a graph of operators, with an example of
    the inputs of both.
    """

    eager: UpdateStep
    graph: GraphModule
    inputs: list[th.Tensor]
    batch_size: int

    @property
    def n_in_place(self) -> int:
        """How many of the inputs, the first ones, are changed in place."""
        spec = self.eager.spec
        return sum(group.n_tensors for group in spec.groups) + len(spec.buffers)

    @property
    def observations(self) -> list[th.Tensor]:
        """Those of the inputs that are observations."""
        spec = self.eager.spec
        first = self.n_in_place + len(spec.fixed)
        n_observations = 1 if spec.observation_keys is None else len(spec.observation_keys)
        return self.inputs[first : first + n_observations]


def trace_update(update: AlgorithmUpdate, groups: Sequence[ParameterGroup]) -> dict[str, TracedStep]:
    """
    A step for each program of an update, by name.

    :raises Unsupported: if it cannot be traced
    """
    policy = update.algorithm.policy
    spec = _spec(update, groups)
    inputs = _example(update, groups, spec)
    steps = {}
    for name, stages in update.programs().items():
        copied = copied_policy(policy)
        # As it is during an update. After a rollout it is in evaluation mode.
        copied.set_training_mode(True)
        with random_states_kept(policy.device):
            graph = trace(update.step_class(copied, spec, stages), inputs)
        steps[name] = TracedStep(update.step_class(policy, spec, stages), graph, inputs, update.batch_size)
    return steps


def adopted_state(policy: BasePolicy, groups: Sequence[ParameterGroup], spec: StepSpec) -> State:
    """
    The state that updates work on. It shares the memory of the policy and its optimizers.

    :raises Unsupported: if an optimizer has made more steps with some parameters than with others
    """
    parameters = dict(policy.named_parameters()) if spec.fixed else {}
    buffers = dict(policy.named_buffers()) if spec.buffers else {}
    return State(
        {group.spec.name: group.adopt() for group in groups},
        tuple(buffers[name] for name in spec.buffers),
        tuple(parameters[name].detach() for name in spec.fixed),
    )


def _spec(update: AlgorithmUpdate, groups: Sequence[ParameterGroup]) -> StepSpec:
    policy = update.algorithm.policy
    grouped = {name for group in groups for name in group.spec.names}
    return StepSpec(
        tuple(group.spec for group in groups),
        tuple(name for name, _ in policy.named_parameters() if name not in grouped),
        tuple(name for name, _ in policy.named_buffers()),
        update.observation_keys(),
        update.variant(),
    )


def _example(update: AlgorithmUpdate, groups: Sequence[ParameterGroup], spec: StepSpec) -> list[th.Tensor]:
    policy = update.algorithm.policy
    parameters, buffers = dict(policy.named_parameters()), dict(policy.named_buffers())
    state = [
        update.numbers(sum(parameter.numel() for parameter in group.parameters))
        for group in groups
        for _ in range(group.spec.n_tensors)
    ]
    fixed = [parameters[name].detach() for name in spec.fixed]
    rows, kind = update.example_rows(update.batch_size), update.step_class
    noise = [update.numbers(update.batch_size, update.action_dim()) for _ in range(kind.n_noise)]
    adam = [update.numbers(N_ADAM_COEFFICIENTS) for _ in spec.trained]
    kept = [buffers[name].clone() for name in spec.buffers]
    return [*state, *kept, *fixed, *rows, *noise, update.numbers(len(kind.coefficients)), *adam]
