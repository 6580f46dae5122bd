"""
Whether the policy of an off-policy algorithm can run without PyTorch, and the NumPy actor that runs it. This is the
learner's side: it imports PyTorch and Stable-Baselines3.
"""

import sys
from enum import Enum, auto
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.noise import ActionNoise, NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from stable_baselines3.sac.policies import Actor as SACActor
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import Actor as TD3Actor
from stable_baselines3.td3.policies import TD3Policy
from torch import nn

from sb3_walle.samplers.actors.numpy_actor import NumPyActorSpec
from sb3_walle.samplers.actors.numpy_comparison import check_same_outputs
from sb3_walle.samplers.actors.numpy_exploring_heads import (
    DeterministicSpec,
    EpsilonGreedySpec,
    ExploringSpec,
    QuantilesSpec,
    SquashedGaussianSpec,
)
from sb3_walle.samplers.actors.numpy_noise import NoiseSpec
from sb3_walle.samplers.actors.numpy_parts import (
    NoNumPyVersion,
    check_methods,
    inputs_of,
    layer_of,
    layers_in,
    linear_of,
)
from sb3_walle.sb3_private import mean_and_deviation, theta_and_dt


class Kind(Enum):
    """What the outputs of a network are that chooses actions."""

    SQUASHED_GAUSSIAN = auto()
    ACTIONS = auto()
    Q_VALUES = auto()
    QUANTILES = auto()


#: a policy, what chooses its actions, under which name, and its kind
Row: TypeAlias = tuple[type[BasePolicy], type[BasePolicy], str, Kind]

OF_SB3: tuple[Row, ...] = (
    (SACPolicy, SACActor, "actor", Kind.SQUASHED_GAUSSIAN),
    (TD3Policy, TD3Actor, "actor", Kind.ACTIONS),
    (DQNPolicy, QNetwork, "q_net", Kind.Q_VALUES),
)
# What chooses actions, the modules apart.
POLICY_METHODS = ("predict", "_predict", "forward", "scale_action", "unscale_action", "obs_to_tensor")
ACTING_METHODS = ("forward", "_predict", "extract_features")


class _Acting(NamedTuple):
    """The network that chooses a policy's actions, and its name there."""

    net: Any
    name: str
    kind: Kind


class _Net(NamedTuple):
    """Layers with their names. The last ones have the same inputs."""

    hidden: list[tuple[str, nn.Module]]
    last: list[tuple[str, nn.Module]]


def why_not_numpy(policy: BasePolicy, noise: ActionNoise | None) -> str | None:
    """
    Tell whether the NumPy actor chooses the same actions as an off-policy algorithm.

    :param policy: its policy
    :param noise: its action noise, of one environment
    :return: None if it does, or else what it cannot do, as a clause ("it uses gSDE")
    """
    try:
        spec = export_numpy_actor(policy, noise)
        acting = _acting(policy)
        check_same_outputs(spec, policy, partial(_outputs, acting), is_squashed=acting.kind is Kind.ACTIONS)
    except NoNumPyVersion as reason:
        return str(reason)
    return None


def export_numpy_actor(
    policy: BasePolicy, noise: ActionNoise | None, fixed_rate: float | None = None, seed: tuple[int, ...] = ()
) -> NumPyActorSpec:
    """
    Describe a policy to the NumPy actor. The weights are not part of it: they are loaded by name from the policy's
    ``state_dict()``.

    :param policy: the policy; it must not be replaced by one of another shape afterwards
    :param noise: action noise of one environment
    :param fixed_rate: probability of a random action, if it is not what the learner plans
    :param seed: what determines the actor's random numbers; samplers need different ones
    :raises NoNumPyVersion: if the policy has a part that is unknown to NumPy; see :func:`why_not_numpy` for the rest
    """
    acting = _acting(policy)
    inputs = inputs_of(acting.net.features_extractor, policy.observation_space, acting.net.normalize_images)
    net = _net(acting)
    return NumPyActorSpec(
        inputs,
        tuple(layer_of(*layer) for layer in net.hidden),
        tuple(linear_of(*layer) for layer in net.last),
        _head(policy, acting.kind, noise, fixed_rate),
        seed,
    )


def _known() -> tuple[Row, ...]:
    # Where it is not loaded, no policy is of it.
    if sys.modules.get("sb3_contrib") is None:
        return OF_SB3
    from sb3_contrib.qrdqn.policies import QRDQNPolicy, QuantileNetwork
    from sb3_contrib.tqc.policies import Actor as TQCActor
    from sb3_contrib.tqc.policies import TQCPolicy

    return (
        *OF_SB3,
        (TQCPolicy, TQCActor, "actor", Kind.SQUASHED_GAUSSIAN),
        (QRDQNPolicy, QuantileNetwork, "quantile_net", Kind.QUANTILES),
    )


def _acting(policy: BasePolicy) -> _Acting:
    for policy_class, acting_class, name, kind in _known():
        if isinstance(policy, policy_class):
            net = getattr(policy, name)
            check_methods(policy, policy_class, POLICY_METHODS)
            if type(net) is not acting_class:
                raise NoNumPyVersion(f"its {name} is a {type(net).__name__}")
            check_methods(net, acting_class, ACTING_METHODS)
            return _Acting(net, name, kind)
    names = ", ".join(policy_class.__name__ for policy_class, *_ in _known())
    raise NoNumPyVersion(f"{type(policy).__name__} is none of {names}")


def _net(acting: _Acting) -> _Net:
    net, name, kind = acting
    if kind is Kind.SQUASHED_GAUSSIAN:
        if net.use_sde:
            raise NoNumPyVersion("it uses gSDE")
        check_methods(net, type(net), ("get_action_dist_params",))
        # SB3 declares log_std a parameter, which it is where there is gSDE.
        last = [(f"{name}.{child}", net.get_submodule(child)) for child in ("mu", "log_std")]
        return _Net(layers_in(net.latent_pi, f"{name}.latent_pi"), last)
    if kind is Kind.ACTIONS:
        layers = layers_in(net.mu, f"{name}.mu")
        if len(layers) < 2 or type(layers[-1][1]) is not nn.Tanh:
            raise NoNumPyVersion(f"its {name}.mu does not end with a Tanh")
        return _Net(layers[:-2], [layers[-2]])
    *hidden, last_layer = layers_in(net.get_submodule(name), f"{name}.{name}")
    return _Net(hidden, [last_layer])


def _head(policy: BasePolicy, kind: Kind, noise: ActionNoise | None, fixed_rate: float | None) -> ExploringSpec:
    space = policy.action_space
    if isinstance(space, spaces.Discrete):
        if space.start != 0:
            raise NoNumPyVersion(f"the actions of {space} do not start at 0")
        return (QuantilesSpec if kind is Kind.QUANTILES else EpsilonGreedySpec)((), int(space.n), fixed_rate)
    if not np.issubdtype(space.dtype, np.floating):
        raise NoNumPyVersion(f"the actions of {space} are no fractions")
    assert space.shape is not None
    noise_spec = None if noise is None else _noise(noise, int(np.prod(space.shape)))
    head = SquashedGaussianSpec if kind is Kind.SQUASHED_GAUSSIAN else DeterministicSpec
    return head(space.shape, noise_spec)


def _noise(noise: ActionNoise, action_dim: int) -> NoiseSpec:
    def of_each(values: object) -> tuple[float, ...]:
        return tuple(np.broadcast_to(np.asarray(values, dtype=np.float64).reshape(-1), action_dim).tolist())

    if type(noise) not in (NormalActionNoise, OrnsteinUhlenbeckActionNoise):
        raise NoNumPyVersion(f"its action noise is a {type(noise).__name__}")
    assert isinstance(noise, NormalActionNoise | OrnsteinUhlenbeckActionNoise)
    mean, sigma = (of_each(values) for values in mean_and_deviation(noise))
    if isinstance(noise, NormalActionNoise):
        return NoiseSpec(mean, sigma, of_each(0.0))
    initial = 0.0 if noise.initial_noise is None else noise.initial_noise
    return NoiseSpec(mean, sigma, of_each(initial), *theta_and_dt(noise))


def _outputs(acting: _Acting, observations: PyTorchObs) -> th.Tensor:
    """What the last layers give, ``[n, n_outputs]``; of actions, after the tanh that follows there."""
    net = acting.net
    if acting.kind is not Kind.SQUASHED_GAUSSIAN:
        return net(observations).flatten(1)
    # As its get_action_dist_params(), before it bounds the standard deviation.
    latent = net.latent_pi(net.extract_features(observations, net.features_extractor))
    return th.cat([net.mu(latent), net.get_submodule("log_std")(latent)], dim=1)
