"""Hyperparameters that suit an environment: what they are, and those that sb3_walle knows itself."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch as th
from stable_baselines3.common.utils import LinearSchedule

from sb3_walle.cli.environments import WrapperSpec


@dataclass(frozen=True)
class Hyperparameters:
    """
    What suits an environment.

    :param source: where they come from
    :param total_timesteps: environment steps that they take to learn it
    :param n_envs: number of environments, all samplers together
    :param arguments: arguments of the algorithm that are not its defaults
    :param policy: the policy; ``None`` for the one that suits the environment's observations
    :param wrappers: wrappers around each environment, from the inside to the outside
    :param frame_stack: observations that the policy sees at once, with ``VecFrameStack``; ``None`` for one alone
    :param left_out: what else the source has, and why ``sb3-walle train`` does without it
    """

    source: str
    total_timesteps: int
    n_envs: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    policy: str | None = None
    wrappers: tuple[WrapperSpec, ...] = ()
    frame_stack: int | None = None
    left_out: tuple[str, ...] = ()


# Activation, initial weights, discount and lambda are those that the RL Zoo has for HalfCheetah; initial actions vary
# more. All else is SB3's default, which suits rollouts of many samples better than the Zoo's small steps.
HALF_CHEETAH: Mapping[str, Any] = {
    "gamma": 0.98,
    "gae_lambda": 0.92,
    "policy_kwargs": {"activation_fn": th.nn.ReLU, "ortho_init": False, "log_std_init": -1.0},
}
FIGURES = "sb3_walle's figures"
# https://github.com/DLR-RM/rl-baselines3-zoo, version 2.9.2.
ZOO = "the RL Zoo's hyperparams/ppo.yml"
# Those of the PPO paper (Schulman et al., 2017, table 3), normalised. The Zoo's tuned ones for Hopper-v4 (996 after
# 2.5 minutes) and Walker2d-v4 have larger networks or smaller minibatches.
MUJOCO = Hyperparameters("the RL Zoo's mujoco-defaults", 1_000_000, 8, {"n_steps": 256, "normalize": True})

#: of PPO, by the name of the environment without its version
TABLE: Mapping[str, Hyperparameters] = {
    # The Zoo's take a quarter of an hour.
    "HalfCheetah": Hyperparameters(FIGURES, 2_000_000, 10, {"n_steps": 2048, "normalize": True, **HALF_CHEETAH}),
    "CartPole": Hyperparameters(
        ZOO,
        100_000,
        8,
        {
            "n_steps": 32,
            "batch_size": 256,
            "n_epochs": 20,
            "learning_rate": LinearSchedule(1e-3, 0, 1),
            "gamma": 0.98,
            "gae_lambda": 0.8,
            "clip_range": LinearSchedule(0.2, 0, 1),
        },
    ),
    "Pendulum": Hyperparameters(
        ZOO,
        100_000,
        4,
        {"n_steps": 1024, "learning_rate": 1e-3, "gamma": 0.9, "use_sde": True, "sde_sample_freq": 4},
    ),
    "Hopper": MUJOCO,
    "Walker2d": MUJOCO,
    "Ant": MUJOCO,
}


def without_version(env_id: str) -> str:
    return re.sub(r"-v\d+$", "", env_id)
