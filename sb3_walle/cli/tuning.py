"""Which shape of samplers trains fastest: what is tried, and for how long."""

import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env

from sb3_walle.backends.limits import available_cpus
from sb3_walle.cli.algorithms import algorithm_class, is_on_policy, policy_of, possible_learner, sb3_class
from sb3_walle.cli.comparison import BUFFER_SIZE, VEC_ENVS
from sb3_walle.cli.environments import QuietFactory, check_environment, quiet_factory
from sb3_walle.cli.throughput import Stopwatch, leaving_nothing, measure
from sb3_walle.envs.sampler_shape import TYPICAL, measured_costs, predicted_rates
from sb3_walle.envs.vec_env import SamplerVecEnv
from sb3_walle.updates.global_state import threads_at_most

# The most promising numbers of samplers are tried, and of these the best ones in other modes and once more.
N_SHAPES, N_FINALISTS, N_FINALS = 4, 3, 2
# Of all the time, what one measurement lasts. The rest goes to starting, warming up and compiling.
SHARE = 1 / 40
# Of all the time, when no other number of samplers is tried, and when nothing is measured again. Slow updates, as those
# for images, leave time for few measurements.
LAST_SHAPE, LAST_FINAL = 0.3, 0.9
# Less than that much is no reason to leave what is usual.
NEARLY = 0.95
# On-policy rollouts are a part of that for the fastest contender, so that even a slow one finishes several.
ROLLOUT_SHARE, MOST_STEPS, FEWEST_STEPS, BATCH_SIZE = SHARE / 12, 2048, 8, 64
LEARNING_STARTS = 100


@dataclass(frozen=True, eq=False)
class Contender:
    """
    One way to train.

    :param algorithm: its class
    :param arguments: the arguments to copy
    :param create: makes the algorithm
    :param one_thread: whether the learner computes with one thread although there are CPUs for more
    """

    algorithm: type[BaseAlgorithm]
    arguments: dict[str, Any]
    create: Callable[[], BaseAlgorithm]
    one_thread: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether it trains with samplers."""
        return "n_samplers" in self.arguments

    @property
    def unfamiliarity(self) -> tuple:
        """Orders contenders by how far they are from what a user would have without asking."""
        if not self.is_ours:
            return (0,)
        modes: tuple[str, ...] = self.algorithm.supported_modes  # type: ignore[attr-defined]
        return 1, modes.index(self.arguments["mode"]), self.one_thread, self.arguments["n_samplers"]

    @property
    def name(self) -> str:
        """What a row of the table calls it."""
        if not self.is_ours:
            return f"{self.algorithm.__name__}, {self.arguments['vec_env_cls'].__name__}"
        words = [
            f"{self.algorithm.__name__}, {self.arguments['n_samplers']} x {self.arguments['envs_per_sampler']}",
            self.arguments["mode"],
            *(["1 thread"] if self.one_thread else []),
        ]
        return ", ".join(words)


@dataclass
class Outcome:
    """
    What was found.

    :param tuning: what was asked
    :param policy: name of the policy
    :param rates: environment steps per second of each measurement, by contender
    """

    tuning: "Tuning"
    policy: str
    rates: dict[Contender, list[float]] = field(default_factory=dict)

    def ranked(self) -> list[tuple[Contender, float]]:
        """:return: all contenders with the medians of their rates, the fastest first"""
        medians = [(contender, median(rates)) for contender, rates in self.rates.items()]
        return sorted(medians, key=lambda row: row[1], reverse=True)

    @property
    def best(self) -> Contender:
        """
        The fastest of those that were measured most often. Of those that are nearly as fast, the one in the mode that
        the algorithm has by default, with the fewest samplers.
        """
        most = max(map(len, self.rates.values()))
        finalists = [(contender, rate) for contender, rate in self.ranked() if len(self.rates[contender]) == most]
        nearly = [contender for contender, rate in finalists if rate >= NEARLY * finalists[0][1]]
        return min(nearly, key=lambda contender: contender.unfamiliarity)


@dataclass(frozen=True)
class Tuning:
    """
    What to tune, as the options of the command say.

    :param n_envs: environments, all samplers together
    :param seconds: about how long it may take
    :param learner: which update samplers train with
    """

    env: str
    algo: str = "ppo"
    n_envs: int = 16
    seconds: float = 120.0
    learner: str = "compiled"

    def run(self) -> Outcome:
        """
        Measure, and say on stderr how far it is.

        :raises UsageError: if there is no such environment, or if it does not suit the algorithm
        """
        began = time.monotonic()
        policy = policy_of(check_environment(self.env), self.algo)
        outcome, predicted = Outcome(self, policy), self._predicted_rates()
        settings = self._settings(max(predicted.values()))
        for n_samplers in sorted(predicted, key=predicted.__getitem__, reverse=True)[:N_SHAPES]:
            if not outcome.rates or time.monotonic() - began < LAST_SHAPE * self.seconds:
                self._measure(outcome, [self._with_samplers(policy, n_samplers, settings)])
        fastest, _ = outcome.ranked()[0]
        self._measure(outcome, self._of_sb3(policy, settings))
        self._measure(outcome, self._variants(policy, fastest.arguments["n_samplers"], settings))
        finalists = [contender for contender, _ in outcome.ranked()[:N_FINALISTS]]
        for _ in range(N_FINALS):
            if time.monotonic() - began < LAST_FINAL * self.seconds:
                self._measure(outcome, finalists)
        return outcome

    def _predicted_rates(self) -> dict[int, float]:
        n_steps = TYPICAL.n_steps if is_on_policy(self.algo) else 1
        with SamplerVecEnv([quiet_factory(self.env)]) as samplers:
            costs = measured_costs(samplers, self.n_envs, TYPICAL)
        return predicted_rates(self.n_envs, n_steps, costs, available_cpus())

    def _settings(self, rate: float) -> dict[str, Any]:
        """
        The hyperparameters, which are the same for all.

        :param rate: environment steps per second, roughly
        """
        if not is_on_policy(self.algo):
            return {"device": "cpu", "learning_starts": LEARNING_STARTS, "buffer_size": BUFFER_SIZE}
        n_steps = min(MOST_STEPS, max(FEWEST_STEPS, round(ROLLOUT_SHARE * self.seconds * rate / self.n_envs)))
        return {"device": "cpu", "n_steps": n_steps, "batch_size": min(BATCH_SIZE, n_steps * self.n_envs)}

    def _with_samplers(
        self, policy: str, n_samplers: int, settings: dict[str, Any], mode: str | None = None, one_thread: bool = False
    ) -> Contender:
        ours, learner = algorithm_class(self.algo), possible_learner(self.algo, self.learner)
        arguments = {
            "n_samplers": n_samplers,
            "envs_per_sampler": self.n_envs // n_samplers,
            "mode": mode or ours.supported_modes[0],
        }
        factory = quiet_factory(self.env)
        return Contender(
            ours, arguments, lambda: ours(policy, factory, learner=learner, **arguments, **settings), one_thread
        )

    def _of_sb3(self, policy: str, settings: dict[str, Any]) -> Iterable[Contender]:
        sb3: Any = sb3_class(self.algo)
        factory: QuietFactory = quiet_factory(self.env)
        for vec_env in VEC_ENVS.values():

            def create(vec_env: Any = vec_env) -> BaseAlgorithm:
                return sb3(policy, make_vec_env(factory, self.n_envs, vec_env_cls=vec_env), **settings)

            yield Contender(sb3, {"n_envs": self.n_envs, "vec_env_cls": vec_env}, create)

    def _variants(self, policy: str, n_samplers: int, settings: dict[str, Any]) -> list[Contender]:
        """The same shape in the other modes; and with one thread, where more have CPUs of their own."""
        default, *others = algorithm_class(self.algo).supported_modes
        variants = [self._with_samplers(policy, n_samplers, settings, mode) for mode in others]
        if available_cpus() - n_samplers > 1:
            variants.append(self._with_samplers(policy, n_samplers, settings, default, one_thread=True))
        return variants

    def _measure(self, outcome: Outcome, contenders: Iterable[Contender]) -> None:
        for contender in contenders:
            threads: AbstractContextManager[object] = threads_at_most(1) if contender.one_thread else nullcontext()
            with threads, leaving_nothing(contender.create) as model:
                rate = measure(model, Stopwatch(self._warm_up(model), 1, seconds=SHARE * self.seconds))
            outcome.rates.setdefault(contender, []).append(rate)
            print(f"{contender.name}: {rate:,.0f} steps/s", file=sys.stderr)

    def _warm_up(self, model: Any) -> int:
        """Environment steps until the first update is over, which may wait for a compiler."""
        return 2 * model.n_steps * self.n_envs if is_on_policy(self.algo) else 2 * LEARNING_STARTS
