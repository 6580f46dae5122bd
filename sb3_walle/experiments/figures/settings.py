"""What figures are asked for: which workloads, which numbers of samplers, and how much of everything."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sb3_walle.env_sources import available_cpus
from sb3_walle.experiments.figures import the_report


@dataclass(frozen=True)
class Agent:
    """
    Who learns. It is the same one whatever the number of samplers.

    :param name: its name
    :param ppo: arguments of PPO
    :param normalize: arguments of ``VecNormalize``
    """

    name: str
    ppo: Mapping[str, Any]
    normalize: Mapping[str, Any]


GAMMA = 0.99
AGENTS = {
    agent.name: agent for agent in (Agent("ppo", {"gamma": GAMMA, "batch_size": 64, "n_epochs": 10}, {"gamma": GAMMA}),)
}


@dataclass(frozen=True)
class Workload:
    """
    What samplers have to do.

    :param env_id: Gymnasium id of the environment
    :param step_latency: seconds that a step takes at least
    """

    env_id: str
    step_latency: float = 0.0

    @property
    def name(self) -> str:
        """What tables and figures call it."""
        return f"{self.env_id}, {1e3 * self.step_latency:g} ms a step" if self.step_latency else self.env_id


def default_n_samplers(n_cpus: int) -> tuple[int, ...]:
    """
    :param n_cpus: number of CPUs
    :return: the report's numbers of samplers, and more until there are more samplers than CPUs
    """
    numbers = [*the_report.SPEED_UP]
    while numbers[-1] <= n_cpus:
        numbers.append(2 * numbers[-1])
    return tuple(numbers)


# Otherwise than in a full run.
QUICK = {
    "samples_per_iteration": 4_000,
    "iterations": 1,
    "repeats": 1,
    "timesteps": 60_000,
    "n_seeds": 1,
    "n_bins": 6,
}


@dataclass(frozen=True)
class FiguresSettings:
    """
    What to measure, and with what.

    :param env_id: Gymnasium id of the environment
    :param agent: who learns
    :param step_latency: seconds that a step of the slow environment takes; 0 for no slow environment
    :param n_samplers: numbers of samplers of which the time of an iteration is measured
    :param overlap_n_samplers: number of samplers, and of SB3's environments, with which the modes are compared
    :param samples_per_iteration: environment steps of an iteration, all environments together
    :param iterations: iterations of each measurement, after those to warm up
    :param repeats: times to measure everything
    :param learning_n_samplers: numbers of samplers that train for the curves of the return
    :param timesteps: environment steps of each training, all environments together
    :param n_seeds: trainings of each kind; their seeds are 0, 1, 2, ...
    :param n_bins: bins into which the steps of a training are divided
    """

    env_id: str = "HalfCheetah-v4"
    agent: Agent = AGENTS["ppo"]
    step_latency: float = 1e-3
    n_samplers: tuple[int, ...] = default_n_samplers(available_cpus())
    overlap_n_samplers: int = 10
    samples_per_iteration: int = the_report.SAMPLES_PER_ITERATION
    iterations: int = 2
    repeats: int = 3
    learning_n_samplers: tuple[int, ...] = (1, 10)
    timesteps: int = 5_000_000
    n_seeds: int = 3
    n_bins: int = 50

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """The environment as it is, and a slow one."""
        as_it_is = Workload(self.env_id)
        return (as_it_is, Workload(self.env_id, self.step_latency)) if self.step_latency else (as_it_is,)

    def n_steps(self, n_envs: int) -> int:
        """
        :param n_envs: number of environments
        :return: steps of each in an iteration
        """
        return self.samples_per_iteration // n_envs

    @classmethod
    def of(cls, quick: bool, **given: Any) -> "FiguresSettings":
        """
        :param quick: whether there is to be so little of everything that it takes some minutes
        :param given: what is to be otherwise than it would be, by name; the agent by its name
        :return: the settings
        """
        if "agent" in given:
            given["agent"] = AGENTS[given["agent"]]
        numbers = {name: tuple(dict.fromkeys(value)) for name, value in given.items() if isinstance(value, list)}
        return cls(**{**(QUICK if quick else {}), **given, **numbers})

    def describe(self) -> dict[str, Any]:
        """:return: what results must have in common to be of the same figures, as JSON-serialisable values by name"""
        return {
            "env_id": self.env_id,
            "agent": self.agent.name,
            "step_latency": self.step_latency,
            "overlap_n_samplers": self.overlap_n_samplers,
            "samples_per_iteration": self.samples_per_iteration,
            "iterations": self.iterations,
            "timesteps": self.timesteps,
            "n_bins": self.n_bins,
        }
