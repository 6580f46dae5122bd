"""
Whether the policy of an off-policy algorithm can run without PyTorch, and the NumPy actor that runs it. This is the
learner's side: it imports PyTorch and Stable-Baselines3.
"""

from functools import partial
from typing import NamedTuple

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

# Policies, what chooses their actions, and under which name.
KNOWN: tuple[tuple[type[BasePolicy], type[BasePolicy], str], ...] = (
    (SACPolicy, SACActor, "actor"),
    (TD3Policy, TD3Actor, "actor"),
    (DQNPolicy, QNetwork, "q_net"),
)
# What chooses actions, the modules apart.
POLICY_METHODS = ("predict", "_predict", "forward", "scale_action", "unscale_action", "obs_to_tensor")
ACTING_METHODS = ("forward", "_predict", "extract_features")


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
        acting, _ = _acting(policy)
        torch_outputs = partial(_sac_outputs, acting) if isinstance(acting, SACActor) else acting
        check_same_outputs(spec, policy, torch_outputs, is_squashed=isinstance(acting, TD3Actor))
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
    acting, name = _acting(policy)
    inputs = inputs_of(acting.features_extractor, policy.observation_space, acting.normalize_images)
    net = _net(acting, name)
    return NumPyActorSpec(
        inputs,
        tuple(layer_of(*layer) for layer in net.hidden),
        tuple(linear_of(*layer) for layer in net.last),
        _head(policy, acting, noise, fixed_rate),
        seed,
    )


def _acting(policy: BasePolicy) -> tuple[BasePolicy, str]:
    """The network that chooses actions, and its name."""
    for policy_class, acting_class, name in KNOWN:
        if isinstance(policy, policy_class):
            acting = getattr(policy, name)
            check_methods(policy, policy_class, POLICY_METHODS)
            if type(acting) is not acting_class:
                raise NoNumPyVersion(f"its {name} is a {type(acting).__name__}")
            check_methods(acting, acting_class, ACTING_METHODS)
            return acting, name
    names = ", ".join(policy_class.__name__ for policy_class, _, _ in KNOWN)
    raise NoNumPyVersion(f"{type(policy).__name__} is none of {names}")


def _net(acting: BasePolicy, name: str) -> _Net:
    if isinstance(acting, SACActor):
        if acting.use_sde:
            raise NoNumPyVersion("it uses gSDE")
        check_methods(acting, SACActor, ("get_action_dist_params",))
        # SB3 declares log_std a parameter, which it is where there is gSDE.
        last = [(f"{name}.{child}", acting.get_submodule(child)) for child in ("mu", "log_std")]
        return _Net(layers_in(acting.latent_pi, f"{name}.latent_pi"), last)
    if isinstance(acting, TD3Actor):
        layers = layers_in(acting.mu, f"{name}.mu")
        if len(layers) < 2 or type(layers[-1][1]) is not nn.Tanh:
            raise NoNumPyVersion(f"its {name}.mu does not end with a Tanh")
        return _Net(layers[:-2], [layers[-2]])
    assert isinstance(acting, QNetwork)
    *hidden, last_layer = layers_in(acting.q_net, f"{name}.q_net")
    return _Net(hidden, [last_layer])


def _head(policy: BasePolicy, acting: BasePolicy, noise: ActionNoise | None, fixed_rate: float | None) -> ExploringSpec:
    space = policy.action_space
    if isinstance(space, spaces.Discrete):
        if space.start != 0:
            raise NoNumPyVersion(f"the actions of {space} do not start at 0")
        return EpsilonGreedySpec((), int(space.n), fixed_rate)
    if not np.issubdtype(space.dtype, np.floating):
        raise NoNumPyVersion(f"the actions of {space} are no fractions")
    assert space.shape is not None
    noise_spec = None if noise is None else _noise(noise, int(np.prod(space.shape)))
    return (SquashedGaussianSpec if isinstance(acting, SACActor) else DeterministicSpec)(space.shape, noise_spec)


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


def _sac_outputs(actor: SACActor, observations: PyTorchObs) -> th.Tensor:
    """As its ``get_action_dist_params()``, before it bounds the standard deviation."""
    latent = actor.latent_pi(actor.extract_features(observations, actor.features_extractor))
    return th.cat([actor.mu(latent), actor.get_submodule("log_std")(latent)], dim=1)
