"""A comparison of the returns of an off-policy algorithm of ours and SB3's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.noise import NormalActionNoise

from benchmarks.contenders import AsyncContender, Trainee, VecEnvContender
from benchmarks.returns.returns_settings import ReturnsSettings
from sb3_walle.cli.comparison import ALGORITHMS
from sb3_walle.cli.environments import check_environment

# Of algorithms whose policy does not explore by itself.
NOISE = 0.1
# SB3's defaults of DQN are for Atari games. These are RL Baselines3 Zoo's for CartPole, where 128 gradient steps follow
# 256 steps.
STEPS_OF_DQN = 256
DQN_ARGUMENTS = {
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1000,
    "target_update_interval": 10,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
}


@dataclass(frozen=True)
class OffPolicyReturns(ReturnsSettings):
    """
    An off-policy algorithm of ours, and SB3's.

    :param algorithm: one of :data:`~sb3_walle.cli.comparison.ALGORITHMS`
    :param arguments: arguments of the algorithm, for all contenders; by default one gradient step for each step of each
        environment, and otherwise SB3's, with action noise where it takes some to explore; those of DQN are chosen for
        CartPole
    :param of_ours: further arguments of ours
    """

    algorithm: str = "sac"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    of_ours: Mapping[str, Any] = field(default_factory=dict)

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
        :return: SB3's algorithm first, and ours in each of its modes
        :raises UsageError: if there is no such environment
        """
        sb3, ours = ALGORITHMS[self.algorithm]
        space = check_environment(self.env_id).action_space
        arguments, noise = self._common_arguments(), self._noise()
        # SB3 refuses other spaces, in its own words.
        if noise is not None and isinstance(space, spaces.Box):
            arguments["action_noise"] = NormalActionNoise(np.zeros(space.shape), np.full(space.shape, noise))
        lockstep = VecEnvContender("DummyVecEnv", self.n_envs, algorithm=sb3)
        samplers = AsyncContender(self.n_samplers, self.envs_per_sampler, algorithm=ours)
        return self.trainees_of(lockstep, samplers, arguments, self.of_ours)

    def _common_arguments(self) -> dict[str, Any]:
        if self.algorithm == "dqn":
            return {"train_freq": max(1, STEPS_OF_DQN // self.n_envs), **DQN_ARGUMENTS, **self.arguments}
        return {"train_freq": 1, "gradient_steps": -1, **self.arguments}

    def _noise(self) -> float | None:
        return NOISE if self.algorithm in ("td3", "ddpg") else None
