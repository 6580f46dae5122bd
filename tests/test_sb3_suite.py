"""The plugin with which SB3's own tests run, on tests of the same kind."""

import os
import sys
from pathlib import Path

import pytest
from process_helpers import Programs

ROOT = Path(__file__).parent.parent

# As SB3's tests do, it takes the algorithms from stable_baselines3, and names environments by id.
RUN = """
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env

def show(model):
    print(f"{type(model).__name__}: {model.n_envs} in {type(model.env).__name__} of {model.env.backend}, {model.mode}")

def test_ids_and_vec_envs(tmp_path):
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32)
    show(model)
    model.save(tmp_path / "model")
    show(PPO.load(tmp_path / "model", env="CartPole-v1"))
    show(DQN("MlpPolicy", make_vec_env("CartPole-v1", 3)))

def test_ppo_warnings():
    assert PPO.__name__ == "PPO"
"""
GAE = """
from stable_baselines3 import A2C

def test_gae_computation():
    model = A2C("MlpPolicy", "CartPole-v1")
    print(f"A2C in {model.env.backend}, {model.env.envs[0]}")
"""


def run_pytest(*arguments: str) -> None:
    """Start pytest with the plugin as `make sb3-tests` starts it."""
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "tests"))
    pytest.main(["-p", "sb3_suite.plugin", "-p", "no:cacheprovider", "-s", *arguments])


def run(programs: Programs, path: Path, *options: str) -> str:
    """What pytest prints."""
    program = programs.start(run_pytest, *options, path)
    program.wait(300)
    return program.output


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    for name, text in (("test_run.py", RUN), ("test_gae.py", GAE)):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_algorithms_are_asynchronous_ones_with_as_many_environments_as_sb3s(programs: Programs, suite: Path) -> None:
    output = run(programs, suite)
    assert output.count("AsyncPPO: 1 in SamplerVecEnv of process, pipelined") == 2
    assert "AsyncDQN: 3 in SamplerVecEnv of process, pipelined" in output
    # It looks at environments.
    assert "A2C in inline, <Monitor" in output
    # What has to fail, does.
    assert "2 passed, 1 xfailed" in output


def test_backend_and_mode_are_options(programs: Programs, suite: Path) -> None:
    output = run(programs, suite, "--backend", "inline", "--mode", "sync", "--learner", "eager")
    assert output.count("AsyncPPO: 1 in SamplerVecEnv of inline, sync") == 2
    assert "2 passed, 1 xfailed" in output


def test_a_difference_that_is_none_is_a_failure(programs: Programs, suite: Path) -> None:
    (suite / "test_run.py").write_text("def test_ppo_warnings():\n    pass\n")
    assert "[XPASS(strict)]" in run(programs, suite / "test_run.py")
