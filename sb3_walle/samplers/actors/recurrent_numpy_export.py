"""
Whether a policy of sb3-contrib's RecurrentPPO can run without PyTorch, and the NumPy actor that runs it. This is the
learner's side: it imports PyTorch, Stable-Baselines3 and sb3-contrib.
"""

from typing import cast

import numpy as np
import torch as th
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.torch_layers import MlpExtractor
from stable_baselines3.common.utils import obs_as_tensor
from torch import nn

from sb3_walle.samplers.actors.numpy_comparison import (
    N_EXAMPLES,
    check_hooks,
    check_same,
    examples,
    running_examples,
    weights_of,
)
from sb3_walle.samplers.actors.numpy_export import POLICY_METHODS, head_of
from sb3_walle.samplers.actors.numpy_lstm import Lstm
from sb3_walle.samplers.actors.numpy_parts import (
    NoNumPyVersion,
    check_methods,
    inputs_of,
    layer_of,
    layers_in,
    linear_of,
)
from sb3_walle.samplers.actors.recurrent_numpy_actor import Branch, RecurrentNumPyActorSpec, RunningBranches

_METHODS = (*POLICY_METHODS, "predict_values")
# Enough for states to matter.
_N_STEPS = 3


def export_recurrent_numpy_actor(policy: BasePolicy) -> RecurrentNumPyActorSpec:
    """
    As :func:`~sb3_walle.samplers.actors.numpy_export.export_numpy_actor`, for an LSTM policy.

    :raises NoNumPyVersion: if the policy has a part that is unknown to NumPy
    """
    if not isinstance(policy, RecurrentActorCriticPolicy):
        raise NoNumPyVersion(f"{type(policy).__name__} is not a RecurrentActorCriticPolicy")
    check_methods(policy, RecurrentActorCriticPolicy, _METHODS)
    if policy._process_sequence is not RecurrentActorCriticPolicy._process_sequence:
        raise NoNumPyVersion(f"{type(policy).__name__} overrides _process_sequence")
    if policy.lstm_critic is None:
        raise NoNumPyVersion("its critic has no LSTM of its own")
    extractors = (policy.pi_features_extractor, policy.vf_features_extractor)
    inputs, of_critic = (inputs_of(one, policy.observation_space, policy.normalize_images) for one in extractors)
    if inputs != of_critic:
        raise NoNumPyVersion("its critic has other features")
    if type(policy.mlp_extractor) is not MlpExtractor:
        raise NoNumPyVersion(f"its mlp_extractor is a {type(policy.mlp_extractor).__name__}")
    actor = _branch(policy, "lstm_actor", "policy_net", "action_net")
    critic = _branch(policy, "lstm_critic", "value_net", "value_net")
    head = head_of(cast(ActorCriticPolicy, policy), actor.last_layer.n_outputs)
    return RecurrentNumPyActorSpec(inputs, actor, critic, head, seed=())


def check_same_steps(spec: RecurrentNumPyActorSpec, policy: RecurrentActorCriticPolicy) -> None:
    """
    Run some steps in torch and in NumPy, on examples.

    :param spec: the NumPy actor for the policy
    :raises NoNumPyVersion: if they differ, or if the policy needs hooks
    """
    check_hooks(policy)
    branches = RunningBranches(spec, N_EXAMPLES)
    branches.load_weights(weights_of(policy, spec.weight_names))
    outputs = np.empty((spec.policy.last_layer.n_outputs, N_EXAMPLES), np.float32)
    found, expected, random = np.empty((1, N_EXAMPLES), np.float32), th.empty(0), np.random.default_rng(0)
    zeros = th.zeros((spec.policy.lstm.n_layers, N_EXAMPLES, spec.policy.lstm.n_units), device=policy.device)
    states = RNNStates((zeros, zeros), (zeros, zeros))
    for _ in range(_N_STEPS):
        observations = examples(policy.observation_space, random)
        branches.run(observations, outputs, found)
        with running_examples(policy):
            tensors, starts = obs_as_tensor(observations, policy.device), th.zeros(N_EXAMPLES, device=policy.device)
            before = states.pi
            _, expected, _, states = policy.forward(tensors, states, starts, deterministic=True)  # type: ignore[arg-type]
    with running_examples(policy):
        features = policy.extract_features(tensors)
        of_actor = features if policy.share_features_extractor else features[0]
        hidden, cell = before
        latent, _ = policy._process_sequence(cast(th.Tensor, of_actor), (hidden, cell), starts, policy.lstm_actor)
        logits = policy.action_net(policy.mlp_extractor.forward_actor(latent))
    check_same(found.T, expected.cpu().numpy())
    check_same(outputs.T, logits.cpu().numpy())


def _branch(policy: RecurrentActorCriticPolicy, lstm: str, net: str, last_layer: str) -> Branch:
    """
    :param lstm: name of the LSTM in the policy
    :param net: name of the layers after it in the policy's ``mlp_extractor``
    :param last_layer: name of the last layer in the policy
    """
    layers = layers_in(getattr(policy.mlp_extractor, net), f"mlp_extractor.{net}")
    return Branch(
        _lstm(lstm, getattr(policy, lstm)),
        tuple(layer_of(*layer) for layer in layers),
        linear_of(last_layer, getattr(policy, last_layer)),
    )


def _lstm(name: str, module: nn.Module) -> Lstm:
    if type(module) is not nn.LSTM:
        raise NoNumPyVersion(f"its {name} is a {type(module).__name__}")
    if module.bidirectional or module.proj_size or module.batch_first:
        raise NoNumPyVersion(f"its {name} is bidirectional, or has projections, or takes batches first")
    return Lstm(name, module.input_size, module.hidden_size, module.num_layers, module.bias)
