"""How long an update of PPO takes, alone and while samplers collect."""

import time
from collections.abc import Iterator
from statistics import median

from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from benchmarks.contenders import Mode, Trainee
from benchmarks.speed.measurements import Found, Medians, is_sb3s
from benchmarks.speed.ppo_speed import PPOSpeed
from benchmarks.text_tables import format_number
from sb3_walle.cli.tables import format_ratio, format_table
from sb3_walle.cli.throughput import measure

ALONE = "alone, us/minibatch"
WHILE_COLLECTING = "while samplers collect, us/minibatch"


def measure_updates(settings: PPOSpeed) -> Iterator[Found]:
    ours = [trainee for trainee in settings.trainees() if not is_sb3s(trainee.name)]
    sb3s = next(trainee for trainee in settings.trainees() if is_sb3s(trainee.name))
    for trainee in (ours[0], sb3s):
        yield ALONE, trainee.name, _microseconds(trainee, settings, "sync")
    for trainee in ours:
        yield WHILE_COLLECTING, trainee.name, _microseconds(trainee, settings, "pipelined")


def _microseconds(trainee: Trainee, settings: PPOSpeed, mode: Mode) -> float:
    # With a single pass, samplers in mode "pipelined" collect during the whole update.
    with trainee.running(settings.env_id, mode=mode, n_epochs=1) as model:
        seconds = _time_updates(model)
        measure(model, settings.stopwatch(model.n_envs))
        minibatches = -(-model.n_steps * model.n_envs // settings.batch_size)
        # The first one may wait for a compiler.
        return 1e6 * median(seconds[1:]) / minibatches


def _time_updates(model: OnPolicyAlgorithm) -> list[float]:
    """
    :param model: an algorithm
    :return: a list to which the algorithm's updates add their seconds
    """
    seconds: list[float] = []
    train = model.train

    def timed() -> None:
        started = time.perf_counter()
        train()
        seconds.append(time.perf_counter() - started)

    # An instance's attribute comes before its class's method.
    setattr(model, "train", timed)  # noqa: B010
    return seconds


def update_table(medians: Medians) -> str:
    base = next((value for name, value in medians.of(ALONE).items() if is_sb3s(name)), None)
    rows = []
    for name in medians.contenders:
        alone, collecting = (medians.get(quantity, name) for quantity in (ALONE, WHILE_COLLECTING))
        rows.append([name, format_number(alone), format_ratio(base, alone), format_number(collecting)])
    return format_table(["microseconds a minibatch", "alone", "faster than SB3", "while samplers collect"], rows)
