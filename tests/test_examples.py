"""Every example runs as it is, as a script in a folder of its own, and leaves what it says it leaves."""

import os
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from process_helpers import Programs
from sb3_contrib import TQC
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

EXAMPLES = Path(__file__).parents[1] / "examples"


Check = Callable[[Path, str], None]


def saved(path: Path) -> PPO:
    """A model as plain SB3 loads it."""
    return PPO.load(path, device="cpu")


def number_after(text: str, output: str) -> float:
    found = re.search(re.escape(text) + r"\s*(-?[\d.]+)", output)
    assert found, output[-2000:]
    return float(found[1])


def check_half_cheetah(folder: Path, output: str) -> None:
    assert "Collecting with 10 samplers" in output and "total_timesteps" in output
    number_after("Reward of an episode:", output)
    assert saved(folder / "half_cheetah.zip").num_timesteps == 10 * 256
    assert (folder / "half_cheetah_statistics.pkl").exists()


def check_custom_env(folder: Path, output: str) -> None:
    assert "Collecting with 4 samplers" in output
    assert number_after("Reward of an episode:", output) < 0
    assert saved(folder / "docking.zip").observation_space.shape == (2,)


def check_vec_normalize(folder: Path, output: str) -> None:
    assert "Collecting with 8 samplers" in output
    assert number_after("Reward of an episode:", output) < 0
    statistics = VecNormalize.load(str(folder / "pendulum_statistics.pkl"), make_vec_env("Pendulum-v1"))
    assert statistics.obs_rms.count >= saved(folder / "pendulum.zip").num_timesteps == 1024


def check_callbacks_and_curriculum(folder: Path, output: str) -> None:
    assert "Collecting with 8 samplers" in output
    assert "curriculum/" in output
    assert "Levels of the environments: [1, 1, 1, 1, 1, 1, 1, 1]" in output
    number_after("Best mean reward at level 5:", output)
    assert saved(folder / "golf" / "best_model.zip").num_timesteps >= 4000
    assert (folder / "golf" / "evaluations.npz").exists()


def check_evaluation(folder: Path, output: str) -> None:
    assert number_after("EvalCallback:", output) > 0 and number_after("AsyncEvalCallback:", output) > 0
    sb3, ours = (np.load(folder / name / "evaluations.npz") for name in ("EvalCallback", "AsyncEvalCallback"))
    np.testing.assert_array_equal(ours["timesteps"], sb3["timesteps"])
    # NumPy and torch round differently, and a pendulum may make more of it.
    np.testing.assert_allclose(ours["results"].mean(), sb3["results"].mean(), rtol=0.1)
    assert saved(folder / "AsyncEvalCallback" / "best_model").num_timesteps in ours["timesteps"]


def check_slow_simulator(folder: Path, output: str) -> None:
    ours, theirs = number_after("AsyncPPO, 8 samplers:", output), number_after("PPO, DummyVecEnv(8):", output)
    assert ours > 0 and theirs > 0
    assert "times as many" in output


def check_images(folder: Path, output: str) -> None:
    assert "Collecting with 2 samplers, environments of each: 4" in output
    assert 0 <= number_after("Balls caught:", output) <= 100
    assert saved(folder / "catch.zip").observation_space.shape == (4, 36, 36)


def check_tqc(folder: Path, output: str) -> None:
    assert "Collecting with 4 samplers" in output
    assert number_after("Reward of an episode:", output) < 0
    assert TQC.load(folder / "tqc_pendulum", device="cpu").num_timesteps == 120


def check_vectorized_env(folder: Path, output: str) -> None:
    assert "Collecting with 2 samplers, environments of each: 16" in output
    assert number_after("Reward of an episode:", output) > 0
    assert saved(folder / "poles.zip").num_timesteps == 2 * 16 * 64


def check_envpool_cheetah(folder: Path, output: str) -> None:
    assert "Collecting with 2 samplers, environments of each: 8" in output
    number_after("Reward of an episode:", output)
    assert saved(folder / "cheetahs.zip").num_timesteps == 2 * 8 * 256
    assert (folder / "cheetahs_statistics.pkl").exists()


def check_zoo(folder: Path, output: str) -> None:
    assert "Collecting with 1 samplers" in output
    assert saved(folder / "logs" / "ppo" / "HalfCheetah-v4_1" / "HalfCheetah-v4.zip").num_timesteps == 512


# How many steps are enough for the check. A rollout is always completed.
CHECKS: dict[str, tuple[int, Check]] = {
    "half_cheetah": (1, check_half_cheetah),
    "custom_env": (1, check_custom_env),
    "vec_normalize": (1, check_vec_normalize),
    "callbacks_and_curriculum": (4000, check_callbacks_and_curriculum),
    "evaluation": (2048, check_evaluation),
    "slow_simulator": (1, check_slow_simulator),
    "images": (1, check_images),
    "vectorized_env": (1, check_vectorized_env),
    "envpool_cheetah": (1, check_envpool_cheetah),
    "tqc": (120, check_tqc),
    "zoo": (1, check_zoo),
}
# Packages that only some have.
NEEDS = {"envpool_cheetah": "envpool"}


def run_example(name: str, folder: str, timesteps: int) -> None:
    """Run an example as a script in a folder."""
    os.chdir(folder)
    os.environ["TIMESTEPS"] = str(timesteps)
    path = EXAMPLES / f"{name}.py"
    sys.argv = [str(path)]
    runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize("name", CHECKS)
def test_example_does_what_it_says(name: str, programs: Programs, tmp_path: Path) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    timesteps, check = CHECKS[name]
    program = programs.start(run_example, name, tmp_path, timesteps)
    assert program.wait(600) == 0, program.output[-2000:] + program.errors
    # Neither training in lockstep nor anything else that a newcomer would have to wonder about.
    assert "UserWarning" not in program.errors
    check(tmp_path, program.output)


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.iterdir()} - {"__pycache__"} == set(CHECKS)
