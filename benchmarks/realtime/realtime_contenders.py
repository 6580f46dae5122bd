"""Who controls the plant: ours in modes "realtime" and "sync", and SB3's algorithm with its three schedules."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch as th
from stable_baselines3 import SAC

from benchmarks.realtime.plant_env import PlantEnvFactory
from benchmarks.speed.gradient_step import filled
from benchmarks.speed.off_policy_speed import OffPolicySpeed
from benchmarks.speed.start_up import in_fresh_process
from sb3_walle import AsyncSAC

REALTIME, PACED, SYNC = "AsyncSAC, realtime", "AsyncSAC, realtime, control_hz", "AsyncSAC, sync"
FITTING, ASKED, EPISODES = "SAC, (1, step), what fits", "SAC, (1, step), what is asked", "SAC, (1, episode)"
#: by what the command calls them
NAMES = {
    "realtime": REALTIME,
    "paced": PACED,
    "sync": SYNC,
    "fits": FITTING,
    "asked": ASKED,
    "episodes": EPISODES,
}
# Of a period: the rest is for acting, and for gradient steps that take longer than others.
SHARE_THAT_FITS = 0.8
N_WARM_UP, N_TIMED = 10, 100


@dataclass(frozen=True)
class Calibration:
    """
    Milliseconds of a gradient step here.

    :param ours: of ours, compiled, on one thread
    :param sb3s: of SB3's, with the number of threads that is faster
    :param sb3s_threads: that number
    """

    ours: float
    sb3s: float
    sb3s_threads: int


@dataclass(frozen=True)
class Task:
    """
    What is controlled, and how much is to be learned meanwhile.

    :param env_id: Gymnasium id of what the plant simulates
    :param hz: ticks a second
    :param gradient_steps: how many follow ``train_freq`` steps
    :param train_freq: number of steps
    """

    env_id: str
    hz: float
    gradient_steps: int
    train_freq: int = 1

    @property
    def period(self) -> float:
        return 1 / self.hz


@dataclass(frozen=True)
class Contender:
    """
    :param name: what tables call it
    :param arguments: of its algorithm
    :param hz: of an environment that keeps time itself, ``None`` where the plant does
    :param n_threads: of torch, ``None`` for what the algorithm chooses
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    hz: float | None = None
    n_threads: int | None = None

    def create(self, address: str, seed: int) -> Any:
        """:return: the algorithm, with the plant of this address as its environment"""
        if self.n_threads is not None:
            th.set_num_threads(self.n_threads)
        factory = PlantEnvFactory(address, self.hz)
        arguments = {"seed": seed, "device": "cpu", **self.arguments}
        if self.name in (REALTIME, PACED, SYNC):
            return AsyncSAC("MlpPolicy", factory, n_samplers=1, learner="compiled", **arguments)
        return SAC("MlpPolicy", factory(), **arguments)


def contenders(task: Task, calibration: Calibration, max_episode_steps: int) -> list[Contender]:
    """
    :param max_episode_steps: length of an episode, after which the schedule of episodes makes as many gradient steps as
        are asked for that many steps
    :return: all of them; SB3's schedules by steps are one if what is asked for is what fits, or if nothing less can be
        done
    """
    asked = {"train_freq": task.train_freq, "gradient_steps": task.gradient_steps}
    ours = {"mode": "realtime", "fallback_action": "hold", **asked}
    n_fitting = math.floor(SHARE_THAT_FITS * 1e3 * task.period * task.train_freq / calibration.sb3s)
    fitting = {"train_freq": task.train_freq, "gradient_steps": min(max(n_fitting, 1), task.gradient_steps)}
    of_an_episode = max(1, max_episode_steps * task.gradient_steps // task.train_freq)
    whole = {"train_freq": (1, "episode"), "gradient_steps": of_an_episode}
    threads = calibration.sb3s_threads
    found = [
        Contender(REALTIME, ours),
        Contender(PACED, {**ours, "control_hz": task.hz}, hz=task.hz),
        Contender(SYNC, {"mode": "sync", **asked}),
        Contender(FITTING, fitting, n_threads=threads),
        Contender(ASKED, asked, n_threads=threads),
        Contender(EPISODES, whole, n_threads=threads),
    ]
    return [each for each in found if each.name != FITTING or fitting != asked]


def calibrated(env_id: str) -> Calibration:
    """:return: what gradient steps take here, measured in fresh processes"""
    ours = in_fresh_process("AsyncSAC", time_gradient_steps, "ours", env_id, 1)
    by_threads = {n: in_fresh_process("SAC", time_gradient_steps, "sb3s", env_id, n) for n in (1, th.get_num_threads())}
    n_threads = min(by_threads, key=by_threads.__getitem__)
    return Calibration(ours, by_threads[n_threads], n_threads)


def time_gradient_steps(whose: str, env_id: str, n_threads: int, results: Connection) -> None:
    """
    :param whose: ``"ours"`` or ``"sb3s"``
    :param results: where to send the milliseconds of a gradient step
    """
    th.set_num_threads(n_threads)
    settings = OffPolicySpeed(env_id, learner="compiled")
    model = filled(AsyncSAC if whose == "ours" else SAC, settings)
    model.train(N_WARM_UP, model.batch_size)
    began = time.perf_counter()
    model.train(N_TIMED, model.batch_size)
    results.send(1e3 * (time.perf_counter() - began) / N_TIMED)
