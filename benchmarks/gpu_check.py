"""
Compiled updates on a GPU: the same numbers as SB3's, how fast they are, and what stays on the CPU. Takes four minutes
on a machine with a CUDA device, and ends at once, without an error, on any other.

.. code-block:: shell

    python -m benchmarks.gpu_check --json gpu_check.json
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.logger import Logger

from benchmarks.machine import describe_machine
from benchmarks.speed.update_sizes import NETS, NoWorld, algorithm_with_samples
from benchmarks.text_tables import format_markdown_table, format_number
from sb3_walle import AsyncPPO
from sb3_walle.algorithm import policy_weights as weights_module
from sb3_walle.cli.arguments import Parser, add_option, integer, run_command_line, set_command
from sb3_walle.cli.tables import format_ratio
from sb3_walle.on_policy import on_policy_spec
from sb3_walle.updates.algorithm_update import AlgorithmUpdate
from sb3_walle.updates.compiled_update import make_update
from sb3_walle.updates.dqn_update import DQNUpdate
from sb3_walle.updates.ppo_update import PPOUpdate
from sb3_walle.updates.sac_update import SACUpdate
from sb3_walle.updates.traced_step import trace_update
from sb3_walle.updates.updater import Updater

NO_DEVICE = "There is no CUDA device here: nothing was checked."
# Gradient steps of an off-policy update, and transitions that they are drawn from.
GRADIENT_STEPS, STORED = 64, 2_000
N_SAMPLERS = 2
# Convolutions and matrix products on a GPU round more coarsely than those on a CPU. Of the largest parameter.
MAX_DIFFERENCE = 1e-3
# Updates before parameters are compared: Adam makes full steps of gradients that are nothing but rounding.
COMPARED_UPDATES = 1


@dataclass(frozen=True)
class Case:
    """
    :param make: makes a model of SB3's with samples to learn from, on a device
    :param update_class: its compiled update
    """

    name: str
    make: Callable[[str], Any]
    update_class: type[AlgorithmUpdate]


@dataclass
class Found:
    """
    :param microseconds: for a minibatch, by who makes it
    :param difference: of parameters after the same updates by SB3 and by us, relative to the largest one
    :param megabytes: of the device's memory at most, with the three of them
    """

    case: str
    microseconds: dict[str, float]
    difference: float
    megabytes: float


def on_policy(net: str, batch_size: int) -> Callable[[str], PPO]:
    return lambda device: algorithm_with_samples(NETS[net], batch_size, device=device)


def off_policy(kind: Any, net: str, **settings: Any) -> Callable[[str], Any]:
    def make(device: str) -> Any:
        spec = NETS[net]
        env = NoWorld(spec.observation_space, spec.action_space)
        policy = spec.policy
        settings_of_net = {"policy_kwargs": spec.policy_kwargs, "buffer_size": STORED, **settings}
        model = kind(policy, env, seed=0, device=device, **settings_of_net)
        model.set_logger(Logger(folder=None, output_formats=[]))
        buffer, random = model.replay_buffer, np.random.default_rng(0)
        for name in ("observations", "next_observations", "actions", "rewards"):
            array = getattr(buffer, name)
            if isinstance(spec.action_space, spaces.Discrete) and name == "actions":
                array[:] = random.integers(0, spec.action_space.n, array.shape)
            elif array.dtype == np.uint8:
                array[:] = random.integers(0, 256, array.shape, dtype=np.uint8)
            else:
                array[:] = random.uniform(-1, 1, array.shape)
        buffer.full = True
        return model

    return make


CASES = (
    Case("PPO 64x64, minibatches of 64", on_policy("64x64", 64), PPOUpdate),
    Case("PPO 256x256, minibatches of 1024", on_policy("256x256", 1024), PPOUpdate),
    Case("PPO NatureCNN, minibatches of 256", on_policy("CNN", 256), PPOUpdate),
    Case("SAC 256x256, minibatches of 256", off_policy(SAC, "256x256"), SACUpdate),
    Case("DQN NatureCNN, minibatches of 32", off_policy(DQN, "CNN"), DQNUpdate),
)


class Contender:
    """
    A model and what updates it.

    :param case: the case
    :param device: where it is
    :param who: ``"SB3"``, ``"eager"``: the step that is compiled, as it is, or ``"compiled"``
    """

    def __init__(self, case: Case, device: str, who: str) -> None:
        self.model = case.make(device)
        self._device, self._number = th.device(device), 0
        self._update = update = case.update_class(self.model)
        update.expect(GRADIENT_STEPS)
        self.n_minibatches = update.n_minibatches()
        if who == "SB3":
            self._train = self._by_sb3
        elif who == "eager":
            update.key()
            self._groups = update.make_groups()
            self._steps = trace_update(update, self._groups)
            self._train = self._eagerly
        else:
            self._updater = Updater(update, "compiled")
            self._updater.require()
            self._train = self._compiled

    def update(self) -> float:
        """Make an update. Returns microseconds a minibatch."""
        self._number += 1
        np.random.seed(self._number)
        th.manual_seed(self._number)
        self._finish()
        started = time.perf_counter()
        self._train()
        self._finish()
        return 1e6 * (time.perf_counter() - started) / self.n_minibatches

    def parameters(self) -> th.Tensor:
        return th.cat([parameter.detach().reshape(-1).cpu() for parameter in self.model.policy.parameters()])

    def _by_sb3(self) -> None:
        if isinstance(self.model, PPO):
            self.model.train()
        else:
            self.model.train(GRADIENT_STEPS, self.model.batch_size)

    def _eagerly(self) -> None:
        programs = {name: lambda inputs, step=step: step.eager(*inputs)[0] for name, step in self._steps.items()}
        make_update(self._update, self._groups, self._steps, programs, self._number, is_compared=False)

    def _compiled(self) -> None:
        self._updater.train(self._number, _must_not_be_needed)

    def _finish(self) -> None:
        if self._device.type == "cuda":
            th.cuda.synchronize(self._device)


def check_updates(case: Case, device: str, n_rounds: int) -> Found:
    """Alternating updates by SB3, by the same step eagerly, and by the compiled one."""
    if device != "cpu":
        th.cuda.reset_peak_memory_stats()
    made = {who: Contender(case, device, who) for who in ("SB3", "eager", "compiled")}
    for _ in range(COMPARED_UPDATES):
        for contender in made.values():
            contender.update()
    theirs, ours = made["SB3"].parameters(), made["compiled"].parameters()
    difference = float((theirs - ours).abs().max() / theirs.abs().max())
    times = [{who: contender.update() for who, contender in made.items()} for _ in range(n_rounds)]
    megabytes = 0.0 if device == "cpu" else th.cuda.max_memory_allocated() / 2**20
    return Found(case.name, {who: median(row[who] for row in times) for who in made}, difference, megabytes)


def check_training(device: str) -> Iterator[tuple[str, bool]]:
    """What a training run on a device should be like, and whether it is."""
    n_copies = 0

    def counted(*args: Any) -> Any:
        nonlocal n_copies
        n_copies += 1
        return weights_module.policy_weights(*args)

    n_iterations, n_steps = 4, 256
    with mock.patch.object(on_policy_spec, "policy_weights", counted):
        choices: dict[str, Any] = {"n_samplers": N_SAMPLERS, "device": device, "learner": "compiled"}
        with AsyncPPO("MlpPolicy", "Pendulum-v1", n_steps=n_steps, **choices) as model:
            model.learn(n_iterations * n_steps * N_SAMPLERS)
            # What maps the driver's library uses the device.
            on_gpu = ["libcuda.so" in Path(f"/proc/{pid}/maps").read_text() for pid in _descendants(os.getpid())]
    yield "updates were compiled", model.logger.name_to_value.get("async/compiled_update", 1) == 1
    yield f"samplers stay on the CPU ({len(on_gpu)} processes)", len(on_gpu) >= N_SAMPLERS and not any(on_gpu)
    yield f"weights left the device {n_copies} times for {n_iterations} updates", n_copies <= n_iterations + 1


def updates_table(found: list[Found]) -> str:
    titles = ["us/minibatch", "SB3", "eager", "compiled", "vs SB3", "difference", "MB"]
    rows = []
    for each in found:
        sb3s, eager, compiled = each.microseconds.values()
        numbers = [format_number(value) for value in (sb3s, eager, compiled)]
        difference = f"{each.difference:.1e}"
        rows.append([each.case, *numbers, format_ratio(sb3s, compiled), difference, format_number(each.megabytes)])
    return format_markdown_table(titles, rows)


def run_command(arguments: argparse.Namespace) -> int:
    """:return: 0 if all is as it should be, or if there is no device"""
    if not th.cuda.is_available():
        print(NO_DEVICE)
        return 0
    device = "cuda"
    found = [check_updates(case, device, arguments.rounds) for case in CASES]
    checks = list(check_training(device))
    checks += [(f"{each.case}: SB3's numbers", each.difference <= MAX_DIFFERENCE) for each in found]
    print(f"On {th.cuda.get_device_name()}, {describe_machine().in_words()}\n\n{updates_table(found)}\n")
    for what, is_so in checks:
        print(f"{'ok' if is_so else 'FAILED'}: {what}")
    results = {"device": th.cuda.get_device_name(), "updates": list(map(asdict, found)), "checks": dict(checks)}
    arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if all(is_so for _, is_so in checks) else 1


def _descendants(process: int) -> list[int]:
    """The processes that a process has started, and those that they have started."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/status"):
        # Others may end meanwhile.
        with suppress(OSError):
            fields = dict(line.split(":", 1) for line in path.read_text().splitlines())
            parents[int(path.parent.name)] = int(fields["PPid"])
    children = [pid for pid, parent in parents.items() if parent == process]
    return [*children, *(pid for child in children for pid in _descendants(child))]


def _must_not_be_needed() -> None:
    raise RuntimeError("this update cannot be compiled here")


def build_parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.gpu_check", description=__doc__)
    set_command(parser, run_command)
    add_option(parser, "--rounds", 5, "alternating updates of each", type=integer(1))
    text = "file for the results"
    add_option(parser, "--json", Path("gpu_check.json"), text, type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command_line(build_parser()))
