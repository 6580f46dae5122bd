"""Programs of users on Ray: their code reaches every node, and however they end, they leave nothing behind."""

import functools
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_envs import SavingEnv
from process_helpers import Programs, Terminal, run, wait_until_gone
from ray_cluster import no_other_cluster
from stable_baselines3.common.callbacks import BaseCallback

from sb3_walle import AsyncPPO
from sb3_walle.cli import main

pytestmark = pytest.mark.ray

LOCAL_LINE = 'backend="ray": no Ray cluster found, so Ray is started on this machine alone.\n'
SETTINGS: dict[str, Any] = {"n_steps": 32, "batch_size": 64, "n_epochs": 1, "n_samplers": 2, "learner": "eager"}


# Code of users

SIMULATOR = """
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv

class Simulator(CartPoleEnv):
    where = __file__

gym.register("Simulator-v0", Simulator, max_episode_steps=5)
"""

SCRIPT = """
import sys

# Nodes get the folders where this process looks for modules, which would do on one machine.
sys.path.append(sys.argv[1])
import my_simulator
sys.path.pop()
from sb3_walle import AsyncPPO
from sb3_walle.backends.ray import RayBackend

print("main module runs")
backend = RayBackend(runtime_env={"py_modules": [my_simulator.__path__[0]]})
with AsyncPPO("MlpPolicy", "Simulator-v0", n_samplers=2, n_steps=32, batch_size=64, backend=backend) as model:
    model.learn(64)
    print(max(episode["l"] for episode in model.ep_info_buffer))
    print(*model.get_env().get_attr("where"))
"""


def test_a_registered_id_of_a_module_that_a_runtime_env_takes_along(tmp_path: Path) -> None:
    package = tmp_path / "elsewhere" / "my_simulator"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(SIMULATOR)
    (tmp_path / "script.py").write_text(SCRIPT)
    process = run("", str(tmp_path / "script.py"), str(package.parent))
    assert process.returncode == 0, process.stderr
    runs, length, where = process.stdout.splitlines()
    assert (runs, length) == ("main module runs", "5")
    assert len(where.split()) == 2 and all("py_modules" in path for path in where.split())


# Programs with a Ray of their own


class Announce(BaseCallback):
    """
    Says that training is under way.

    :param error: what to raise then
    """

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self._error = error

    def _on_step(self) -> bool:
        if self.num_timesteps == 2 * 64:
            print("learning")
            if self._error is not None:
                raise self._error
        return True


def learn(saved: str, ray_folder: str, raises: bool = False) -> None:
    no_other_cluster(ray_folder)
    env = functools.partial(SavingEnv, saved, 0.5, 0.002)
    model = AsyncPPO("MlpPolicy", env, backend="ray", device="cpu", **SETTINGS)
    try:
        model.learn(1_000_000, callback=Announce(RuntimeError("enough") if raises else None))
    except KeyboardInterrupt:
        print("interrupted")


@pytest.fixture
def ray_folder() -> Iterator[str]:
    """Paths of Ray's sockets must be short."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_control_c(programs: Programs, tmp_path: Path, ray_folder: str) -> None:
    with Terminal() as terminal:
        program = programs.start(learn, tmp_path, ray_folder, terminal=terminal.name)
        terminal.wait_for("learning\n")
        # It reaches what Ray has started, too.
        terminal.type("\x03")
        assert program.wait() == 0
        wait_until_gone(program.pid)
        # Ray says there what it does, too.
        assert LOCAL_LINE in terminal.shown and "interrupted\n" in terminal.shown
    assert len(list(tmp_path.iterdir())) == 2, "environments were not closed"


def test_sigterm(programs: Programs, tmp_path: Path, ray_folder: str) -> None:
    program = programs.start(learn, tmp_path, ray_folder)
    program.wait_for("learning\n")
    os.kill(program.pid, signal.SIGTERM)
    assert program.wait() == 128 + signal.SIGTERM
    wait_until_gone(program.pid)
    assert program.output.count(LOCAL_LINE) == 1
    assert len(list(tmp_path.iterdir())) == 2, "environments were not closed"


def test_an_exception_in_a_callback(programs: Programs, tmp_path: Path, ray_folder: str) -> None:
    program = programs.start(learn, tmp_path, ray_folder, True)
    assert program.wait() == 1
    wait_until_gone(program.pid)
    assert "RuntimeError: enough" in program.errors
    assert len(list(tmp_path.iterdir())) == 2, "environments were not closed"


def test_the_command(tmp_path: Path) -> None:
    options = "--n-samplers 2 --n-steps 32 --batch-size 32 --n-epochs 1 --timesteps 64 --no-video --backend ray"
    assert main(["train", "CartPole-v1", "--run-dir", str(tmp_path), *options.split()]) == 0
    assert [path.name for path in tmp_path.glob("*/model.zip")] == ["model.zip"]
