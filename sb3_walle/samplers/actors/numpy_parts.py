"""
What the policies of SB3 are made of, as the NumPy actor needs to know it. This is the learner's side: it imports
PyTorch and Stable-Baselines3.
"""

from collections.abc import Iterable
from inspect import signature

from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor
from torch import nn

from sb3_walle.samplers.actors.numpy_inputs import FlatInput, Input, OneHotInput
from sb3_walle.samplers.actors.numpy_layers import ACTIVATIONS, Activation, Linear


class NoNumPyVersion(ValueError):
    """NumPy cannot run a policy. The message says which part of it, as a clause ("it uses gSDE")."""


def check_methods(thing: object, known: type, methods: Iterable[str]) -> None:
    """
    :param thing: an object
    :param known: the class of SB3 whose methods the NumPy actor stands for
    :param methods: the methods that choose actions
    :raises NoNumPyVersion: if the object, or a class between, has one of its own
    """
    for method in methods:
        if getattr(getattr(thing, method), "__func__", None) is not getattr(known, method):
            raise NoNumPyVersion(f"{type(thing).__name__} overrides {method}")


def inputs_of(extractor: BaseFeaturesExtractor, space: spaces.Space, normalize_images: bool) -> tuple[Input, ...]:
    """
    :param space: the observation space
    :param normalize_images: the policy's
    :return: what becomes of the observations, in the order in which the features are concatenated
    :raises NoNumPyVersion: if NumPy cannot extract these features
    """
    if type(extractor) is FlattenExtractor:
        return (_input(None, space, normalize_images),)
    if type(extractor) is not CombinedExtractor:
        raise NoNumPyVersion(f"its features extractor is a {type(extractor).__name__}")
    assert isinstance(space, spaces.Dict)
    for key, module in extractor.extractors.items():
        if type(module) is not nn.Flatten:
            raise NoNumPyVersion(f"its features extractor for '{key}' is a {type(module).__name__}")
    return tuple(_input(key, space.spaces[key], normalize_images) for key in extractor.extractors)


def _input(key: str | None, space: spaces.Space, normalize_images: bool) -> Input:
    if isinstance(space, spaces.Discrete):
        return OneHotInput(key, (), (int(space.n),))
    if isinstance(space, spaces.MultiDiscrete):
        return OneHotInput(key, space.nvec.shape, tuple(space.nvec.tolist()))
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return FlatInput(key, space.shape, is_image=normalize_images and is_image_space(space))
    raise NoNumPyVersion(f"its observations are of {space}")


def layers_in(net: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
    """
    :param net: layers that follow each other
    :param name: its name
    :return: the layers with their names. One that is used twice is there twice
    """
    if type(net) is not nn.Sequential:
        raise NoNumPyVersion(f"its {name} is a {type(net).__name__}")
    return list(net.named_modules(prefix=name, remove_duplicate=False))[1:]


def layer_of(name: str, module: nn.Module) -> Linear | Activation:
    """
    :param name: its name in the policy
    :param module: a layer
    :return: the same for NumPy
    """
    kind = type(module).__name__
    if type(module) is nn.Linear:
        return linear_of(name, module)
    if kind not in ACTIVATIONS:
        raise NoNumPyVersion(f"its layer '{kind}' ({name}) has no NumPy version")
    _, *parameters = signature(ACTIVATIONS[kind]).parameters
    return Activation(kind, tuple((parameter, getattr(module, parameter)) for parameter in parameters))


def linear_of(name: str, module: nn.Module) -> Linear:
    """
    :param name: its name in the policy
    :param module: a layer that has to be linear
    :return: the same for NumPy
    """
    if type(module) is not nn.Linear:
        raise NoNumPyVersion(f"its {name} is a {type(module).__name__}, not a Linear")
    n_outputs, n_inputs = module.weight.shape
    return Linear(f"{name}.weight", None if module.bias is None else f"{name}.bias", n_inputs, n_outputs)
