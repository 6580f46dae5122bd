"""How many samples per second the CPUs could simulate at most, if nothing but the simulation had to be computed."""

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

import gymnasium as gym
import mujoco
import numpy as np

from sb3_walle.cli.environments import quiet_factory

# Long enough to make the environment and to warm up, however slow the machine; only a hanging process reaches it.
TIMEOUT = 300.0
WARM_UP_SECONDS = 0.2
CONTROLS = 1024


@dataclass(frozen=True)
class PhysicalLimit:
    """
    The limit.

    :param samples_per_second: what all processes simulated together
    :param what: what they did, in words
    """

    samples_per_second: float
    what: str


def mujoco_step(env: gym.Env) -> Callable[[], None] | None:
    """
    Reduce the step of a MuJoCo environment to its physics.

    :return: what simulates as long as ``env.step()`` does and does nothing else; None for other environments
    """
    model, data, frame_skip = (getattr(env.unwrapped, name, None) for name in ("model", "data", "frame_skip"))
    if not isinstance(model, mujoco.MjModel) or not isinstance(data, mujoco.MjData):
        return None
    low, high = model.actuator_ctrlrange.T
    controls = cycle(np.random.default_rng(0).uniform(low, high, (CONTROLS, model.nu)))

    def step() -> None:
        data.ctrl[:] = next(controls)
        mujoco.mj_step(model, data, nstep=frame_skip)

    return step


def env_step(env: gym.Env) -> Callable[[], None]:
    """
    Step an environment as it is.

    :return: what takes a step with a random action, and begins a new episode where one ends
    """
    actions = cycle([env.action_space.sample() for _ in range(CONTROLS)])

    def step() -> None:
        _, _, terminated, truncated, _ = env.step(next(actions))
        if terminated or truncated:
            env.reset()

    return step


def simulate(step: Callable[[], None], seconds: float) -> float:
    """
    Step for some time.

    :param step: what takes a step
    :return: steps per second
    """
    n_steps = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        # Reading the clock must not cost anything next to the steps.
        for _ in range(50):
            step()
        n_steps += 50
    return n_steps / elapsed


def simulate_in_process(env_id: str, seconds: float, barrier: Barrier, results: Connection) -> None:
    """
    What each process does.

    :param barrier: where the processes wait for one another
    :param results: where to send the steps per second and whether they were MuJoCo's own
    """
    env = quiet_factory(env_id)()
    env.reset(seed=0)
    physics = mujoco_step(env)
    step = physics or env_step(env)
    simulate(step, WARM_UP_SECONDS)
    barrier.wait(TIMEOUT)
    results.send((simulate(step, seconds), physics is not None))
    env.close()


def measure_physical_limit(env_id: str, n_processes: int, seconds: float) -> PhysicalLimit:
    """
    Simulate in several processes at once.

    :param n_processes: how many, usually the number of CPUs
    :return: the limit
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(n_processes)
    pipes = [context.Pipe(duplex=False) for _ in range(n_processes)]
    processes = [
        context.Process(target=simulate_in_process, args=(env_id, seconds, barrier, sender), daemon=True)
        for _, sender in pipes
    ]
    try:
        for process in processes:
            process.start()
        rates = []
        for receiver, sender in pipes:
            # Of a process that dies, the pipe must close: only then does it end the wait.
            sender.close()
            if not receiver.poll(TIMEOUT):
                raise RuntimeError(f"simulating {env_id} did not end")
            rates.append(receiver.recv())
    except EOFError as error:
        raise RuntimeError(f"a process that simulated {env_id} died") from error
    finally:
        for process in processes:
            if process.pid is not None:
                process.terminate()
                process.join()
        for receiver, _ in pipes:
            receiver.close()
    what = "mj_step" if rates[0][1] else "env.step()"
    plural = "es" if n_processes > 1 else ""
    return PhysicalLimit(sum(rate for rate, _ in rates), f"{what} alone in {n_processes} process{plural}")
