"""The package without the packages of its extras: it imports and trains, and what needs one of them says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXTRA = ("matplotlib", "pandas", "ray", "rich", "sb3_contrib", "tensorboard", "tqdm")
# The interpreter imports it when it starts, in samplers as well.
WITHOUT_EXTRA = f"import sys\nsys.modules.update(dict.fromkeys({EXTRA!r}))\n"
ROOT = Path(__file__).parents[1]

TRAIN = """
from sb3_walle import *
# Ray is imported only for samplers on a cluster.
from sb3_walle.backends.ray import RayBackend

with AsyncPPO("MlpPolicy", "CartPole-v1", n_samplers=1, n_steps=16, batch_size=16, n_epochs=1, normalize=True) as model:
    model.learn(32, callback=TimelineCallback())
    model.save("model.zip")
    try:
        model.learn(64, progress_bar=True)
    except ImportError as error:
        print("progress bar:", error)
try:
    AsyncPPO("MlpPolicy", "CartPole-v1", backend="ray")
except ImportError as error:
    print("cluster:", error)
try:
    from sb3_walle import AsyncTRPO
except ImportError as error:
    print("contrib:", error)
print(AsyncPPO.load("model.zip").num_timesteps)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_EXTRA)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    # What Python would write beside the file above is nothing that a program has left.
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def run(environment: dict[str, str], directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True, timeout=250)


@pytest.mark.parametrize("name", EXTRA)
def test_the_extra_is_blocked(name: str, environment: dict[str, str], tmp_path: Path) -> None:
    assert "ModuleNotFoundError" in run(environment, tmp_path, "-c", f"import {name}").stderr


def test_training_needs_none_of_the_extra_and_what_needs_one_names_it(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = run(environment, tmp_path, "-c", TRAIN)
    assert done.returncode == 0, done.stderr
    bar, cluster, contrib, timesteps = done.stdout.splitlines()
    assert bar.startswith("progress bar:") and "tqdm and rich" in bar
    assert cluster == 'cluster: backend="ray" needs Ray: pip install "sb3_walle[ray]"'
    assert contrib == 'contrib: AsyncTRPO needs sb3-contrib: pip install "sb3_walle[contrib]"'
    assert int(timesteps) == 32
    # One line says why there is no picture.
    told = [line for line in done.stderr.splitlines() if "timeline" in line and "Warning" in line]
    assert len(told) == 1 and "timeline.png is not drawn" in told[0] and "matplotlib" in told[0]
    assert "pip install 'sb3_walle[extra]'" in told[0]
    assert (tmp_path / "timeline.json").exists() and not (tmp_path / "timeline.png").exists()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("-m", "sb3_walle.cli", "train", "CartPole-v1"), "a training run needs matplotlib, rich, tensorboard, tqdm"),
        (("-m", "benchmarks.returns", "CartPole-v1"), "benchmarks.returns needs matplotlib, tqdm"),
        (("-m", "benchmarks.figures", "--quick"), "benchmarks.figures needs matplotlib, tqdm"),
    ],
)
def test_what_needs_the_extra_names_it(
    arguments: tuple[str, ...], what: str, environment: dict[str, str], tmp_path: Path
) -> None:
    done = run(environment, tmp_path, *arguments)
    assert done.returncode != 0
    assert f"{what}: pip install 'sb3_walle[extra]'" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == [tmp_path / "sitecustomize.py"]


def test_bench_needs_none_of_the_extra(environment: dict[str, str], tmp_path: Path) -> None:
    done = run(environment, tmp_path, "-m", "sb3_walle.cli", "bench", "CartPole-v99")
    assert done.returncode == 2 and "CartPole-v99" in done.stderr
