"""What figures are asked for: which workloads, which numbers of samplers, and how much of everything."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.contenders import AsyncContender, Contender
from benchmarks.figures import walle_report
from benchmarks.slow_envs import Slowness
from sb3_walle.backends.limits import available_cpus
from sb3_walle.cli.hyperparameters import HALF_CHEETAH


@dataclass(frozen=True)
class Agent:
    """
    Who learns: the same agent at every number of samplers.

    :param name: its name
    :param ppo: arguments of PPO
    :param objective: AsyncPPO's objective
    """

    name: str
    ppo: Mapping[str, Any]
    objective: str = "clip"

    @property
    def learner(self) -> str:
        """The update of measurements, where no training is long enough to be worth compiling for."""
        return "compiled" if self.objective == "clip" else "eager"

    def arguments(self, contender: Contender, n_steps: int) -> dict[str, Any]:
        """
        :param n_steps: steps of each environment in an iteration
        :return: arguments of its algorithm
        """
        arguments = {**self.ppo, "n_steps": n_steps, "normalize": {"gamma": self.ppo["gamma"]}}
        if not isinstance(contender, AsyncContender):
            return arguments
        # Those that end an episode are all that the callbacks look at. SB3's PPO clips.
        return {**arguments, "objective": self.objective, "info_keys": ()}


AGENTS = {
    agent.name: agent
    for agent in (
        Agent("ppo", HALF_CHEETAH),
        # With about as much time for learning as the report has.
        Agent("walle", {**HALF_CHEETAH, "batch_size": 500, "n_epochs": 20}, objective="kl_penalty"),
    )
}


@dataclass(frozen=True)
class Workload:
    """
    What samplers have to do.

    :param env_id: Gymnasium id of the environment
    :param slowness: how slow it is; None for as it is
    """

    env_id: str
    slowness: Slowness | None = None

    @property
    def name(self) -> str:
        """What tables and figures call it."""
        if self.slowness is None:
            return self.env_id
        latency = f"{1e3 * self.slowness.step_latency:g} ms a step"
        return f"a simulator elsewhere, {latency}" if self.slowness.elsewhere else f"{self.env_id}, {latency}"


def default_n_samplers(n_cpus: int) -> tuple[int, ...]:
    """:return: the report's numbers of samplers, and more until there are more samplers than CPUs"""
    numbers = [*walle_report.SPEED_UP]
    while numbers[-1] <= n_cpus:
        numbers.append(2 * numbers[-1])
    return tuple(numbers)


# Otherwise than in a full run.
QUICK = {
    "samples_per_iteration": 4_000,
    "iterations": 1,
    "repeats": 1,
    "timesteps": 40_000,
    "n_seeds": 1,
    "n_bins": 4,
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
    samples_per_iteration: int = walle_report.SAMPLES_PER_ITERATION
    iterations: int = 2
    repeats: int = 3
    learning_n_samplers: tuple[int, ...] = (1, 10)
    timesteps: int = 2_000_000
    n_seeds: int = 3
    n_bins: int = 40

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """
        Of which the time of iterations is measured: the environment as it is, bounded by the CPUs that there are; and
        one like it that leaves them alone.
        """
        return self._with_slow(elsewhere=True)

    @property
    def learning_workloads(self) -> tuple[Workload, ...]:
        """In which there is something to learn: the environment as it is, and the same one with slower steps."""
        return self._with_slow(elsewhere=False)

    def _with_slow(self, elsewhere: bool) -> tuple[Workload, ...]:
        as_it_is = Workload(self.env_id)
        if not self.step_latency:
            return (as_it_is,)
        return (as_it_is, Workload(self.env_id, Slowness(self.step_latency, elsewhere)))

    def n_steps(self, n_envs: int) -> int:
        """:return: steps of each in an iteration"""
        return self.samples_per_iteration // n_envs

    @classmethod
    def of(cls, quick: bool, **given: Any) -> "FiguresSettings":
        """
        :param quick: whether to do so little of everything that it takes some minutes
        :param given: what replaces the defaults, by name; the agent by its name
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
