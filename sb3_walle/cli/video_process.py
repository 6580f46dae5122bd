"""``python -m sb3_walle.cli.video_process FOLDER``: records a video in a process of its own."""

import inspect
import pickle
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecNormalize, VecVideoRecorder

from sb3_walle.cli.video import INSTALL_RENDERER, REASON, RECORDED, VideoRequest

SECONDS = 10
# SB3's, for environments that do not say.
FRAMES_PER_SECOND = 30


def environment_of(request: VideoRequest) -> VecEnv:
    """:return: the environment as in training, with statistics that stay as they are"""
    env: VecEnv = DummyVecEnv([request.factory])
    if env.render_mode != "rgb_array":
        raise ValueError("the environment has no render_mode='rgb_array'")
    if request.frame_stack:
        env = VecFrameStack(env, request.frame_stack)
    if request.statistics is not None:
        env = VecNormalize.load(str(request.statistics), env)
        env.training = False
    return env


def record(request: VideoRequest, folder: Path) -> None:
    # Nothing is learned here.
    without_buffer: dict[str, Any] = {"buffer_size": 1} if issubclass(request.algorithm, OffPolicyAlgorithm) else {}
    model = request.algorithm.load(request.model, environment_of(request), "cpu", **without_buffer)
    env = model.get_env()
    assert env is not None
    env.reset()
    if not isinstance(env.get_images()[0], np.ndarray):
        raise ValueError("the environment's render() returns no pictures")
    n_frames = SECONDS * int(env.get_attr("metadata")[0].get("render_fps", FRAMES_PER_SECOND))
    recorder = VecVideoRecorder(env, str(folder), lambda step: step == 0, n_frames)
    observations: Any = recorder.reset()
    states, starts = None, np.ones(1, dtype=bool)
    takes_masks = "action_masks" in inspect.signature(model.predict).parameters
    # Episodes follow each other.
    for _ in range(n_frames):
        masks = {"action_masks": np.stack(env.env_method("action_masks"))} if takes_masks else {}
        actions, states = model.predict(observations, states, starts, deterministic=True, **masks)
        observations, _, starts, _ = recorder.step(actions)
    recorder.close()
    Path(recorder.video_path).replace(folder / RECORDED)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    try:
        record(pickle.load(sys.stdin.buffer), folder)
    except Exception as error:
        traceback.print_exc()
        reason = " ".join(str(error).split()) or type(error).__name__
        hint = f"{INSTALL_RENDERER}, or else: " if "mujoco" in sys.modules else ""
        (folder / REASON).write_text(hint + reason)
        sys.exit(1)
