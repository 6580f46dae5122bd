"""A comparison of the returns of AsyncPPO and SB3's PPO."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from benchmarks.contenders import AsyncContender, Trainee, VecEnvContender
from benchmarks.returns.returns_settings import ReturnsSettings
from sb3_walle.cli.hyperparameter_choice import in_words

# What SB3's PPO collects in an iteration with one environment.
SAMPLES_PER_ITERATION = 2048
# Default of SB3's PPO.
GAMMA = 0.99


@dataclass(frozen=True)
class PPOReturns(ReturnsSettings):
    """
    AsyncPPO and SB3's PPO.

    :param ppo: arguments of PPO, for all contenders; by default SB3's, but for ``n_steps``, with which an iteration has
        as many samples as it has there with one environment
    :param async_ppo: further arguments of AsyncPPO
    """

    # Networks as small as PPO's are faster with one thread, in SB3 as well.
    n_threads: ClassVar[int | None] = 1

    ppo: Mapping[str, Any] = field(default_factory=dict)
    async_ppo: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_steps(self) -> int:
        """Steps of each environment in an iteration."""
        return self.ppo.get("n_steps", max(1, SAMPLES_PER_ITERATION // self.n_envs))

    def describe_algorithm(self) -> dict[str, Any]:
        """:return: what runs must have in common, of PPO alone"""
        return {**as_json({**self.ppo, "n_steps": self.n_steps}), **self.async_ppo}

    def algorithm_in_words(self) -> list[str]:
        """:return: how PPO is set, in lines"""
        arguments = in_words({name: value for name, value in self.ppo.items() if name != "n_steps"})
        return [
            f"n_steps={self.n_steps}, which makes {self.n_steps * self.n_envs:,} samples an iteration",
            arguments or "all other arguments are the defaults of PPO",
        ]

    def trainees(self) -> tuple[Trainee, ...]:
        """:return: SB3's PPO, and AsyncPPO in each of its modes"""
        arguments: dict[str, Any] = {**self.ppo, "n_steps": self.n_steps}
        if self.normalize:
            # Rewards are divided by the spread of returns, which are discounted as the algorithm discounts them.
            given = self.normalize if isinstance(self.normalize, Mapping) else {}
            arguments["normalize"] = {"gamma": self.ppo.get("gamma", GAMMA), **given}
        lockstep = VecEnvContender("DummyVecEnv", self.n_envs)
        # The benchmark has no use for the mode "free", AsyncPPO has.
        samplers = AsyncContender(self.n_samplers, self.envs_per_sampler)
        return self.trainees_of(lockstep, samplers, arguments, self.async_ppo)


def as_json(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """:return: arguments as JSON-serialisable values, classes and schedules in words"""
    plain = (bool, int, float, str, type(None))
    return {name: value if isinstance(value, plain) else in_words({name: value}) for name, value in arguments.items()}
