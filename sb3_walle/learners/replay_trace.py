"""From an off-policy algorithm to its traced gradient steps."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch as th
from torch.fx import GraphModule

from sb3_walle.learners.adam import AdamSettings
from sb3_walle.learners.flat import FlatLayout
from sb3_walle.learners.replay_groups import Group, GroupSpec
from sb3_walle.learners.replay_samples import check_buffer, example_samples, observation_keys
from sb3_walle.learners.replay_step import ReplayStep
from sb3_walle.learners.trace import copied_policy, has_hooks, random_states_kept, traced
from sb3_walle.learners.unsupported import Unsupported

N_ADAM_COEFFICIENTS = 3


@dataclass(frozen=True)
class TracedReplayStep:
    """
    One gradient step of an algorithm, in two forms.

    :param step: as a function that calls the policy
    :param graph: as a graph of operators
    :param inputs: an example of what both take
    :param batch_size: samples of the minibatch
    """

    step: ReplayStep
    graph: GraphModule
    inputs: list[th.Tensor]
    batch_size: int

    @property
    def n_in_place(self) -> int:
        """How many of the inputs, the first ones, are changed in place."""
        return self.step.n_in_place

    @property
    def samples(self) -> list[th.Tensor]:
        """Those of the inputs that come from the replay buffer."""
        n_samples = 2 * self.step.n_observations + 4
        return self.inputs[self.n_in_place : self.n_in_place + n_samples]

    @property
    def observations(self) -> list[th.Tensor]:
        """Those of the inputs that are observations."""
        return self.samples[: self.step.n_observations]


def trained_group(algorithm: Any, name: str, optimizer: th.optim.Optimizer | None = None) -> Group:
    """
    :param algorithm: an algorithm
    :param name: name of a network of its policy
    :param optimizer: what trains it; by default an optimizer that belongs to the network
    :return: its parameters
    :raises Unsupported: if the optimizer trains other parameters, or is none of those that are known
    """
    network = getattr(algorithm.policy, name)
    optimizer = network.optimizer if optimizer is None else optimizer
    adam = AdamSettings.of(optimizer)
    parameters = list(network.parameters())
    if {id(p) for p in optimizer.param_groups[0]["params"]} != {id(p) for p in parameters}:
        raise Unsupported(f"the optimizer of the {name} does not train exactly its parameters")
    return Group(GroupSpec(name, _names(algorithm, name), FlatLayout(parameters), adam), parameters, optimizer)


def target_group(algorithm: Any, name: str) -> Group:
    """
    :param algorithm: an algorithm
    :param name: name of a network of its policy that follows another one
    :return: its parameters
    """
    parameters = list(getattr(algorithm.policy, name).parameters())
    return Group(GroupSpec(name, _names(algorithm, name), FlatLayout(parameters), None), parameters)


def loose_group(name: str, tensor: th.Tensor, optimizer: th.optim.Optimizer) -> Group:
    """
    :param name: name of a tensor that is trained and is no part of the policy
    :param tensor: the tensor
    :param optimizer: what trains it
    :return: a group of it alone
    :raises Unsupported: if the optimizer is none of those that are known
    """
    return Group(GroupSpec(name, (), FlatLayout([tensor]), AdamSettings.of(optimizer)), [tensor], optimizer)


def _names(algorithm: Any, network: str) -> tuple[str, ...]:
    return tuple(f"{network}.{name}" for name, _ in getattr(algorithm.policy, network).named_parameters())


def check_policy(algorithm: Any) -> None:
    """
    :param algorithm: an algorithm
    :raises Unsupported: if its policy is of a kind that steps cannot be traced for
    """
    policy = algorithm.policy
    check_buffer(algorithm.replay_buffer)
    if any(True for _ in policy.buffers()):
        raise Unsupported("the policy has buffers, as those of batch normalization")
    kinds = {(parameter.dtype, parameter.device) for parameter in policy.parameters()}
    if len(kinds) != 1:
        raise Unsupported("the parameters are of several kinds")
    critic: Any = getattr(policy, "critic", None)
    extractor = critic.features_extractor if getattr(critic, "share_features_extractor", False) else None
    if extractor is not None and any(True for _ in extractor.parameters()):
        raise Unsupported("actor and critics share what extracts features")


def what_decides(algorithm: Any, groups: Sequence[Group]) -> Hashable:
    """
    :param algorithm: an algorithm
    :param groups: its groups
    :return: what its traced steps depend on; if it changes, others are needed
    """
    policy, buffer = algorithm.policy, algorithm.replay_buffer
    samples = example_samples(buffer, 1, algorithm.get_vec_normalize_env())
    return (
        id(policy),
        tuple((group.spec.name, group.spec.adam, id(group.optimizer)) for group in groups),
        algorithm.batch_size,
        observation_keys(buffer),
        tuple((tensor.dtype, tensor.shape) for tensor in samples),
        tuple((id(parameter), parameter.requires_grad) for parameter in policy.parameters()),
        has_hooks(policy),
        policy.device,
    )


def trace_step(algorithm: Any, kind: type[ReplayStep], groups: Sequence[Group]) -> TracedReplayStep:
    """
    :param algorithm: an algorithm that has been set up
    :param kind: which step
    :param groups: the algorithm's groups of parameters
    :return: the step
    :raises Unsupported: if it cannot be traced
    """
    policy, buffer = algorithm.policy, algorithm.replay_buffer
    copied = copied_policy(policy)
    copied.set_training_mode(True)
    specs, keys = [group.spec for group in groups], observation_keys(buffer)
    inputs = _example(algorithm, kind, groups)
    with random_states_kept(policy.device):
        graph = traced(kind(copied, specs, keys), inputs)
    return TracedReplayStep(kind(policy, specs, keys), graph, inputs, algorithm.batch_size)


def _example(algorithm: Any, kind: type[ReplayStep], groups: Sequence[Group]) -> list[th.Tensor]:
    policy = algorithm.policy
    first = next(policy.parameters())
    samples = example_samples(algorithm.replay_buffer, algorithm.batch_size, algorithm.get_vec_normalize_env())

    def zeros(*shape: int) -> th.Tensor:
        return th.zeros(*shape, dtype=first.dtype, device=first.device)

    state = [zeros(_size(group.spec)) for group in groups for _ in range(group.spec.n_tensors)]
    noise = [zeros(algorithm.batch_size, algorithm.replay_buffer.action_dim) for _ in range(kind.n_noise)]
    n_trained = sum(group.spec.adam is not None for group in groups)
    adam = [zeros(N_ADAM_COEFFICIENTS) for _ in range(n_trained)]
    return [*state, *samples, *noise, zeros(len(kind.coefficients)), *adam]


def _size(spec: GroupSpec) -> int:
    return sum(int(th.Size(shape).numel()) for shape in spec.layout.shapes)
