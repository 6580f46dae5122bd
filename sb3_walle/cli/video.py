"""A video of a trained agent. Another process records it: how MuJoCo renders is settled when a process imports it."""

import os
import subprocess
import sys
from ctypes.util import find_library
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import cloudpickle
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_walle.cli.environments import QuietFactory

VIDEO = "video.mp4"
# What the process leaves in its folder: one of them.
RECORDED, REASON = "recorded.mp4", "reason.txt"
TIMEOUT = 180.0
# MuJoCo's names of libraries that render without a display, and their names for the linker.
RENDERERS = {"egl": "EGL", "osmesa": "OSMesa"}
INSTALL_RENDERER = "MuJoCo needs a library to render without a display (apt-get install libegl1 libgl1)"


@dataclass(frozen=True)
class VideoRequest:
    """
    Whom to show, where, and where to put it.

    :param factory: builds the environment
    :param frame_stack: observations that the policy sees at once; ``None`` for one alone
    :param algorithm: SB3's class that loads the model
    :param model: the file of the model
    :param statistics: the file of the statistics of ``VecNormalize``, if there is one
    :param video: the file to leave
    """

    factory: QuietFactory
    frame_stack: int | None
    algorithm: type[BaseAlgorithm]
    model: Path
    statistics: Path | None
    video: Path


def record_video(request: VideoRequest) -> str | None:
    """
    Record ten seconds of a trained agent.

    :return: ``None`` if there is a video now; otherwise why there is none and what to install, in one line
    """
    if find_spec("moviepy") is None:
        return "it needs moviepy (pip install moviepy)"
    print("Recording a video (Ctrl-C skips it)", flush=True)
    reason = None
    try:
        for variables in mujoco_settings():
            with TemporaryDirectory(dir=request.video.parent) as folder:
                reason = _recorded(request, Path(folder), variables)
            if reason is None or not reason.startswith(INSTALL_RENDERER):
                break
    except subprocess.TimeoutExpired:
        return f"it took longer than {TIMEOUT:.0f} seconds"
    except KeyboardInterrupt:
        return "Ctrl-C has skipped it"
    return reason


def mujoco_settings() -> list[dict[str, str]]:
    """:return: environment variables with which MuJoCo may render, the most promising first"""
    if "MUJOCO_GL" in os.environ:
        return [{}]
    without_display = [{"MUJOCO_GL": name} for name, library in RENDERERS.items() if find_library(library)]
    with_display: list[dict[str, str]] = [{}] if "DISPLAY" in os.environ else []
    return [*without_display, *with_display] or [{}]


def _recorded(request: VideoRequest, folder: Path, variables: dict[str, str]) -> str | None:
    """:return: why there is no video, ``None`` if there is one"""
    # Modules of the user may lie where only this process looks.
    environment = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "sb3_walle.cli.video_process", str(folder)]
    packed = cloudpickle.dumps(request)
    done = subprocess.run(command, input=packed, env=environment, capture_output=True, timeout=TIMEOUT)
    if (folder / RECORDED).exists():
        (folder / RECORDED).replace(request.video)
        return None
    if (folder / REASON).exists():
        return (folder / REASON).read_text()
    return f"its process ended with exit code {done.returncode}"
