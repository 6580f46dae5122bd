"""The algorithms that ``sb3-walle train`` trains, and their policies."""

import inspect
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.preprocessing import is_image_space

import sb3_walle
from sb3_walle.cli.arguments import OF_CONTRIB, TRAINABLE, UsageError
from sb3_walle.cli.extras import require_extra

SB3_PACKAGES = ("stable_baselines3", "sb3_contrib")


def algorithm_class(name: str) -> Any:
    """
    :param name: one of :data:`~sb3_walle.cli.arguments.TRAINABLE`
    :return: its class, with samplers
    :raises MissingExtra: if it needs sb3-contrib, which is not installed
    """
    if name in OF_CONTRIB:
        require_extra(f"--algo {name}", "sb3_contrib", extra="contrib")
    return getattr(sb3_walle, TRAINABLE[name])


def sb3_class(name: str) -> type[BaseAlgorithm]:
    """:return: the class of the same algorithm in SB3 or sb3-contrib, which loads its models"""
    classes = algorithm_class(name).__mro__
    return next(base for base in classes if base.__module__.partition(".")[0] in SB3_PACKAGES)


def is_on_policy(name: str) -> bool:
    return issubclass(sb3_class(name), OnPolicyAlgorithm)


def possible_learner(name: str, learner: str) -> str:
    """
    :param learner: which update the user asks for
    :return: the same, or ``"eager"`` if the algorithm has no other
    """
    return "eager" if algorithm_class(name).update_class is None else learner


def sb3_defaults(name: str) -> dict[str, Any]:
    """:return: the arguments of SB3's constructor that have a default, and these"""
    parameters = inspect.signature(sb3_class(name).__init__).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}


def arguments_of(name: str) -> set[str]:
    """:return: names of the arguments of the class with samplers: SB3's that have a default, and those of our own"""
    own = [base.__init__ for base in algorithm_class(name).__mro__ if base.__module__.startswith("sb3_walle.")]
    return {*sb3_defaults(name), *(argument for init in own for argument in inspect.signature(init).parameters)}


def check_masks(model: BaseAlgorithm) -> None:
    """:raises UsageError: if an algorithm asks environments for masks that they have not. It closes them then"""
    env = model.get_env()
    takes_masks = "action_masks" in inspect.signature(model.predict).parameters
    if takes_masks and env is not None and not env.has_attr("action_masks"):
        env.close()
        raise UsageError(f"{type(model).__name__} asks environments for action_masks(), and these have none")


def policy_of(env: gym.Env, name: str = "ppo") -> str:
    """
    :param name: the algorithm, whose policies may be recurrent
    :return: SB3's name of the policy that suits the environment's observations
    """
    if isinstance(env.observation_space, spaces.Dict):
        kind = "MultiInput"
    else:
        kind = "Cnn" if is_image_space(env.observation_space) else "Mlp"
    recurrent = f"{kind}LstmPolicy"
    return recurrent if recurrent in sb3_class(name).policy_aliases else f"{kind}Policy"
