"""How many samples per second are collected, and learned from end to end; how long an update takes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from sb3_walle.experiments.benchmark.settings import BenchmarkSettings
from sb3_walle.experiments.contenders import Contender, Mode, running


class RolloutClock(BaseCallback):
    """
    Notes when each rollout is complete, and ends ``learn()`` with the last of them.

    From the end of one rollout to the end of a later one, as many updates as collections take place, whichever way
    they overlap. The update after the last rollout would not be measured any more.

    :param n_rollouts: the number of rollouts
    """

    class Done(Exception):
        """The last rollout is complete."""

    def __init__(self, n_rollouts: int) -> None:
        super().__init__()
        self.n_rollouts = n_rollouts
        self.times: list[float] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.times.append(time.perf_counter())
        if len(self.times) == self.n_rollouts:
            raise self.Done


def steps_per_env(contender: Contender, settings: BenchmarkSettings) -> int:
    """
    Share an iteration's samples among the environments.

    :param contender: whose environments
    :param settings: what to measure
    :return: steps of each environment in an iteration
    """
    return settings.samples_per_iteration // contender.n_envs


@contextmanager
def collecting(
    contender: Contender, settings: BenchmarkSettings, mode: Mode, n_epochs: int
) -> Iterator[tuple[PPO, Callable[[], None]]]:
    """
    An algorithm that collects when told, one rollout after the other.

    :param contender: which algorithm
    :param settings: what to measure
    :param mode: how collection and training overlap, if they can
    :param n_epochs: passes over a rollout in an update
    :return: the algorithm, and what makes it collect a rollout
    """
    n_steps = steps_per_env(contender, settings)
    ppo = {"n_steps": n_steps, "n_epochs": n_epochs, "batch_size": settings.batch_size}
    with running(contender, settings.env_id, mode, **ppo) as model:
        # What learn() does before its first rollout; there is no public way to collect without training.
        rollouts = 1 + settings.iterations
        _, callback = model._setup_learn(total_timesteps=rollouts * n_steps * contender.n_envs)
        callback.on_training_start({}, {})
        env = model.env
        assert env is not None

        def collect() -> None:
            model.collect_rollouts(env, callback, model.rollout_buffer, n_rollout_steps=n_steps)

        collect()
        yield model, collect


def measure_collection(contender: Contender, settings: BenchmarkSettings) -> float:
    """
    Collect rollout after rollout without training.

    :param contender: who collects
    :param settings: what to measure
    :return: samples per second
    """
    with collecting(contender, settings, "sync", n_epochs=1) as (model, collect):
        start = time.perf_counter()
        for _ in range(settings.iterations):
            collect()
        seconds = time.perf_counter() - start
        return settings.iterations * model.n_steps * model.n_envs / seconds


def measure_end_to_end(contender: Contender, settings: BenchmarkSettings) -> float:
    """
    Train, leaving out the construction, the first rollout and the first update, which may have to wait for a compiler.

    :param contender: who trains
    :param settings: what to measure
    :return: samples per second
    """
    n_steps = steps_per_env(contender, settings)
    ppo = {"n_steps": n_steps, "n_epochs": settings.n_epochs, "batch_size": settings.batch_size}
    clock = RolloutClock(2 + settings.iterations)
    with running(contender, settings.env_id, "pipelined", **ppo) as model:
        samples = n_steps * contender.n_envs
        try:
            # One more than needed: no algorithm must think that the measured rollouts are the last.
            model.learn((clock.n_rollouts + 1) * samples, callback=clock)
        except RolloutClock.Done:
            return settings.iterations * samples / (clock.times[-1] - clock.times[1])
    raise AssertionError("learn() returned before it had collected all rollouts")


def measure_update(contender: Contender, settings: BenchmarkSettings, mode: Mode) -> float:
    """
    Update the policy after each rollout, with a single pass so that ``"pipelined"`` samplers collect all the while.

    :param contender: whose update
    :param settings: what to measure
    :param mode: ``"sync"`` if nothing else must happen during the update, ``"pipelined"`` if collection must
    :return: microseconds per minibatch
    """
    microseconds = []
    with collecting(contender, settings, mode, n_epochs=1) as (model, collect):
        minibatches = -(-model.n_steps * model.n_envs // settings.batch_size)
        model.train()
        for _ in range(settings.iterations):
            collect()
            start = time.perf_counter()
            model.train()
            microseconds.append(1e6 * (time.perf_counter() - start) / minibatches)
    return median(microseconds)
