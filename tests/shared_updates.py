"""Updates whose minibatches are divided among learners, with the traced halves themselves for programs."""

import os
import pickle
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from process_helpers import children_with_state, is_alive
from sb3_contrib import QRDQN, TQC, TRPO
from stable_baselines3 import DQN, PPO, SAC, TD3

from sb3_walle.gradient_workers.calls import BoundCall
from sb3_walle.gradient_workers.job import Job
from sb3_walle.gradient_workers.shared_program import SharedProgram
from sb3_walle.gradient_workers.shared_tensors import SharedTensors
from sb3_walle.gradient_workers.workers import GradientWorkers
from sb3_walle.updates.algorithm_update import AlgorithmUpdate
from sb3_walle.updates.compiled_update import make_update
from sb3_walle.updates.division import TracedHalf, divide
from sb3_walle.updates.dqn_update import DQNUpdate
from sb3_walle.updates.native.graph_parts import GraphParts
from sb3_walle.updates.ppo_update import PPOUpdate
from sb3_walle.updates.program_compiler import Program
from sb3_walle.updates.qrdqn_update import QRDQNUpdate
from sb3_walle.updates.sac_update import SACUpdate
from sb3_walle.updates.td3_update import TD3Update
from sb3_walle.updates.tqc_update import TQCUpdate
from sb3_walle.updates.traced_step import TracedStep, trace_update
from sb3_walle.updates.trpo_update import TRPOUpdate

UPDATES: dict[Any, Any] = {
    PPO: PPOUpdate,
    TRPO: TRPOUpdate,
    SAC: SACUpdate,
    TQC: TQCUpdate,
    TD3: TD3Update,
    DQN: DQNUpdate,
    QRDQN: QRDQNUpdate,
}


def program_of(graph: TracedStep | TracedHalf) -> Program:
    """The graph itself: all that a compiler would change of the numbers is their last digits."""
    return lambda inputs: graph.graph(*inputs)[0]


@dataclass(frozen=True)
class GraphJob(Job):
    """
    Runs graphs where others run programs.

    :param folder: a worker makes a file there, named after its process, when it stops
    :param hold: whether it stops before it has ``"loaded"`` its programs, or before it makes a call, of which this is
        the number: until the folder has a file ``go``
    """

    folder: Path
    hold: str

    def bound_calls(self) -> list[BoundCall]:
        self._stop("loaded")
        return [self._stopping(str(number), call) for number, call in enumerate(super().bound_calls())]

    def loaded(self, path: Path) -> Program:
        graph = pickle.loads(path.read_bytes()).build()
        return lambda inputs: graph(*inputs)[0]

    def _stopping(self, name: str, call: BoundCall) -> BoundCall:
        def make() -> th.Tensor | None:
            self._stop(name)
            return call()

        return make

    def _stop(self, where: str) -> None:
        if where == self.hold:
            (self.folder / f"{os.getpid()}.stopped").touch()
            while not (self.folder / "go").exists():
                time.sleep(0.001)


class SharedUpdates:
    """
    Updates a model as several learners do, all of whose shares this process computes: no worker is started.

    :param model: the model
    :param n_learners: number of shares; 0 for the program of the whole minibatch
    """

    def __init__(self, model: Any, n_learners: int) -> None:
        self.model, model.check_nan = model, False
        (kind,) = (kind for algorithm, kind in UPDATES.items() if isinstance(model, algorithm))
        self.update = update = kind(model)
        update.key()
        self.groups = update.make_groups()
        self.steps = trace_update(update, self.groups)
        self.programs = {name: program_of(step) for name, step in self.steps.items()}
        if n_learners:
            self._divide(n_learners)
        #: number of minibatches of all updates
        self.n_minibatches = 0

    def _divide(self, n_learners: int) -> None:
        self.division = divide(self.update, self.steps, n_learners)
        halves = {name: program_of(half) for name, half in self.division.halves.items()}
        first = next(iter(self.steps.values()))
        self.shared = SharedTensors(first.eager, first.inputs, self.division)
        for group in self.groups:
            group.move_to(self.shared.home(group.spec.name))
        self.workers = GradientWorkers(n_learners - 1)
        self.programs = {
            name: SharedProgram(step.eager, self.shared, halves, self.workers, list(self.division.stages))
            for name, step in self.steps.items()
        }

    def start_workers(self, folder: Path, hold: str = "") -> None:
        """
        Start the workers that are missing.

        :param folder: for the halves that they make, and for :class:`GraphJob`'s files
        :param hold: where workers stop, as in :class:`GraphJob`
        """
        paths = {name: folder / name for name in self.division.halves}
        for name, path in paths.items():
            path.write_bytes(pickle.dumps(GraphParts.of(self.division.halves[name].graph)))

        def make_job(rank: int, line: socket.socket) -> Job:
            calls = tuple(self.shared.calls(rank))
            return GraphJob(self.shared.memory, self.shared.layout, paths, calls, line, folder, hold)

        self.workers.start(make_job)

    def worker_processes(self) -> list[int]:
        server = self.workers._server
        return [] if server is None else [pid for pid in children_with_state(server._process.pid) if is_alive(pid)]

    def train(self, number: int = 1, is_compared: bool = False) -> bool:
        """Make an update from the random state of its number; whether the first minibatch agreed with an eager one."""
        np.random.seed(number)
        th.manual_seed(number)
        made = make_update(self.update, self.groups, self.steps, self.programs, number, is_compared)
        self.n_minibatches += made[0]
        return made[1]


def state_of(update: AlgorithmUpdate) -> dict[str, Any]:
    """All that an update changes: the policy, optimizers, and what was logged."""
    algorithm = update.algorithm
    return {
        "policy": dict(algorithm.policy.state_dict()),
        "optimizers": [optimizer.state_dict() for optimizer in update.optimizers()],
        "logged": {name: value for name, value in algorithm.logger.name_to_value.items() if name != "time/fps"},
        "n_updates": algorithm._n_updates,
    }
