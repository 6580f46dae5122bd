"""
What the policies of SB3 are made of, as the NumPy actor needs to know it. This is the learner's side: it imports
PyTorch and Stable-Baselines3.
"""

from collections.abc import Container, Iterable, Iterator

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor
from torch import nn

from sb3_walle.samplers.actors.numpy_inputs import FlatInput, Input, OneHotInput
from sb3_walle.samplers.actors.numpy_layers import Activation, Linear

#: The activation functions that have a NumPy version, and the attributes that change their results.
ACTIVATION_PARAMETERS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.ELU: ("alpha",),
    nn.GELU: ("approximate",),
    nn.Identity: (),
    nn.LeakyReLU: ("negative_slope",),
    nn.ReLU: (),
    nn.SiLU: (),
    nn.Tanh: (),
}

# How PyTorch calls a module.
CALL_METHODS = ("__call__", "_call_impl", "_wrapped_call_impl", "forward")


def inputs(extractor: BaseFeaturesExtractor, space: spaces.Space, normalize_images: bool) -> tuple[Input, ...]:
    """
    :param extractor: a features extractor
    :param space: the observation space
    :param normalize_images: the policy's
    :return: what becomes of the observations, in the order in which the features are concatenated
    """
    return tuple(_input(key, part, normalize_images) for key, part in _observation_spaces(extractor, space).items())


def layers(named: Iterable[tuple[str, nn.Module]]) -> tuple[Linear | Activation, ...]:
    """
    :param named: layers with their names
    :return: the same for NumPy
    """
    return tuple(_layer(name, module) for name, module in named)


def layers_of(net: nn.Sequential, name: str) -> list[tuple[str, nn.Module]]:
    """
    :param net: some layers
    :param name: its name
    :return: the layers with their names. One that is used twice is there twice
    """
    return list(net.named_modules(prefix=name, remove_duplicate=False))[1:]


def _observation_spaces(extractor: BaseFeaturesExtractor, space: spaces.Space) -> dict[str | None, spaces.Space]:
    """The spaces of the observations, in the order in which the features extractor concatenates their features."""
    if isinstance(extractor, CombinedExtractor):
        assert isinstance(space, spaces.Dict)
        return {key: space.spaces[key] for key in extractor.extractors}
    return {None: space}


def _input(key: str | None, space: spaces.Space, normalize_images: bool) -> Input:
    if isinstance(space, spaces.Discrete):
        return OneHotInput(key, (), (int(space.n),))
    if isinstance(space, spaces.MultiDiscrete):
        return OneHotInput(key, space.nvec.shape, tuple(space.nvec.tolist()))
    assert space.shape is not None
    return FlatInput(key, space.shape, is_image=normalize_images and is_image_space(space))


def _layer(name: str, module: nn.Module) -> Linear | Activation:
    if isinstance(module, nn.Linear):
        return linear(name, module)
    parameters = tuple((attribute, getattr(module, attribute)) for attribute in ACTIVATION_PARAMETERS[type(module)])
    return Activation(type(module).__name__, parameters)


def linear(name: str, module: nn.Module) -> Linear:
    """
    :param name: name of a linear layer
    :param module: the layer
    :return: the same for NumPy
    """
    assert isinstance(module, nn.Linear)
    n_outputs, n_inputs = module.weight.shape
    return Linear(f"{name}.weight", None if module.bias is None else f"{name}.bias", n_inputs, n_outputs)


# Reasons why NumPy cannot run a policy.


def features_obstacles(extractor: BaseFeaturesExtractor, space: spaces.Space) -> Iterator[str]:
    """
    :param extractor: a features extractor
    :param space: the observation space
    :return: why NumPy cannot extract these features
    """
    if type(extractor) is FlattenExtractor:
        yield from _flatten_obstacles("its features extractor's 'flatten'", extractor.flatten)
    elif type(extractor) is CombinedExtractor:
        for key, module in extractor.extractors.items():
            yield from _flatten_obstacles(f"its features extractor for '{key}'", module)
    else:
        yield f"its features extractor is a {type(extractor).__name__}"
    if isinstance(space, spaces.Dict) and type(extractor) is FlattenExtractor:
        yield "its features extractor is a FlattenExtractor, which cannot take the observations of a Dict space"
    for part in _observation_spaces(extractor, space).values():
        yield from _space_obstacles(part)


def _flatten_obstacles(name: str, module: nn.Module) -> Iterator[str]:
    if type(module) is not nn.Flatten:
        yield f"{name} is a {type(module).__name__}"
    elif (module.start_dim, module.end_dim) != (1, -1):
        yield f"{name} leaves dimensions unflattened"


def _space_obstacles(space: spaces.Space) -> Iterator[str]:
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        if not space.shape:
            yield f"SB3 cannot flatten the observations of {space}, which have no dimension"
    elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        if np.any(space.start):
            yield f"SB3 cannot encode the observations of {space}, which do not start at 0"
        if len(space.shape or ()) > 1:
            yield f"SB3 cannot encode the observations of {space}, which have more than one dimension"
    else:
        yield f"its observations are of {space}"


def layer_obstacles(named: Iterable[tuple[str, nn.Module]], activation_fn: type[nn.Module]) -> Iterator[str]:
    """
    :param named: layers with their names
    :param activation_fn: the policy's activation function
    :return: why NumPy cannot run them
    """
    for name, module in named:
        if type(module) is not nn.Linear and type(module) not in ACTIVATION_PARAMETERS:
            kind = "activation" if type(module) is activation_fn else "layer"
            yield f"its {kind} '{type(module).__name__}' ({name}) has no NumPy version"


def interference(
    named: Iterable[tuple[str, nn.Module]], methods: Iterable[str], watching: Container[int]
) -> Iterator[str]:
    """
    :param named: modules that take part in choosing actions, with their names
    :param methods: what decides their results
    :param watching: hooks that have no part in it
    :return: what was attached to one of them and can change these
    """
    for name, module in named:
        if any(number not in watching for number in (*module._forward_hooks, *module._forward_pre_hooks)):
            yield f"a forward hook is registered on {name}"
        if nn.utils.parametrize.is_parametrized(module):
            yield f"{name} is parametrized"
        for method in methods:
            if method in vars(module):
                yield f"{name} has its own {method}"
