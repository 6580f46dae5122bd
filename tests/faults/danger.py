"""Environments that have their own sampler's process killed, at a random instant of a chosen part of its work."""

import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from fault_envs import SignEnv
from stamped_task import StampedTask

from sb3_walle.backends.channel import Channel
from sb3_walle.samplers.requests import Collect
from sb3_walle.transport.experience_queue import ExperienceWriter
from sb3_walle.transport.policy_queue import PolicyReader

Function = Callable[..., Any]


class Danger:
    """
    Kills the process at a random instant of a function, sometimes.

    The timer's signal ends a process at any instruction, native code included, just as SIGKILL does.

    :param probability: of its being tried in a call
    """

    def __init__(self, probability: float) -> None:
        self.probability = probability
        self._random = np.random.default_rng()
        self._longest = 1e-4

    def around(self, function: Function) -> Function:
        def dangerous(*args: Any, **kwargs: Any) -> Any:
            if self._random.random() < self.probability:
                signal.setitimer(signal.ITIMER_REAL, max(1e-6, self._random.uniform(0, self._longest)))
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                self._longest = min(time.perf_counter() - began, 0.05)

        return dangerous


class EndangeredTask(StampedTask):
    """
    :param phase: the part of the sampler's work in which it may be killed, one of ``PHASES``
    :param probability: how often that is tried, for each time that the sampler comes to it
    :param width: as in :class:`StampedTask`
    """

    def __init__(self, phase: str, probability: float, width: int = 1) -> None:
        super().__init__(width)
        self.danger = Danger(probability)
        PHASES[phase](self)

    def work(self) -> None:
        """Something that takes long enough to be killed in."""
        deadline = time.perf_counter() + 2e-4
        while time.perf_counter() < deadline:
            continue


def _in_start(task: EndangeredTask) -> None:
    task.danger.around(task.work)()


def _in_reset(task: EndangeredTask) -> None:
    task.reset = task.danger.around(task.reset)  # type: ignore[method-assign]


def _in_step(task: EndangeredTask) -> None:
    task.step = task.danger.around(task.step)  # type: ignore[method-assign]


def _in_close(task: EndangeredTask) -> None:
    task.close = task.danger.around(task.work)  # type: ignore[method-assign]


def _while_collecting(task: EndangeredTask) -> None:
    _patch(task, Collect, "run")


def _while_sealing(task: EndangeredTask) -> None:
    _patch(task, ExperienceWriter, "seal")


def _while_reading_weights(task: EndangeredTask) -> None:
    _patch(task, PolicyReader, "pull")


def _while_waiting(task: EndangeredTask) -> None:
    _patch(task, Channel, "receive")


def _while_reporting(task: EndangeredTask) -> None:
    _patch(task, Channel, "send")


def _patch(task: EndangeredTask, owner: type, name: str) -> None:
    """This process is the sampler's own: what is changed here is changed for no other."""
    setattr(owner, name, task.danger.around(getattr(owner, name)))


PHASES: dict[str, Callable[[EndangeredTask], None]] = {
    "start": _in_start,
    "reset": _in_reset,
    "step": _in_step,
    "chunk": _while_collecting,
    "seal": _while_sealing,
    "weights": _while_reading_weights,
    "wait": _while_waiting,
    "report": _while_reporting,
    "close": _in_close,
}


# How often it is tried to kill a sampler when it comes to the phase, so that about seven are killed in twenty rollouts.
_PROBABILITIES = {"start": 0.5, "reset": 0.01, "step": 0.002, "weights": 0.2, "close": 1.0}
_CHUNKS_IN_FREE = 8


def endangered_task(phase: str, has_short_chunks: bool) -> Callable[[], EndangeredTask]:
    """
    :param phase: the part of the sampler's work in which it may be killed, one of ``PHASES``
    :param has_short_chunks: whether the mode is "free", in which chunks are shorter, and there are more of them
    :return: a function that builds the environment
    """
    probability = _PROBABILITIES.get(phase, 0.1)
    if has_short_chunks and phase not in ("start", "reset", "step", "close"):
        probability /= _CHUNKS_IN_FREE
    return partial(EndangeredTask, phase, probability)


def fragile_cart_pole() -> gym.Env:
    _killed_while_collecting(0.01)
    return gym.make("CartPole-v1")


def fragile_signs() -> gym.Env:
    _killed_while_collecting(0.02)
    return SignEnv()


def _killed_while_collecting(probability: float) -> None:
    """
    Have this sampler's process killed at a random instant of a chunk, sometimes.

    :param probability: of its being tried in a chunk
    """
    Collect.run = Danger(probability).around(Collect.run)  # type: ignore[method-assign]
