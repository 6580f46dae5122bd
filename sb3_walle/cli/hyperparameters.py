"""The hyperparameters that ``sb3-walle train`` takes for an environment where the user gives none."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch as th
from stable_baselines3.common.utils import LinearSchedule

from sb3_walle.on_policy.rollout_size import steps_per_env

# SB3's, which hold where an argument is not given.
BATCH_SIZE = 64
TOTAL_TIMESTEPS = 1_000_000


@dataclass(frozen=True)
class Hyperparameters:
    """
    A row of the table: what suits an environment, with any number of samplers.

    :param source: where they come from
    :param total_timesteps: environment steps that they take to learn it
    :param n_samples: samples of a rollout, all environments together
    :param arguments: arguments of :class:`~sb3_walle.AsyncPPO` that are not its defaults
    """

    source: str
    total_timesteps: int
    n_samples: int
    arguments: Mapping[str, Any] = field(default_factory=dict)


# Activation, initial weights, discount and lambda are those that the RL Zoo has for HalfCheetah; initial actions vary
# more. All else is SB3's default, which suits rollouts of many samples better than the Zoo's small steps.
HALF_CHEETAH: Mapping[str, Any] = {
    "gamma": 0.98,
    "gae_lambda": 0.92,
    "policy_kwargs": {"activation_fn": th.nn.ReLU, "ortho_init": False, "log_std_init": -1.0},
}
FIGURES = "sb3_walle's figures"
# https://github.com/DLR-RM/rl-baselines3-zoo, version 2.9.2. It trains with one to eight environments.
ZOO = "the RL Zoo's hyperparams/ppo.yml"
# Those of the PPO paper (Schulman et al., 2017, table 3), normalised. The Zoo's tuned ones for Hopper-v4 (996 after
# 2.5 minutes) and Walker2d-v4 have larger networks or smaller minibatches.
MUJOCO = Hyperparameters("the RL Zoo's mujoco-defaults", 1_000_000, 2048, {"normalize": True})

#: by the name of the environment without its version
TABLE: Mapping[str, Hyperparameters] = {
    # The Zoo's take a quarter of an hour.
    "HalfCheetah": Hyperparameters(FIGURES, 2_000_000, 20_480, {"normalize": True, **HALF_CHEETAH}),
    "CartPole": Hyperparameters(
        ZOO,
        100_000,
        256,
        {
            "batch_size": 256,
            "n_epochs": 20,
            "learning_rate": LinearSchedule(1e-3, 0, 1),
            "gamma": 0.98,
            "gae_lambda": 0.8,
            "clip_range": LinearSchedule(0.2, 0, 1),
        },
    ),
    "Pendulum": Hyperparameters(
        ZOO, 100_000, 4096, {"learning_rate": 1e-3, "gamma": 0.9, "use_sde": True, "sde_sample_freq": 4}
    ),
    "Hopper": MUJOCO,
    "Walker2d": MUJOCO,
    "Ant": MUJOCO,
}


@dataclass(frozen=True)
class Choice:
    """
    What a run trains with.

    :param total_timesteps: environment steps to train for, all environments together
    :param arguments: arguments of :class:`~sb3_walle.AsyncPPO` that are not its defaults
    :param reason: which these are, and why, in one line
    """

    total_timesteps: int
    arguments: Mapping[str, Any]
    reason: str


def choose_hyperparameters(env_id: str, n_envs: int, given: Mapping[str, Any], plain: bool) -> Choice:
    """
    Take the hyperparameters that suit the environment, but for what the user gives.

    :param given: what the user gives: arguments of :class:`~sb3_walle.AsyncPPO`, and ``timesteps``
    :param plain: whether to take SB3's defaults for any environment
    """
    arguments = dict(given)
    total_timesteps = arguments.pop("timesteps", None)
    known = TABLE.get(re.sub(r"-v\d+$", "", env_id))
    if plain or known is None:
        why = "as --plain says" if plain else f"for 'sb3-walle train' knows no better ones for {env_id}"
        but = f", but for {in_words(arguments)}" if arguments else ""
        return Choice(total_timesteps or TOTAL_TIMESTEPS, arguments, f"SB3's defaults{but}, {why}")
    own = in_words(arguments)
    arguments = {**known.arguments, **arguments}
    if "n_steps" not in given:
        batch_size = arguments.get("batch_size", BATCH_SIZE)
        arguments["n_steps"] = steps_per_env(known.n_samples, n_envs, batch_size)
        n_samples = arguments["n_steps"] * n_envs
        if "batch_size" not in given and n_samples < batch_size:
            arguments["batch_size"] = n_samples
    but = f", but for {own}" if own else ""
    reason = f"for {env_id} from {known.source}{but} (--plain takes SB3's defaults): {in_words(arguments)}"
    return Choice(total_timesteps or known.total_timesteps, arguments, reason)


def in_words(arguments: Mapping[str, Any]) -> str:
    """:return: arguments as they stand in a call"""
    return ", ".join(f"{name}={_value(value)}" for name, value in arguments.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"dict({in_words(value)})"
    if isinstance(value, LinearSchedule):
        return f"LinearSchedule({value.start}, {value.end}, {value.end_fraction})"
    return getattr(value, "__name__", repr(value))
