"""The video that sb3-walle train leaves, and what it says where there can be none."""

import io
import runpy
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import pytest
from stable_baselines3 import PPO
from test_cli import TINY, run_directory

from sb3_walle.cli import main, video
from sb3_walle.cli.video import INSTALL_RENDERER, mujoco_settings

# Pictures of an environment's own need no library. Each shows how bright the last action was.
PAINTED_ENV = """
import gymnasium as gym
import numpy as np
from gymnasium import spaces

class PaintedEnv(gym.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}
    observation_space = spaces.Box(-np.inf, np.inf, (2,))
    action_space = spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.n_steps, self.brightness = 0, 0
        return np.full(2, 50, np.float32), {}

    def step(self, action):
        self.n_steps, self.brightness = self.n_steps + 1, 100 + 100 * int(action)
        return np.full(2, 50, np.float32), 1.0, self.n_steps == 15, False, {}

    def action_masks(self):
        return np.array([True, False])

    def render(self):
        RENDER

gym.register("Painted-v0", entry_point=PaintedEnv)
"""
PICTURES = "return np.full((64, 96, 3), self.brightness, np.uint8)"
TRAIN = ["--timesteps", "64", "--learner", "eager", *[option for option in TINY if option != "--no-video"]]


def train(
    directory: Path, monkeypatch: pytest.MonkeyPatch, *options: str, render: str = PICTURES, modes: str = "rgb_array"
) -> Path:
    """The directory of a run whose environment draws itself."""
    source = PAINTED_ENV.replace("RENDER", render).replace('["rgb_array"]', repr([modes]))
    (directory / "painted_env.py").write_text(source)
    monkeypatch.syspath_prepend(directory)
    # Not that of the test before.
    monkeypatch.delitem(sys.modules, "painted_env", raising=False)
    gym.registry.pop("Painted-v0", None)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert main(["train", "painted_env:Painted-v0", "--run-dir", str(directory / "runs"), *TRAIN, *options]) == 0
    return run_directory(directory / "runs")


def line_about_the_video(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  video ")]
    return line


def brightnesses(path: Path) -> list[int]:
    imageio = pytest.importorskip("imageio.v2")
    with imageio.get_reader(path, "ffmpeg") as reader:
        return [round(float(frame.mean())) for frame in reader]


def run_here(command: list[str], input: bytes, **_: Any) -> subprocess.CompletedProcess:
    """Run a module as ``python -m`` does, but in this process."""
    _, _, module, *arguments = command
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, *arguments])
        patch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(input)))
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as ended:
            return subprocess.CompletedProcess(command, int(ended.code or 0))
    return subprocess.CompletedProcess(command, 0)


HERE = SimpleNamespace(run=run_here, TimeoutExpired=subprocess.TimeoutExpired)


def test_video_of_ten_seconds_of_the_trained_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("moviepy")
    directory = train(tmp_path, monkeypatch, "--normalize")
    assert str(directory / "video.mp4") in line_about_the_video(capsys)
    found = brightnesses(directory / "video.mp4")
    # Four pictures a second, episodes one after the other: the first picture of each is dark.
    assert len(found) == pytest.approx(40, abs=2)
    assert max(found[0], found[15], found[30]) < 20
    # The deterministic action for an observation that never changes.
    shown = {value for index, value in enumerate(found) if index % 15}
    assert max(shown) - min(shown) < 10
    PPO.load(directory / "model.zip", device="cpu")
    assert not [path for path in directory.iterdir() if path.is_dir()]


def test_masked_actions_are_neither_filmed_nor_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("moviepy")
    monkeypatch.setattr(video, "subprocess", HERE)
    directory = train(tmp_path, monkeypatch, "--algo", "maskable_ppo")
    assert max(brightnesses(directory / "video.mp4")) == pytest.approx(100, abs=10)
    assert "from sb3_contrib.common.maskable.evaluation import evaluate_policy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("render", "modes", "mentioned"),
    [
        ("raise RuntimeError('there is no light')", "rgb_array", "there is no light"),
        ("return None", "rgb_array", "returns no pictures"),
        (PICTURES, "human", "rgb_array"),
    ],
)
def test_an_environment_that_cannot_be_shown(
    render: str,
    modes: str,
    mentioned: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("moviepy")
    monkeypatch.setattr(video, "subprocess", HERE)
    directory = train(tmp_path, monkeypatch, render=render, modes=modes)
    line = line_about_the_video(capsys)
    assert "none" in line and mentioned in line
    assert not (directory / "video.mp4").exists() and (directory / "model.zip").exists()


def test_an_environment_that_ends_the_process_of_the_video(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("moviepy")
    directory = train(tmp_path, monkeypatch, render="import os; os._exit(7)")
    line = line_about_the_video(capsys)
    assert "none" in line and "exit code 7" in line
    assert not (directory / "video.mp4").exists() and (directory / "model.zip").exists()


def test_without_moviepy_the_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    train(tmp_path, monkeypatch)
    assert "pip install moviepy" in line_about_the_video(capsys)


def test_no_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    directory = train(tmp_path, monkeypatch, "--no-video")
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if line.startswith(("  video", "Recording"))]
    assert not (directory / "video.mp4").exists()


def test_interrupt_skips_the_video_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("moviepy")
    processes = []

    class Interrupted(subprocess.Popen):
        def communicate(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            if "sb3_walle.cli.video_process" not in self.args:
                return super().communicate(*args, **kwargs)
            processes.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    directory = train(tmp_path, monkeypatch, render="import time; time.sleep(100)")
    assert "Ctrl-C" in line_about_the_video(capsys)
    assert processes[-1].poll() is not None
    left = {path.name.partition(".tfevents")[0] for path in directory.iterdir()}
    assert left == {"model.zip", "progress.csv", "settings.json", "learning_curve.png", "events.out"}


def test_a_video_that_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("moviepy")
    monkeypatch.setattr(video, "TIMEOUT", 1.0)
    started = time.perf_counter()
    train(tmp_path, monkeypatch, render="import time; time.sleep(100)")
    assert "longer than 1 seconds" in line_about_the_video(capsys)
    assert time.perf_counter() - started < 60


@pytest.mark.parametrize(
    ("variables", "libraries", "expected"),
    [
        ({}, ["EGL", "OSMesa"], [{"MUJOCO_GL": "egl"}, {"MUJOCO_GL": "osmesa"}]),
        ({}, [], [{}]),
        ({"DISPLAY": ":0"}, [], [{}]),
        ({"DISPLAY": ":0"}, ["EGL"], [{"MUJOCO_GL": "egl"}, {}]),
        ({"MUJOCO_GL": "glfw"}, ["EGL"], [{}]),
    ],
)
def test_how_mujoco_may_render(
    variables: dict[str, str], libraries: list[str], expected: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(video, "find_library", lambda name: name if name in libraries else None)
    assert mujoco_settings() == expected


def test_mujoco_without_a_renderer_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("moviepy")
    # There is no such display.
    for name, value in {"MUJOCO_GL": "glfw", "DISPLAY": ":9999"}.items():
        monkeypatch.setenv(name, value)
    options = ["--run-dir", str(tmp_path), *TRAIN]
    assert main(["train", "InvertedPendulum-v4", *options]) == 0
    assert INSTALL_RENDERER in line_about_the_video(capsys)
