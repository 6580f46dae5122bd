"""Whether the NumPy actor computes what a policy computes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.utils import obs_as_tensor

from sb3_walle.samplers.actors.exploration import EXPLORATION
from sb3_walle.samplers.actors.numpy_actor import NumPyActorSpec
from sb3_walle.samplers.actors.numpy_layers import LinearLayer, Network
from sb3_walle.samplers.actors.numpy_parts import NoNumPyVersion
from sb3_walle.samplers.actors.policy_hooks import HookIds, only_hooks, random_states_kept
from sb3_walle.samplers.actors.torch_policy import hooks_for_samplers
from sb3_walle.transport.chunk import Observations

N_EXAMPLES = 64
# Of the largest output. Rounding is far below it, even where a GPU multiplies in TF32.
TOLERANCE = 1e-2


def check_same_outputs(
    spec: NumPyActorSpec,
    policy: BasePolicy,
    torch_outputs: Callable[[PyTorchObs], th.Tensor],
    is_squashed: bool = False,
) -> None:
    """
    Run a policy's layers in torch and in NumPy, on examples. Neither random states nor hooks notice it.

    :param spec: the NumPy actor for the policy
    :param torch_outputs: from observations, ``[n, ...]``, to what the policy's last layers give, ``[n, n_outputs]``
    :param is_squashed: whether a tanh follows there
    :raises NoNumPyVersion: if they differ, or if the policy needs hooks
    """
    check_hooks(policy)
    weights = weights_of(policy, spec.weight_names)
    observations = examples(policy.observation_space, np.random.default_rng(0))
    with running_examples(policy):
        expected = torch_outputs(obs_as_tensor(observations, policy.device)).cpu().numpy()
    found = _numpy_outputs(spec, weights, observations)
    check_same(np.tanh(found) if is_squashed else found, expected)


@contextmanager
def running_examples(policy: BasePolicy) -> Iterator[None]:
    """
    Around a policy's computing something for examples. Neither random states nor hooks notice it.

    :raises NoNumPyVersion: if it fails
    """
    try:
        with th.no_grad(), random_states_kept(), only_hooks(policy, HookIds()):
            yield
    except Exception as error:
        raise NoNumPyVersion(f"it fails on an example: {type(error).__name__}: {error}") from error


def check_same(found: np.ndarray, expected: np.ndarray) -> None:
    """:raises NoNumPyVersion: if what NumPy has found is not what torch has, within rounding"""
    scale = np.abs(np.nan_to_num(expected)).max(initial=0.0)
    if found.shape != expected.shape or not np.allclose(found, expected, TOLERANCE, TOLERANCE * scale, equal_nan=True):
        raise NoNumPyVersion("it computes something else in torch than its layers do in NumPy")


def check_hooks(policy: BasePolicy) -> None:
    """:raises NoNumPyVersion: if a policy needs hooks to choose actions"""
    travelling = hooks_for_samplers(policy)
    for name, module in policy.named_modules():
        if not travelling.isdisjoint([*module._forward_hooks, *module._forward_pre_hooks]):
            raise NoNumPyVersion(f"a forward hook is registered on {name or 'the policy'}")


def examples(space: spaces.Space, random: np.random.Generator) -> Any:
    """:return: observations of a space, ``[N_EXAMPLES, ...]``, or a dictionary of such arrays"""
    # Not from the space itself, whose bounds may be those of float32.
    if isinstance(space, spaces.Dict):
        return {key: examples(part, random) for key, part in space.spaces.items()}
    shape = (N_EXAMPLES, *(space.shape or ()))
    if isinstance(space, spaces.Discrete):
        return space.start + random.integers(space.n, size=shape)
    if isinstance(space, spaces.MultiDiscrete):
        return space.start + random.integers(space.nvec, size=shape)
    if isinstance(space, spaces.MultiBinary):
        return random.integers(2, size=shape, dtype=np.int8)
    is_float = np.issubdtype(space.dtype, np.floating)
    return (random.standard_normal(shape) if is_float else random.integers(100, size=shape)).astype(space.dtype)


def weights_of(policy: BasePolicy, weight_names: Iterable[str]) -> dict[str, np.ndarray]:
    """
    :param weight_names: those of an actor
    :return: the weights by name
    :raises NoNumPyVersion: if one is missing, or not of float32
    """
    state = policy.state_dict()
    names = [name for name in weight_names if name not in EXPLORATION]
    for name in names:
        if name not in state:
            raise NoNumPyVersion(f"its state_dict() has no '{name}'")
        if state[name].dtype != th.float32:
            raise NoNumPyVersion(f"its '{name}' is of {state[name].dtype}")
    return {name: state[name].cpu().numpy() for name in names}


def _numpy_outputs(spec: NumPyActorSpec, weights: Mapping[str, np.ndarray], observations: Observations) -> np.ndarray:
    network, last_layer = Network(spec.inputs, spec.layers, N_EXAMPLES), LinearLayer(spec.last_layers)
    network.load_weights(weights)
    last_layer.load_weights(weights)
    network.run(observations)
    outputs = np.empty((sum(layer.n_outputs for layer in spec.last_layers), N_EXAMPLES), dtype=np.float32)
    last_layer.dot(network.latent, outputs)
    return outputs.T
