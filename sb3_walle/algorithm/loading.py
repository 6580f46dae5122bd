"""What ``load()`` takes beside SB3's own arguments."""

import io
import pathlib
from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from sb3_walle.collection.modes import REALTIME
from sb3_walle.envs.env_sources import EnvSource, SamplerChoices
from sb3_walle.saving import saved_value


def choices_to_load(
    path: str | pathlib.Path | io.BufferedIOBase, env: EnvSource, arguments: dict[str, Any]
) -> SamplerChoices:
    """
    :param path: where the model was saved
    :param env: environments to train in
    :param arguments: keyword arguments of ``load()``; those that say how to start samplers are taken out, and all
        others become attributes of the model, as SB3's ``load()`` makes them
    :return: how to start samplers
    :raises ValueError: if one of the arguments is wrong
    """
    if not isinstance(env, VecEnv):
        arguments.setdefault("observe_last_action", saved_value(path, "observe_last_action"))
    choices = SamplerChoices.taken_from(arguments)
    if arguments.get("mode", saved_value(path, "mode")) == REALTIME:
        choices = choices.for_plants(env)
    if arguments.get("mode", "free") != "free":
        # The bound that was saved belongs to the mode that was saved.
        arguments.setdefault("max_policy_lag", None)
    if "normalize" in arguments:
        raise ValueError(
            "load() takes no normalize: the policy was trained with the statistics that were saved beside it. "
            "Pass env=VecNormalize.load(path_of_the_statistics, SamplerVecEnv(...))."
        )
    if "actor" in arguments:
        arguments["sampler_actor"] = arguments.pop("actor")
    return choices
