"""A comparison of the returns of an off-policy algorithm of ours and SB3's."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.noise import NormalActionNoise

from benchmarks.contenders import AsyncContender, Trainee, VecEnvContender
from benchmarks.returns.returns_settings import ReturnsSettings
from sb3_walle import PrioritizedReplayBuffer
from sb3_walle.cli.algorithms import algorithm_class, sb3_class
from sb3_walle.cli.environments import check_environment

# Of algorithms whose policy does not explore by itself.
NOISE = 0.1
# SB3's defaults of DQN are for Atari games. These are RL Baselines3 Zoo's for CartPole, where 128 gradient steps follow
# 256 steps.
DQN_ARGUMENTS: dict[str, Any] = {
    "train_freq": 256,
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1000,
    "target_update_interval": 10,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
}
# The Zoo's for other environments, with fewer gradient steps in LunarLander, where it makes one for each step.
DQN_ARGUMENTS_OF: dict[str, dict[str, Any]] = {
    "LunarLander-v3": {
        "train_freq": 160,
        "learning_rate": 6.3e-4,
        "batch_size": 128,
        "buffer_size": 50_000,
        "learning_starts": 0,
        "target_update_interval": 250,
        "gradient_steps": 40,
        "exploration_fraction": 0.12,
        "exploration_final_eps": 0.1,
        "policy_kwargs": {"net_arch": [256, 256]},
    },
}


@dataclass(frozen=True)
class OffPolicyReturns(ReturnsSettings):
    """
    An off-policy algorithm of ours, and SB3's.

    :param algorithm: one of :data:`~sb3_walle.cli.arguments.ALGORITHMS`
    :param arguments: arguments of the algorithm, for all contenders; by default one gradient step for each step of each
        environment, and otherwise SB3's, with action noise where it takes some to explore; those of DQN are chosen for
        CartPole and LunarLander
    :param of_ours: further arguments of ours
    :param prioritized: whether ours also trains with prioritised replay in each of its modes
    """

    algorithm: str = "sac"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    of_ours: Mapping[str, Any] = field(default_factory=dict)
    prioritized: bool = False

    def describe_algorithm(self) -> dict[str, Any]:
        """:return: what runs must have in common, of the algorithm alone"""
        return {"algorithm": self.algorithm, **self._common_arguments(), "noise": self._noise(), **self.of_ours}

    def algorithm_in_words(self) -> list[str]:
        """:return: how the algorithm is set, in lines"""
        given = ", ".join(f"{name}={value}" for name, value in self._common_arguments().items())
        noise = self._noise()
        return [
            f"{given}; all other arguments are the defaults of {self.algorithm.upper()}",
            *([] if noise is None else [f"normal action noise with standard deviation {noise}"]),
        ]

    def trainees(self) -> tuple[Trainee, ...]:
        """
        :return: SB3's algorithm first, ours in each of its modes, and perhaps each of these with prioritised replay
        :raises UsageError: if there is no such environment
        """
        sb3, ours = sb3_class(self.algorithm), algorithm_class(self.algorithm)
        space = check_environment(self.env_id).action_space
        arguments, noise = self._common_arguments(), self._noise()
        # SB3 refuses other spaces, in its own words.
        if noise is not None and isinstance(space, spaces.Box):
            arguments["action_noise"] = NormalActionNoise(np.zeros(space.shape), np.full(space.shape, noise))
        lockstep = VecEnvContender("DummyVecEnv", self.n_envs, algorithm=sb3)
        samplers = AsyncContender(self.n_samplers, self.envs_per_sampler, algorithm=ours)
        reference, *uniform = self.trainees_of(lockstep, samplers, arguments, self.of_ours)
        prioritized = [_with_priorities(trainee) for trainee in uniform] if self.prioritized else []
        return (reference, *uniform, *prioritized)

    def _common_arguments(self) -> dict[str, Any]:
        if self.algorithm == "dqn":
            arguments = DQN_ARGUMENTS_OF.get(self.env_id, DQN_ARGUMENTS)
            # Steps of each environment.
            train_freq = max(1, arguments["train_freq"] // self.n_envs)
            return {**arguments, "train_freq": train_freq, **self.arguments}
        return {"train_freq": 1, "gradient_steps": -1, **self.arguments}

    def _noise(self) -> float | None:
        return NOISE if self.algorithm in ("td3", "ddpg") else None


def _with_priorities(trainee: Trainee) -> Trainee:
    arguments = {**trainee.arguments, "replay_buffer_class": PrioritizedReplayBuffer}
    return replace(trainee, name=f"{trainee.name}, prioritised", arguments=arguments)
