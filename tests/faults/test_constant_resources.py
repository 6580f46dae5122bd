"""
What samplers take of the machine does not grow with time: not over many rollouts and several calls of learn(), and not
when samplers are killed and replaced. It grows as little as possible with their number.
"""

import gc
import os
import resource
import stat
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_envs import QuickEnv
from fault_models import make_model
from process_helpers import Programs, children_with_state, kill, open_descriptors, shared_memory_nbytes, wait_until
from stable_baselines3.common.callbacks import BaseCallback

from sb3_walle import SamplerVecEnv
from sb3_walle.backends.limits import DESCRIPTORS_PER_SAMPLER, FURTHER_DESCRIPTORS
from sb3_walle.samplers.errors import SamplerWarning

N_SAMPLERS, N_STEPS = 3, 32
ROLLOUT = N_SAMPLERS * N_STEPS
N_ROUNDS = 2
SETTINGS: dict[str, Any] = {"n_steps": N_STEPS, "batch_size": 32, "n_epochs": 1}


@pytest.fixture(autouse=True)
def before() -> Iterator[Counter[str]]:
    """What this process has open before a test. When nothing of the test is left, it is the same again."""
    gc.collect()
    before = open_descriptors()
    yield before
    gc.collect()
    assert open_descriptors() == before


@dataclass(frozen=True)
class Resources:
    """
    What is taken at a moment when nothing is under way.

    :param descriptors: of the learner, of the process that samplers are forked from, and of each sampler
    :param n_processes: number of processes without the learner's
    :param memory_nbytes: size of the shared memory that each of these has mapped
    """

    descriptors: list[Counter[str]]
    n_processes: int
    memory_nbytes: list[int]

    @classmethod
    def of(cls, env: SamplerVecEnv) -> "Resources":
        # The learner lets go of what belongs to collectors of the past.
        gc.collect()
        (server,) = set(env.env_method("server_pid"))
        samplers = env.env_method("pid")
        wait_until(lambda: children_with_state(server).keys() == set(samplers), "only those that live are left")
        pids = ["self", server, *samplers]
        return cls(
            [open_descriptors(pid) for pid in pids],
            1 + len(children_with_state(server)),
            [shared_memory_nbytes(pid) for pid in pids],
        )

    def describe(self, before: Counter[str]) -> str:
        learner, server, *samplers = (sum(counts.values()) for counts in self.descriptors)
        return (
            f"{len(samplers)} samplers. Descriptors: learner {learner - sum(before.values())}, server {server}, "
            f"each sampler {set(samplers)}. Processes: {self.n_processes}. Shared memory: learner "
            f"{self.memory_nbytes[0]}, server {self.memory_nbytes[1]}, each sampler {set(self.memory_nbytes[2:])} bytes"
        )


class KillNowAndThen(BaseCallback):
    """Kills a sampler in every fourth rollout, each time another one."""

    def __init__(self) -> None:
        super().__init__()
        self.n_kills = self.n_rollouts = 0

    def _on_rollout_start(self) -> None:
        self.n_rollouts += 1

    def _on_step(self) -> bool:
        if self.n_rollouts == 4:
            self.n_rollouts = 0
            victim = self.n_kills % N_SAMPLERS
            kill(self.training_env.env_method("pid", indices=victim)[0])
            self.n_kills += 1
        return True


@pytest.mark.parametrize(
    ("kind", "with_kills"), [("pipelined", False), *((kind, True) for kind in ("sync", "free", "DQN pipelined"))]
)
def test_what_is_taken_stays_what_it_was_after_the_first_rollout(
    kind: str, with_kills: bool, before: Counter[str]
) -> None:
    env = SamplerVecEnv([QuickEnv] * N_SAMPLERS, max_restarts=1_000, step_timeout=60.0)
    with warnings.catch_warnings(), make_model(kind, env, **SETTINGS) as model:
        warnings.simplefilter("ignore", SamplerWarning)
        model.learn(ROLLOUT)
        first = Resources.of(env)
        callback = KillNowAndThen() if with_kills else None
        for round in range(N_ROUNDS):
            model.learn(12 * ROLLOUT, callback=callback)
            # Lockstep, a message so large that it travels as a file, and other queues.
            env.reset()
            env.step(np.zeros(N_SAMPLERS, np.int64))
            env.set_attr("table", np.zeros(100_000))
            model.set_random_seed(round)
            model.learn(ROLLOUT)
            assert Resources.of(env) == first, f"after {round + 1} rounds"
        print(f"{kind}: {first.describe(before)}")
        assert env.client.n_restarts == (3 * N_ROUNDS if with_kills else 0)


def test_64_samplers_learn_and_take_no_more_than_they_have_to(before: Counter[str]) -> None:
    taken = {}
    for n_samplers in (2, 64):
        settings = {**SETTINGS, "n_steps": 8, "batch_size": 16}
        with make_model("pipelined", QuickEnv, n_samplers=n_samplers, **settings) as model:
            model.learn(2 * 8 * n_samplers)
            assert model.num_timesteps == 2 * 8 * n_samplers
            taken[n_samplers] = Resources.of(model.env)  # type: ignore[arg-type]
        # The queues are kept as long as the model is.
        del model
        print(taken[n_samplers].describe(before))
        assert taken[n_samplers].n_processes == 1 + n_samplers
    learner, server, sampler = (
        sum((taken[64].descriptors[process] - taken[2].descriptors[process]).values()) for process in range(3)
    )
    assert (learner, server, sampler) == (62, 62, 0)


def train_with_few_descriptors(kind: str, path: str) -> None:
    n_samplers = 5
    # Looking takes one.
    n_open = len(os.listdir("/proc/self/fd")) - 1
    limit = n_open + FURTHER_DESCRIPTORS + n_samplers * DESCRIPTORS_PER_SAMPLER
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    try:
        make_model(kind, QuickEnv, n_samplers=n_samplers + 1, **SETTINGS)
    except OSError as error:
        print(error)
    print(len(children_with_state(os.getpid())), "processes")
    with make_model(kind, QuickEnv, n_samplers=n_samplers, **SETTINGS) as model:
        model.learn(2 * N_STEPS * n_samplers)
        model.save(path)
    print("learned", model.num_timesteps)


def test_too_few_descriptors_are_an_error_of_the_constructor_and_just_enough_are_enough(
    programs: Programs, tmp_path: Path
) -> None:
    program = programs.start(train_with_few_descriptors, "pipelined", tmp_path / "model")
    program.check_success()
    refusal, *others = program.output.splitlines()
    assert refusal.startswith(f"[Errno 24] 6 samplers take {6 + FURTHER_DESCRIPTORS} file descriptors in this process")
    assert others == ["0 processes", f"learned {2 * N_STEPS * 5}"]


def test_shared_memory_has_no_name_and_is_the_owners_alone() -> None:
    with make_model("pipelined", QuickEnv, n_samplers=2, **SETTINGS) as model:
        model.learn(2 * N_STEPS)
        assert isinstance(model.env, SamplerVecEnv)
        pids = [os.getpid(), model.env.env_method("server_pid")[0], *model.env.env_method("pid")]
        found = 0
        for descriptor in (path for pid in pids for path in Path(f"/proc/{pid}/fd").iterdir()):
            if descriptor.is_symlink() and "sb3_walle" in os.readlink(descriptor):
                status = os.stat(descriptor)
                if status.st_size > 0:
                    assert (stat.S_IMODE(status.st_mode), status.st_nlink, status.st_uid) == (0o600, 0, os.geteuid())
                    found += 1
        assert found >= 2
        # This process may have named memory of others' making.
        maps = [line for pid in pids[1:] for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
        assert not [line for line in maps if "/dev/shm" in line]
