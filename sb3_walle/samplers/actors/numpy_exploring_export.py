"""
Whether the policy of an off-policy algorithm can run without PyTorch, and the NumPy actor that runs it. This is the
learner's side: it imports PyTorch and Stable-Baselines3.
"""

from collections.abc import Iterator
from typing import cast

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.noise import ActionNoise, NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from stable_baselines3.sac.policies import Actor as SACActor
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import Actor as TD3Actor
from stable_baselines3.td3.policies import TD3Policy
from torch import nn

from sb3_walle.samplers.actors.numpy_actor import NumPyActorSpec
from sb3_walle.samplers.actors.numpy_exploring_heads import (
    DeterministicSpec,
    EpsilonGreedySpec,
    ExploringSpec,
    NoiseSpec,
    SquashedGaussianSpec,
)
from sb3_walle.samplers.actors.numpy_noise import NormalNoiseSpec, OrnsteinUhlenbeckNoiseSpec
from sb3_walle.samplers.actors.numpy_parts import (
    CALL_METHODS,
    features_obstacles,
    inputs,
    interference,
    layer_obstacles,
    layers,
    layers_of,
    linear,
)
from sb3_walle.samplers.actors.torch_policy import staying_hooks
from sb3_walle.sb3_private import mean_and_deviation, theta_and_dt

# Policies, what chooses their actions, and under which name.
KNOWN: tuple[tuple[type[BasePolicy], type[BasePolicy], str], ...] = (
    (SACPolicy, SACActor, "actor"),
    (TD3Policy, TD3Actor, "actor"),
    (DQNPolicy, QNetwork, "q_net"),
)
# What decides the actions of a policy.
POLICY_METHODS = ("predict", "_predict", "forward", "scale_action", "unscale_action", "obs_to_tensor", "state_dict")
ACTING_METHODS = (*CALL_METHODS, "_predict", "extract_features", "get_action_dist_params")


def why_not_numpy(policy: BasePolicy, noise: ActionNoise | None) -> str | None:
    """
    Tell whether the NumPy actor chooses the same actions as an off-policy algorithm.

    :param policy: its policy
    :param noise: its action noise, of one environment
    :return: None if it does, or else what it cannot do, as a clause ("it uses gSDE")
    """
    return next(_obstacles(policy, noise), None)


def export_numpy_actor(
    policy: BasePolicy, noise: ActionNoise | None, fixed_rate: float | None, seed: int | tuple[int, ...]
) -> NumPyActorSpec:
    """
    Describe a policy to the NumPy actor. The weights are not part of it: they are loaded by name from the policy's
    ``state_dict()``.

    :param policy: the policy; it must not be replaced by one of another shape afterwards
    :param noise: action noise of one environment
    :param fixed_rate: probability of a random action, if it is not what the learner plans
    :param seed: what determines the actor's random numbers; samplers need different ones
    :return: how to build the actor
    :raises ValueError: if :func:`why_not_numpy` tells a reason
    """
    reason = why_not_numpy(policy, noise)
    if reason is not None:
        raise ValueError(f"The policy cannot run in NumPy: {reason}")
    acting, name = _acting(policy)
    hidden, (last_name, last) = _net(acting, name)
    return NumPyActorSpec(
        inputs=inputs(acting.features_extractor, policy.observation_space, acting.normalize_images),
        layers=layers(hidden),
        last_layer=linear(last_name, last),
        head=_head(policy, acting, noise, fixed_rate),
        seed=seed,
    )


def _acting(policy: BasePolicy) -> tuple[BasePolicy, str]:
    """The network that chooses actions, and its name."""
    name = next(name for policy_class, _, name in KNOWN if isinstance(policy, policy_class))
    acting = getattr(policy, name)
    assert isinstance(acting, BasePolicy)
    return acting, name


def _net(acting: BasePolicy, name: str) -> tuple[list[tuple[str, nn.Module]], tuple[str, nn.Module]]:
    """The layers before the last linear one, and that one, with their names."""
    if isinstance(acting, SACActor):
        return layers_of(acting.latent_pi, f"{name}.latent_pi"), (f"{name}.mu", acting.mu)
    if isinstance(acting, TD3Actor):
        # The last one of all is the tanh, which is the head's.
        *hidden, last, _ = layers_of(acting.mu, f"{name}.mu")
        return hidden, last
    assert isinstance(acting, QNetwork)
    *hidden, last = layers_of(acting.q_net, f"{name}.q_net")
    return hidden, last


def _head(policy: BasePolicy, acting: BasePolicy, noise: ActionNoise | None, fixed_rate: float | None) -> ExploringSpec:
    space = policy.action_space
    if isinstance(space, spaces.Discrete):
        return EpsilonGreedySpec((), int(space.n), fixed_rate)
    assert space.shape is not None
    noise_spec = _noise(noise, int(np.prod(space.shape)))
    if isinstance(acting, SACActor):
        return SquashedGaussianSpec(space.shape, noise_spec, linear("actor.log_std", _log_std(acting)))
    return DeterministicSpec(space.shape, noise_spec)


def _log_std(actor: SACActor) -> nn.Module:
    # SB3 declares it a parameter, which it is where there is gSDE.
    return dict(actor.named_children())["log_std"]


def _noise(noise: ActionNoise | None, action_dim: int) -> NoiseSpec | None:
    def of_each(values: object) -> tuple[float, ...]:
        return tuple(np.broadcast_to(np.asarray(values, dtype=np.float64).reshape(-1), action_dim).tolist())

    if noise is None:
        return None
    if not isinstance(noise, NormalActionNoise | OrnsteinUhlenbeckActionNoise):
        raise TypeError(f"NumPy draws no action noise of {type(noise)}")
    mean, sigma = (of_each(values) for values in mean_and_deviation(noise))
    if isinstance(noise, NormalActionNoise):
        return NormalNoiseSpec(mean, sigma)
    initial = np.zeros(action_dim) if noise.initial_noise is None else noise.initial_noise
    return OrnsteinUhlenbeckNoiseSpec(mean, sigma, *theta_and_dt(noise), of_each(initial))


# What stands against it. Each group of checks can rely on those before it.


def _obstacles(policy: BasePolicy, noise: ActionNoise | None) -> Iterator[str]:
    yield from _class_obstacles(policy)
    acting, name = _acting(policy)
    yield from _space_obstacles(policy.action_space)
    if noise is not None and type(noise) not in (NormalActionNoise, OrnsteinUhlenbeckActionNoise):
        yield f"its action noise is a {type(noise).__name__}"
    yield from features_obstacles(acting.features_extractor, policy.observation_space)
    yield from _network_obstacles(acting, name)
    watching = staying_hooks(policy)
    yield from interference([("the policy", policy)], POLICY_METHODS, watching)
    yield from interference(acting.named_modules(prefix=name), ACTING_METHODS, watching)
    yield from (
        f"its '{entry}' is of {value.dtype}"
        for entry, value in acting.state_dict(prefix=f"{name}.").items()
        if value.dtype != th.float32
    )


def _class_obstacles(policy: BasePolicy) -> Iterator[str]:
    kind = type(policy)
    known = next((entry for entry in KNOWN if isinstance(policy, entry[0])), None)
    if known is None:
        yield f"{kind.__name__} is none of {', '.join(policy_class.__name__ for policy_class, _, _ in KNOWN)}"
        return
    policy_class, acting_class, name = known
    for method in POLICY_METHODS:
        if getattr(kind, method) is not getattr(policy_class, method):
            yield f"{kind.__name__} overrides {method}"
    if type(getattr(policy, name)) is not acting_class:
        yield f"its {name} is a {type(getattr(policy, name)).__name__}"


def _space_obstacles(space: spaces.Space) -> Iterator[str]:
    if isinstance(space, spaces.Discrete):
        if space.start != 0:
            yield f"the actions of {space} do not start at 0"
    elif not np.issubdtype(space.dtype, np.floating):
        yield f"the actions of {space} are no fractions"


def _network_obstacles(acting: BasePolicy, name: str) -> Iterator[str]:
    if isinstance(acting, SACActor) and acting.use_sde:
        yield "it uses gSDE"
    for part in {SACActor: ("latent_pi",), TD3Actor: ("mu",), QNetwork: ("q_net",)}[type(acting)]:
        if type(getattr(acting, part)) is not nn.Sequential:
            yield f"its {name}.{part} is a {type(getattr(acting, part)).__name__}"
    if isinstance(acting, TD3Actor) and type(acting.mu[-1]) is not nn.Tanh:
        yield f"its {name}.mu does not end with a Tanh"
    hidden, (last_name, last) = _net(acting, name)
    yield from layer_obstacles(hidden, cast(type[nn.Module], acting.activation_fn))
    last_layers = [(last_name, last)]
    if isinstance(acting, SACActor):
        last_layers.append((f"{name}.log_std", _log_std(acting)))
    for layer_name, layer in last_layers:
        if type(layer) is not nn.Linear:
            yield f"its {layer_name} is a {type(layer).__name__}, not a Linear"
