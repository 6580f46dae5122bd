"""A comparison of the returns of AsyncPPO and SB3's PPO, or of TRPO."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from benchmarks.contenders import AsyncContender, Trainee, VecEnvContender
from benchmarks.returns.returns_settings import ReturnsSettings
from sb3_walle.cli.algorithms import algorithm_class, sb3_class
from sb3_walle.cli.hyperparameter_choice import in_words

# What SB3's PPO collects in an iteration with one environment.
SAMPLES_PER_ITERATION = 2048
# Default of SB3's PPO, and of TRPO.
GAMMA = 0.99


@dataclass(frozen=True)
class PPOReturns(ReturnsSettings):
    """
    AsyncPPO and SB3's PPO; or AsyncTRPO and sb3-contrib's TRPO.

    :param ppo: arguments of the algorithm, for all contenders; by default SB3's, but for ``n_steps``, with which an
        iteration has as many samples as it has there with one environment
    :param async_ppo: further arguments of ours
    :param algorithm: ``"ppo"`` or ``"trpo"``
    """

    # Networks as small as PPO's are faster with one thread, in SB3 as well.
    n_threads: ClassVar[int | None] = 1

    ppo: Mapping[str, Any] = field(default_factory=dict)
    async_ppo: Mapping[str, Any] = field(default_factory=dict)
    algorithm: str = "ppo"

    @property
    def n_steps(self) -> int:
        """Steps of each environment in an iteration."""
        return self.ppo.get("n_steps", max(1, SAMPLES_PER_ITERATION // self.n_envs))

    def describe_algorithm(self) -> dict[str, Any]:
        """:return: what runs must have in common, of the algorithm alone"""
        # Runs of PPO can be continued that do not say that they are.
        name = {} if self.algorithm == "ppo" else {"algorithm": self.algorithm}
        return {**name, **as_json({**self.ppo, "n_steps": self.n_steps}), **self.async_ppo}

    def algorithm_in_words(self) -> list[str]:
        """:return: how the algorithm is set, in lines"""
        arguments = in_words({name: value for name, value in self.ppo.items() if name != "n_steps"})
        return [
            f"n_steps={self.n_steps}, which makes {self.n_steps * self.n_envs:,} samples an iteration",
            arguments or f"all other arguments are the defaults of {self.algorithm.upper()}",
        ]

    def trainees(self) -> tuple[Trainee, ...]:
        """:return: SB3's algorithm, and ours in each of its modes"""
        arguments: dict[str, Any] = {**self.ppo, "n_steps": self.n_steps}
        if self.normalize:
            # Rewards are divided by the spread of returns, which are discounted as the algorithm discounts them.
            given = self.normalize if isinstance(self.normalize, Mapping) else {}
            arguments["normalize"] = {"gamma": self.ppo.get("gamma", GAMMA), **given}
        sb3, ours = sb3_class(self.algorithm), algorithm_class(self.algorithm)
        lockstep = VecEnvContender("DummyVecEnv", self.n_envs, algorithm=sb3)
        # The benchmark has no use for the mode "free", AsyncPPO has.
        samplers = AsyncContender(self.n_samplers, self.envs_per_sampler, algorithm=ours)
        return self.trainees_of(lockstep, samplers, arguments, self.async_ppo)


def as_json(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """:return: arguments as JSON-serialisable values, classes and schedules in words"""
    plain = (bool, int, float, str, type(None))
    return {name: value if isinstance(value, plain) else in_words({name: value}) for name, value in arguments.items()}
