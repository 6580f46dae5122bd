"""How an iteration takes its time on the learner's side."""

import cProfile
import time
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

from benchmarks.speed.measurements import Found, Medians
from benchmarks.speed.ppo_speed import PPOSpeed
from benchmarks.text_tables import format_number
from sb3_walle import AsyncPPO
from sb3_walle.cli.tables import format_table
from sb3_walle.cli.throughput import measure
from sb3_walle.collection.collector import Collector
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


def measure_iteration(settings: PPOSpeed) -> Iterator[Found]:
    """
    Train under a profiler, which makes Python's own calls a little slower.

    :return: what an iteration's time is spent on
    """
    trainee = settings.trainees()[0]
    profile = cProfile.Profile(time.perf_counter, builtins=False)
    with trainee.running(settings.env_id) as model:
        rate = measure(model, settings.stopwatch(model.n_envs, on_start=profile.enable))
        profile.disable()
        iteration = model.n_steps * model.n_envs / rate
    seconds: dict[CodeType, float] = {
        entry.code: entry.totaltime for entry in profile.getstats() if isinstance(entry.code, CodeType)
    }
    spent = {phase: seconds.get(function.__code__, 0.0) / settings.iterations for phase, function in PHASES.items()}
    spent[REST] = iteration - sum(spent.values())
    for phase, value in spent.items():
        yield phase, trainee.name, 1e3 * value


def iteration_table(medians: Medians) -> str:
    """:param medians: what an iteration's time is spent on"""
    (name,) = medians.contenders
    found = {phase: medians.of(phase)[name] for phase in medians.quantities}
    total = sum(found.values())
    rows = [[phase, format_number(value, 1), f"{value / total:.0%}"] for phase, value in found.items()]
    return format_table([name, "milliseconds", "share"], [*rows, ["iteration", format_number(total, 1), "100%"]])
