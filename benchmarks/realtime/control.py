"""A contender controls a plant and learns meanwhile: each in a process of its own."""

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from benchmarks.realtime.plant_process import PlantSettings, RunningPlant, running_plant
from benchmarks.realtime.plant_record import PlantRecord
from benchmarks.realtime.realtime_contenders import Contender, Task
from benchmarks.realtime.steal import watching_steal
from sb3_walle.sb3_private import n_updates

# More than any run makes.
LONG = 10_000_000
POLL_SECONDS = 0.2
# From the first import of torch to the first action.
START_SECONDS = 120.0


@dataclass(frozen=True)
class Learning:
    """
    What a contender has learned from.

    :param n_steps: steps of its environment
    :param n_gradient_steps: gradient steps
    :param ratio: gradient steps for each step, from the first update on
    """

    n_steps: int
    n_gradient_steps: int
    ratio: float


@dataclass(frozen=True)
class Controlled:
    """
    :param record: what the plant has seen, until the last of the ticks that were asked for
    :param seconds: that it took, from the plant's first tick on
    :param steal: share of the processors' time that other guests of the host have taken
    """

    record: PlantRecord
    learning: Learning
    seconds: float
    steal: float


class UntilStopped(BaseCallback):
    """
    Ends ``learn()`` when it is told to, and counts gradient steps.

    :param stop: an event of multiprocessing
    """

    def __init__(self, stop: Any) -> None:
        super().__init__()
        self._stop = stop
        self._first: tuple[int, int] | None = None

    def _on_step(self) -> bool:
        return not self._stop.is_set()

    def _on_rollout_start(self) -> None:
        if self._first is None and n_updates(self.model):
            self._first = self.num_timesteps, n_updates(self.model)

    def learning(self) -> Learning:
        n_steps, n_gradient_steps = self.num_timesteps, n_updates(self.model)
        first_step, first_gradient_step = self._first or (n_steps, n_gradient_steps)
        ratio = (n_gradient_steps - first_gradient_step) / max(n_steps - first_step, 1)
        return Learning(n_steps, n_gradient_steps, ratio)


def control(task: Task, contender: Contender, seed: int, n_ticks: int) -> Controlled:
    """
    :param n_ticks: how long to control the plant
    :raises RuntimeError: if the contender ends before that
    """
    phase = 0.0 if contender.hz is None else 0.5
    with watching_steal() as steal, running_plant(PlantSettings(task.env_id, task.hz, phase)) as plant:
        learning = act_on(plant, n_ticks, contender.name, learn, contender, plant.address, seed)
        record = plant.record().until(n_ticks)
    return Controlled(record, learning, record.ticks[-1].due - record.actions[0].time, steal.share)


def act_on(plant: RunningPlant, n_ticks: int, name: str, act: Callable[..., None], *args: Any) -> Any:
    """
    Have a process act on a plant.

    :param n_ticks: for how long
    :param name: what acts, in words
    :param act: acts on the plant; is called in the process with ``args``, an event that tells it to stop, and a
        connection that takes its result
    :return: the result
    :raises RuntimeError: if the process ends before that, or never moves the plant
    """
    context = multiprocessing.get_context("spawn")
    stop, (results, sender) = context.Event(), context.Pipe(duplex=False)
    process = context.Process(target=act, args=(*args, stop, sender))
    process.start()
    sender.close()
    try:
        wait_for_ticks(plant, n_ticks, process, name)
        stop.set()
        return results.recv()
    except BaseException:
        process.kill()
        raise
    finally:
        process.join()


def learn(contender: Contender, address: str, seed: int, stop: Any, results: Connection) -> None:
    """Control the plant of this address from this process, until it is told to stop."""
    model, callback = contender.create(address, seed), UntilStopped(stop)
    try:
        model.learn(LONG, callback=callback)
        results.send(callback.learning())
    finally:
        model.get_env().close()


def wait_for_ticks(plant: RunningPlant, n_ticks: int, process: BaseProcess, name: str) -> None:
    """
    :raises RuntimeError: if the process ends before that, or never moves the plant
    """
    deadline = time.monotonic() + START_SECONDS
    while (done := plant.counts().ticks) < n_ticks:
        if not process.is_alive():
            raise RuntimeError(f"{name} has ended after {done} of {n_ticks} ticks: see the traceback above")
        if done == 0 and time.monotonic() > deadline:
            raise RuntimeError(f"{name} has sent no action for {START_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)
