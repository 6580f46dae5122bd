"""Where an iteration's time goes on the learner's side."""

import cProfile
import time
from collections.abc import Callable
from contextlib import suppress
from types import CodeType
from typing import Any

from sb3_walle import AsyncPPO
from sb3_walle.collection.collector import Collector
from sb3_walle.experiments.benchmark.settings import BenchmarkSettings
from sb3_walle.experiments.benchmark.throughput import RolloutClock, steps_per_env
from sb3_walle.experiments.contenders import Contender, running
from sb3_walle.on_policy import values
from sb3_walle.on_policy.advantages import compute_advantages
from sb3_walle.on_policy.on_policy_mixin import AsyncOnPolicyMixin
from sb3_walle.on_policy.policy_lag import correct_for_policy_lag
from sb3_walle.on_policy.rollout_buffer import add_rows
from sb3_walle.on_policy.step_reporter import StepReporter

REST = "all the rest"
# None of them calls another one.
PHASES: dict[str, Callable[..., Any]] = {
    "update": AsyncPPO._update,
    "waiting for chunks, publishing weights": Collector.collect,
    "correcting advantages for the lag": correct_for_policy_lag,
    "values": values.rollout_values,
    "values where episodes were truncated": values.learner_rewards,
    "values after the last step": values.last_values,
    "callbacks": StepReporter.report,
    "filling the buffer": add_rows,
    "advantages": compute_advantages,
    "logging": AsyncOnPolicyMixin.dump_logs,
}


class _ProfiledRollouts(RolloutClock):
    """
    Profiles from the end of the second rollout to the end of the last: before, updates may wait for a compiler.

    :param n_rollouts: the number of rollouts
    """

    def __init__(self, n_rollouts: int) -> None:
        super().__init__(n_rollouts)
        self.profile = cProfile.Profile(time.perf_counter, builtins=False)

    def _on_rollout_end(self) -> None:
        if len(self.times) == 1:
            self.profile.enable()
        try:
            super()._on_rollout_end()
        except self.Done:
            self.profile.disable()
            raise


def measure_iteration(contender: Contender, settings: BenchmarkSettings) -> dict[str, float]:
    """
    Train under a profiler, which makes Python's own calls a little slower.

    :param contender: a configuration of AsyncPPO
    :param settings: with what
    :return: milliseconds of an iteration by what they are spent on
    """
    n_steps = steps_per_env(contender, settings)
    ppo = {"n_steps": n_steps, "n_epochs": settings.n_epochs, "batch_size": settings.batch_size}
    clock = _ProfiledRollouts(2 + settings.iterations)
    with running(contender, settings.env_id, "pipelined", **ppo) as model, suppress(clock.Done):
        # More than needed: no rollout must be the last.
        model.learn((clock.n_rollouts + 1) * n_steps * contender.n_envs, callback=clock)
    seconds: dict[CodeType, float] = {
        entry.code: entry.totaltime for entry in clock.profile.getstats() if isinstance(entry.code, CodeType)
    }
    spent = {phase: seconds.get(function.__code__, 0.0) for phase, function in PHASES.items()}
    spent[REST] = clock.times[-1] - clock.times[1] - sum(spent.values())
    return {phase: 1e3 * value / settings.iterations for phase, value in spent.items()}
