"""Environments that go wrong once, or always. Samplers import this file: it needs no torch."""

import ctypes
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from stamped_task import StampedTask


def raise_error() -> None:
    raise ArithmeticError("the simulation diverged")


def segfault() -> None:
    ctypes.string_at(0)


def overflow_native_stack() -> None:
    # Each call goes through native code, unlike those of one Python function by another.
    sys.setrecursionlimit(10**9)
    function = ctypes.CFUNCTYPE(None)(lambda: function())
    function()


def recurse_deeply() -> None:
    sys.setrecursionlimit(10**5)

    def call(depth: int) -> int:
        return call(depth + 1) + 1

    call(0)


def exit_at_once() -> None:
    os._exit(3)


def exit_politely() -> None:
    sys.exit("no licence")


def hang() -> None:
    time.sleep(3600)


def hang_in_native_code() -> None:
    # Holds the interpreter's lock, as an extension module does that never comes back.
    ctypes.PyDLL(None).sleep(3600)


def print_megabytes() -> None:
    for stream in (1, 2):
        os.write(stream, b"a line of a chatty simulator\n" * 50_000)


class BadTask(StampedTask):
    """
    Does something bad in one of its methods.

    :param method: ``"__init__"``, ``"reset"``, ``"step"`` or ``"close"``
    :param deed: what it does
    :param marks: folder in which it is noted; it is done only as often as ``n_times`` in all
    :param n_times: how often
    :param at: in which call of the method
    """

    def __init__(self, method: str, deed: Callable[[], Any], marks: Path, n_times: int = 1, at: int = 20) -> None:
        super().__init__()
        self.method, self.deed, self.marks, self.n_times, self.at = method, deed, marks, n_times, at
        self.n_calls = 0
        self._come_to("__init__")

    def reset(self, **kwargs: Any) -> Any:
        self._come_to("reset")
        return super().reset(**kwargs)

    def step(self, action: int) -> Any:
        self._come_to("step")
        return super().step(action)

    def close(self) -> None:
        self._come_to("close")

    def _come_to(self, method: str) -> None:
        if method != self.method:
            return
        self.n_calls += 1
        if self.n_calls >= self.at or method in ("__init__", "close"):
            for number in range(self.n_times):
                if self._mark(number):
                    self.deed()
                    return

    def _mark(self, number: int) -> bool:
        """Note that it is done for the n-th time. False if it was before."""
        try:
            os.close(os.open(self.marks / str(number), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


class BuiltBadly(BadTask):
    """
    Dies in a step; of those that take its place, the first two cannot be built.

    :param marks: as in :class:`BadTask`
    """

    def __init__(self, marks: Path) -> None:
        if (marks / "0").exists() and any(self.can_mark(marks, name) for name in ("first", "second")):
            raise OSError("no licence is left")
        super().__init__("step", segfault, marks)

    @staticmethod
    def can_mark(marks: Path, name: str) -> bool:
        if (marks / name).exists():
            return False
        (marks / name).touch()
        return True


class Worse(BadTask):
    """
    Raises, then crashes, then exits, each time in a step.

    :param marks: as in :class:`BadTask`
    """

    def __init__(self, marks: Path) -> None:
        super().__init__("step", raise_error, marks, n_times=9)

    def _mark(self, number: int) -> bool:
        self.deed = (raise_error, segfault, exit_politely)[min(number, 2)]
        return super()._mark(number)


class DyingLevels(StampedTask):
    """
    Is told its level in two ways. Dies in its 70th step, once.

    :param mark: file by which it is noted
    """

    height = level = n_steps = 0

    def __init__(self, mark: Path) -> None:
        super().__init__()
        self.mark = mark

    def set_level(self, level: int) -> None:
        self.level = level

    def step(self, action: int) -> Any:
        self.n_steps += 1
        if self.n_steps == 70 and not self.mark.exists():
            self.mark.touch()
            exit_at_once()
        return super().step(action)


class Seeded(StampedTask):
    """
    Notes the random numbers that its resets draw.

    :param marks: folder for that
    :param place: name of the file in it
    :param dies: whether it dies in its 15th reset, once
    """

    def __init__(self, marks: Path, place: int, dies: bool) -> None:
        super().__init__()
        self.marks, self.place, self.dies, self.n_resets = marks, place, dies, 0

    def reset(self, **kwargs: Any) -> Any:
        result = super().reset(**kwargs)
        self.n_resets += 1
        with open(self.marks / str(self.place), "a") as file:
            file.write(f"{self.np_random.integers(2**40)} {np.random.randint(2**30)}\n")
        if self.dies and self.n_resets == 15 and not (self.marks / "dead").exists():
            (self.marks / "dead").touch()
            exit_at_once()
        return result


class Clutter(StampedTask):
    """Is not wrong at all, but some of its infos cannot be pickled."""

    def step(self, action: int) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, {**info, "generator": (step for step in range(3))}


class NotFiniteTask(StampedTask):
    """
    Shows something that is no finite number, once in a while.

    :param what: ``"observation"``, ``"reward"`` or ``"terminal observation"``
    :param value: what it shows
    :param marks: folder in which it is noted; it is done only once
    """

    def __init__(self, what: str, value: float, marks: Path) -> None:
        super().__init__()
        self.what, self.value, self.marks = what, value, marks

    def step(self, action: int) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        is_due = self.episode == 3 and self.steps == (7 if self.what == "terminal observation" else 2)
        if is_due and not (self.marks / "done").exists():
            (self.marks / "done").touch()
            if self.what == "reward":
                reward = self.value
            else:
                observation = np.full_like(observation, self.value)
        return observation, reward, terminated, truncated, info
