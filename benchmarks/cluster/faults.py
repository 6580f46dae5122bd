"""``python -m benchmarks.cluster.faults``: machines, links and processes of a cluster fail, and samples are counted."""

import argparse
import functools
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.monitor import Monitor

from benchmarks.cluster.machines import Machines, in_namespaces_of_its_own, is_alive, what_is_missing
from benchmarks.machine import describe_machine
from benchmarks.text_tables import format_markdown_table
from sb3_walle import AsyncPPO, SamplerVecEnv
from sb3_walle.backends.ray import RayBackend
from sb3_walle.cli.arguments import Parser, UsageError, add_option, integer, run_command_line, set_command
from sb3_walle.samplers.errors import SamplerWarning

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "faults"))

from fault_models import KINDS, is_ordered, make_model  # type: ignore[import-not-found]
from follow_samples import FollowSamples  # type: ignore[import-not-found]
from stamped_task import StampedTask  # type: ignore[import-not-found]

INSIDE = "--inside"
N_MACHINES, N_SAMPLERS, N_STEPS = 3, 6, 64
EVERY = 5
# The fault begins within this time after a rollout has begun: chunks and weights are on their way.
LONGEST_DELAY = 0.1
SOLVED, SOLVED_WITHIN = 475, 200_000
LOST = "was lost with the host"


@dataclass(frozen=True)
class Fault:
    """
    :param what: what happens, in words
    :param happen: makes it happen to the machine with an index
    :param every: it happens at every so many rollouts
    :param seconds: for how long it happens, where training has to be slow to see it through
    """

    what: str
    happen: Callable[[Machines, int], None]
    every: int = EVERY
    seconds: float = 0.0


def _kill_sampler(machines: Machines, index: int) -> None:
    samplers = machines.machines[index].samplers()
    if samplers:
        os.kill(random.choice(samplers), signal.SIGKILL)


def _signal_host(signal_number: int, seconds: float, machines: Machines, index: int) -> None:
    host = machines.machines[index].host()
    if host is not None:
        os.kill(host, signal_number)
        time.sleep(seconds)
        if is_alive(host):
            os.kill(host, signal.SIGCONT)


def _signal_raylet(signal_number: int, seconds: float, machines: Machines, index: int) -> None:
    raylet = machines.machines[index].raylet()
    os.kill(raylet, signal_number)
    time.sleep(seconds)
    if is_alive(raylet):
        os.kill(raylet, signal.SIGCONT)
    time.sleep(1)
    _come_back_if_down(machines, index)


def _cut_link(seconds: float, machines: Machines, index: int) -> None:
    machine = machines.machines[index]
    machine.set_link("down")
    time.sleep(seconds)
    machine.set_link("up")
    time.sleep(1)
    _come_back_if_down(machines, index)


def _cut_link_for_good(machines: Machines, index: int) -> None:
    machines.machines[index].set_link("down")
    time.sleep(15)


def _come_back_if_down(machines: Machines, index: int) -> None:
    # Ray's processes end when they learn that they are taken for dead.
    if not machines.machines[index].is_up:
        machines.replace(index)


FAULTS = {
    "machine": Fault("a machine vanishes and comes back", Machines.replace),
    "sampler": Fault("SIGKILL of a sampler", _kill_sampler),
    "host": Fault("SIGKILL of a host", functools.partial(_signal_host, signal.SIGKILL, 0.0)),
    "raylet": Fault("SIGKILL of a raylet", functools.partial(_signal_raylet, signal.SIGKILL, 0.0), 10),
    "frozen": Fault("SIGSTOP of a host for 20 s", functools.partial(_signal_host, signal.SIGSTOP, 20.0), 40, 20),
    "frozen-raylet": Fault(
        "SIGSTOP of a raylet for 20 s", functools.partial(_signal_raylet, signal.SIGSTOP, 20.0), 40, 20
    ),
    "link-5": Fault("a link is down for 5 s", functools.partial(_cut_link, 5.0), 20, 6),
    "link-30": Fault("a link is down for 30 s", functools.partial(_cut_link, 30.0), 40, 31),
    "link-for-good": Fault("a link is down for good", _cut_link_for_good, 40, 15),
}


@dataclass
class Row:
    """What a training with faults has come to."""

    what: str
    kind: str
    n_faults: int = 0
    n_restarts: int = 0
    n_samples: int = 0
    n_lost: int = 0
    n_duplicated: int = 0
    n_torn: int = 0
    n_wrong_rollouts: int = 0
    recovery: float | None = None
    failure: str = ""

    @property
    def is_clean(self) -> bool:
        return not (self.n_lost or self.n_duplicated or self.n_torn or self.n_wrong_rollouts or self.failure)

    def cells(self) -> list[str]:
        seconds = "" if self.recovery is None else f"{self.recovery:.1f}"
        return [self.what, self.kind, *(f"{getattr(self, name):,}" for name in COUNTS), seconds]


def merged(rows: Sequence[Row]) -> list[Row]:
    """:return: one row for all modes in which the same thing happens"""
    found: dict[str, Row] = {}
    for row in rows:
        before = found.get(row.what)
        if before is None:
            found[row.what] = replace(row)
            continue
        before.kind += f", {row.kind}"
        for name in COUNTS:
            setattr(before, name, getattr(before, name) + getattr(row, name))
        before.recovery = max((row.recovery, before.recovery), key=lambda seconds: seconds or 0.0)
    return list(found.values())


COUNTS = ("n_faults", "n_restarts", "n_samples", "n_lost", "n_duplicated", "n_torn", "n_wrong_rollouts")
HEADER = [
    "what happens", "mode", "times", "restarts", "samples", "lost", "duplicated", "torn", "wrong rollouts",
    "longest recovery, s",
]  # fmt: skip


class Faults(BaseCallback):
    """
    Makes faults happen in a thread, at random instants of some rollouts, and counts the steps of each rollout.

    :param fault: what happens
    :param machines: where
    :param n_rollouts: how many rollouts there are
    :param row: takes the numbers
    """

    def __init__(self, fault: Fault, machines: Machines, n_rollouts: int, row: Row) -> None:
        super().__init__()
        self._fault, self._machines, self._n_rollouts, self._row = fault, machines, n_rollouts, row
        self._rollout = 0
        self._thread: threading.Thread | None = None
        self._failures: list[BaseException] = []
        self.lost_at: float | None = None

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self._rollout % self._fault.every == min(EVERY, self._fault.every) - 1:
            self.join()
            index = self._row.n_faults % N_MACHINES
            self._row.n_faults += 1
            self._thread = threading.Thread(target=self._happen, args=(index,))
            self._thread.start()
        elif self._thread is not None and self._thread.is_alive():
            # Training goes on for longer than that.
            time.sleep(1.2 * self._fault.seconds / max(1, min(self._fault.every, self._n_rollouts) - EVERY))

    def _on_rollout_end(self) -> None:
        self._rollout += 1
        self._row.n_wrong_rollouts += self.num_timesteps != self._rollout * N_SAMPLERS * N_STEPS
        if self.lost_at is not None:
            self._row.recovery = max(self._row.recovery or 0.0, time.monotonic() - self.lost_at)
            self.lost_at = None

    def join(self) -> None:
        """Wait until what has happened last is over."""
        if self._thread is not None:
            self._thread.join()
        if self._failures:
            raise self._failures[0]

    def _happen(self, index: int) -> None:
        try:
            time.sleep(random.uniform(0, LONGEST_DELAY))
            self._fault.happen(self._machines, index)
        except BaseException as error:
            self._failures.append(error)


def train(fault: Fault, kind: str, machines: Machines, n_rollouts: int) -> Row:
    """Train while something happens again and again, and follow each sample."""
    row = Row(fault.what, kind)
    samples, faults = FollowSamples(is_ordered(kind)), Faults(fault, machines, n_rollouts, row)
    backend = RayBackend(address=machines.address, cpus_per_sampler=0)
    try:
        with _warnings_noted(faults):
            env = SamplerVecEnv([StampedTask] * N_SAMPLERS, max_restarts=1000, backend=backend)
            with make_model(kind, env, n_steps=N_STEPS, batch_size=N_STEPS * N_SAMPLERS, learner="eager") as model:
                try:
                    model.learn(n_rollouts * N_STEPS * N_SAMPLERS, callback=[faults, samples])
                finally:
                    row.n_restarts = env.client.n_restarts
            faults.join()
            row.n_wrong_rollouts += samples.n_samples != n_rollouts * N_STEPS * N_SAMPLERS
    except Exception as error:
        row.failure = f"{type(error).__name__}: {error}"
    row.n_samples, row.n_lost, row.n_duplicated, row.n_torn = (
        samples.n_samples, samples.n_lost, samples.n_duplicated, samples.n_torn,
    )  # fmt: skip
    return row


@contextmanager
def _warnings_noted(faults: Faults) -> Iterator[None]:
    """Note when the learner notices that a host is lost."""

    def note(message: Any, *_: Any, **__: Any) -> None:
        print(f"    {str(message).splitlines()[0]}", file=sys.stderr)
        if LOST in str(message) and faults.lost_at is None:
            faults.lost_at = time.monotonic()

    with warnings.catch_warnings():
        warnings.simplefilter("always", SamplerWarning)
        warnings.showwarning = note
        yield


def cart_pole(machines: Machines) -> Row:
    """Solve CartPole while machines vanish and come back."""
    import gymnasium as gym

    row = Row("CartPole-v1 is learned, while machines vanish and come back", "free")
    evaluation = EvalCallback(
        Monitor(gym.make("CartPole-v1")),
        callback_on_new_best=StopTrainingOnRewardThreshold(SOLVED),
        eval_freq=1024,
        verbose=0,
    )
    # As in tests/faults/test_learning_under_failure.py.
    settings: dict[str, Any] = {"batch_size": 256, "learning_rate": 1e-3, "gamma": 0.98, "gae_lambda": 0.9}
    faults = Faults(Fault("", Machines.replace), machines, 10**9, row)
    backend = RayBackend(address=machines.address, cpus_per_sampler=0)
    with _warnings_noted(faults):
        env = SamplerVecEnv(
            [functools.partial(gym.make, "CartPole-v1")] * N_SAMPLERS, max_restarts=1000, backend=backend
        )
        with AsyncPPO("MlpPolicy", env, mode="free", seed=0, device="cpu", n_steps=128, **settings) as model:
            model.learn(SOLVED_WITHIN, callback=[evaluation, faults])
            row.n_samples, row.n_restarts = model.num_timesteps, env.client.n_restarts
        faults.join()
    row.n_wrong_rollouts = 0
    reached = evaluation.last_mean_reward
    row.kind += f", return {reached:.0f}"
    if reached < SOLVED:
        row.failure = f"not solved: {reached}"
    return row


LEARNER = """
from sb3_walle import AsyncPPO
from sb3_walle.backends.ray import RayBackend
backend = RayBackend(address={address!r}, cpus_per_sampler=0)
model = AsyncPPO('MlpPolicy', 'CartPole-v1', n_samplers={n_samplers}, n_steps=64, backend=backend, device='cpu')
print('ready', flush=True)
model.learn(10**9)
"""


def kill_learner(machines: Machines, is_cut_off: bool) -> Row:
    """Kill a learner, and see when its hosts and samplers are gone."""
    row = Row("kill -9 of the learner" + (", one link down" if is_cut_off else ""), "sync", n_faults=1)
    program = LEARNER.format(address=machines.address, n_samplers=N_SAMPLERS)
    learner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert learner.stdout is not None
    while "ready" not in (line := learner.stdout.readline()):
        if not line:
            raise RuntimeError("The learner has not started")
    time.sleep(2)
    left = [pid for machine in machines.machines for pid in (machine.host(), *machine.samplers()) if pid is not None]
    if len(left) != N_MACHINES + N_SAMPLERS:
        row.failure = f"{len(left)} processes instead of {N_MACHINES + N_SAMPLERS}"
    if is_cut_off:
        machines.machines[0].set_link("down")
    learner.kill()
    learner.wait()
    began = time.monotonic()
    while any(map(is_alive, left)) and time.monotonic() - began < 30:
        time.sleep(0.05)
    row.recovery = time.monotonic() - began
    if row.recovery > 10:
        row.failure = "not gone within 10 s"
    if is_cut_off:
        machines.machines[0].set_link("up")
    return row


def run(names: Sequence[str], kinds: Sequence[str], n_rollouts: int, n_health_checks: int) -> int:
    """Everything, inside the namespaces."""
    import ray

    machines = Machines(N_MACHINES, n_health_checks)
    rows = []
    try:
        ray.init(address=machines.address, log_to_driver=False)
        tasks: list[Callable[[], Row]] = []
        for name in names:
            if name in FAULTS:
                tasks += [functools.partial(train, FAULTS[name], kind, machines, n_rollouts) for kind in kinds]
            elif name == "learner":
                tasks += [functools.partial(kill_learner, machines, is_cut_off) for is_cut_off in (False, True)]
            else:
                tasks.append(functools.partial(cart_pole, machines))
        for task in tasks:
            machines.settle()
            began = time.monotonic()
            row = task()
            rows.append(row)
            print(f"{time.monotonic() - began:4.0f} s  {'  '.join(row.cells())}  {row.failure}", file=sys.stderr)
    finally:
        ray.shutdown()
        machines.close()
    print(f"{N_MACHINES} machines, {N_SAMPLERS} samplers, {describe_machine().in_words()}\n")
    print(format_markdown_table(HEADER, [row.cells() for row in merged(rows)]))
    failures = [f"{row.what}, {row.kind}: {row.failure or 'samples are wrong'}" for row in rows if not row.is_clean]
    print("\n".join(["", *failures]) if failures else "\nNothing was lost.")
    return 1 if failures else 0


NAMES = (*FAULTS, "learner", "CartPole")


def build_parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.cluster.faults",
        description="Train on a cluster of three machines while machines, links and processes fail, and follow every\n"
        "sample. The machines are namespaces of this one; that takes Linux, root, util-linux and iproute2.\n"
        "The exit code says whether anything was lost.",
    )
    set_command(parser, run_command)
    add_option(parser, "--rollouts", 40, "rollouts of each training", type=integer(2 * EVERY))
    seconds = "seconds without an answer after which Ray takes a machine for dead"
    add_option(parser, "--health-checks", 3, seconds, type=integer(1))
    parser.add_argument("--faults", nargs="+", choices=NAMES, default=NAMES, help="which (default: all)")
    parser.add_argument("--modes", nargs="+", choices=KINDS, default=KINDS, help="which (default: all)")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    return parser


def run_command(arguments: argparse.Namespace) -> int:
    missing = what_is_missing()
    if missing is not None:
        raise UsageError(f"this needs {missing}")
    if not arguments.inside:
        in_namespaces_of_its_own(["-m", "benchmarks.cluster.faults", INSIDE, *sys.argv[1:]])
    with tempfile.TemporaryDirectory() as logs:
        # SB3 makes a folder for every model without a logger.
        os.environ["SB3_LOGDIR"] = logs
        return run(arguments.faults, arguments.modes, arguments.rollouts, arguments.health_checks)


if __name__ == "__main__":
    sys.exit(run_command_line(build_parser()))
