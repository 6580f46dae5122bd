"""How many samplers hold how many environments: worked out where the user leaves it open."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from gymnasium import spaces

from sb3_walle.envs.vec_env import SamplerVecEnv
from sb3_walle.samplers.requests import HasAttr
from sb3_walle.samplers.step_time import MeasureStep, StepTime

STEP_SECONDS = 1.0
N_MESSAGES = 20
# A sampler more has to be worth its memory and its start.
WORTHWHILE = 0.9
# What NumPy takes to choose the actions of a few environments with a small network, a sampler's own work included.
NUMPY_SECONDS = 40e-6


@dataclass(frozen=True)
class Workload:
    """
    What samplers do beside stepping environments.

    :param n_steps: steps of each environment that a sampler makes for one request
    :param seconds_to_act: how long a policy for these spaces takes to choose the actions of that many environments
    :param has_seed: whether the user wants to repeat the run, so that nothing may depend on measurements
    :param verbose: whether to print what was worked out: 1 or more
    """

    n_steps: int = 128
    seconds_to_act: Callable[[spaces.Space, spaces.Space, int], float] = lambda *_: NUMPY_SECONDS
    has_seed: bool = False
    verbose: int = 0


#: where nothing more is known
TYPICAL = Workload()


@dataclass(frozen=True)
class Costs:
    """
    What was measured, in seconds.

    :param step: a step of one environment, with its share of resets
    :param step_cpu: what of that takes a CPU
    :param act_one: choosing the action of one environment
    :param act_all: choosing the actions of all environments at once
    :param message: asking a sampler for something, and getting the answer
    """

    step: float
    step_cpu: float
    act_one: float
    act_all: float
    message: float

    def act(self, n_envs: int, n_all: int) -> float:
        """Seconds in which the actions of that many environments are chosen."""
        return self.act_one + (self.act_all - self.act_one) * (n_envs - 1) / max(1, n_all - 1)

    def __str__(self) -> str:
        waiting = max(0.0, 1 - self.step_cpu / self.step)
        return (
            f"a step takes {_in_words(self.step)}, {waiting:.0%} of it waiting; choosing an action takes about "
            f"{_in_words(self.act_one)}, a message to a sampler {_in_words(self.message)}"
        )


def measured_costs(samplers: SamplerVecEnv, n_envs: int, workload: Workload) -> Costs:
    """
    :param samplers: one sampler with one environment, which is of no use for training afterwards
    :param n_envs: number of environments that there are going to be
    :param workload: what samplers do beside stepping environments
    """
    step: StepTime = samplers.client.call({0: MeasureStep(STEP_SECONDS)})[0]
    spaces_of_envs = samplers.observation_space, samplers.action_space
    return Costs(
        step.seconds,
        step.cpu_seconds,
        workload.seconds_to_act(*spaces_of_envs, 1),
        workload.seconds_to_act(*spaces_of_envs, n_envs),
        median(_seconds_of_message(samplers) for _ in range(N_MESSAGES)),
    )


def _seconds_of_message(samplers: SamplerVecEnv) -> float:
    started = time.perf_counter()
    samplers.client.call({0: HasAttr("spec", [0])})
    return time.perf_counter() - started


def measured_n_samplers(n_envs: int, n_steps: int, costs: Costs, n_cpus: float) -> int:
    """
    :return: the number of samplers that collects fastest, as :func:`predicted_rates` says, or the smallest that is
        nearly as fast
    """
    rates = predicted_rates(n_envs, n_steps, costs, n_cpus)
    return next(n_samplers for n_samplers, rate in rates.items() if rate >= WORTHWHILE * max(rates.values()))


def predicted_rates(n_envs: int, n_steps: int, costs: Costs, n_cpus: float) -> dict[int, float]:
    """
    :param n_envs: number of environments
    :param n_steps: steps of each environment that a sampler makes for one request
    :param n_cpus: CPUs that samplers have, which may be infinite
    :return: environment steps per second, by each number of samplers that divides the environments, in their order
    """

    def steps_per_second(n_samplers: int) -> float:
        n_own = n_envs // n_samplers
        act = costs.act(n_own, n_envs)
        alone, busy = n_own * costs.step + act, n_own * costs.step_cpu + act
        seconds = n_steps * max(alone, busy * n_samplers / n_cpus) + n_samplers * costs.message
        return n_envs * n_steps / seconds

    return {n_samplers: steps_per_second(n_samplers) for n_samplers in divisors(n_envs)}


def repeatable_n_samplers(n_envs: int, n_cpus: float) -> int:
    """:return: the greatest number of samplers that divides the environments, of at most one a CPU"""
    return max(n_samplers for n_samplers in divisors(n_envs) if n_samplers <= n_cpus)


def divisors(number: int) -> list[int]:
    """:return: all numbers that divide another, in their order"""
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _in_words(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{1e3 * seconds:.1f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.0f} us"
