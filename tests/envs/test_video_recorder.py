"""VecVideoRecorder around samplers films the first environment, as it does around SB3's own environments."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import assert_same_weights
from process_helpers import wait_until
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnv,
    VecFrameStack,
    VecNormalize,
    VecVideoRecorder,
    unwrap_vec_wrapper,
)
from toy_envs import FilmedEnv

from sb3_walle import AsyncDQN, AsyncPPO, SamplerError, SamplerVecEnv, SamplerWarning
from sb3_walle.samplers.envs import SamplerEnvs
from sb3_walle.samplers.video import VideoRecorderSpec
from sb3_walle.transport.pulse import Pulse

clip_module = pytest.importorskip("moviepy.video.io.ImageSequenceClip")
imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")

N_STEPS, LENGTH, EVERY = 16, 4, 10
SETTINGS: dict[str, Any] = {"n_steps": N_STEPS, "batch_size": 16, "n_epochs": 1, "seed": 3, "device": "cpu"}
Wrap = Callable[[VecEnv], VecEnv]


def filmed(env: VecEnv, folder: Path, **kwargs: Any) -> VecVideoRecorder:
    return VecVideoRecorder(env, str(folder), lambda step: step % EVERY == 0, **{"video_length": LENGTH, **kwargs})


def in_samplers(n_samplers: int = 1, envs_per_sampler: int = 1, backend: str = "inline") -> SamplerVecEnv:
    n_envs = n_samplers * envs_per_sampler
    env_fns = [partial(FilmedEnv, identity) for identity in range(1, n_envs + 1)]
    return SamplerVecEnv(env_fns, envs_per_sampler, backend)


def in_sb3() -> VecEnv:
    return DummyVecEnv([lambda: FilmedEnv(1)])


def frames_of(path: Path) -> list[np.ndarray]:
    # Those that are in the file: the rate is nothing to make up for.
    reader = imageio_ffmpeg.read_frames(str(path), output_params=["-fps_mode", "passthrough"])
    width, height = next(reader)["size"]
    return [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]


def videos(folder: Path) -> dict[int, list[np.ndarray]]:
    """The frames of each video, by the step that it begins with."""
    found = {}
    for path in folder.iterdir():
        first, last = (int(part) for part in path.stem.removeprefix("rl-video-step-").split("-to-step-"))
        assert last - first == LENGTH
        found[first] = frames_of(path)
    return dict(sorted(found.items()))


def stamps(folder: Path) -> dict[int, list[tuple[int, ...]]]:
    return {first: [FilmedEnv.stamp_of(frame) for frame in frames] for first, frames in videos(folder).items()}


def assert_same_videos(found: Path, expected: Path) -> None:
    ours, theirs = videos(found), videos(expected)
    assert list(ours) == list(theirs)
    for first, frames in theirs.items():
        assert len(ours[first]) == len(frames) > 1
        np.testing.assert_array_equal(ours[first], frames)


@pytest.fixture(scope="module")
def sb3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What SB3's PPO leaves, with a video that is being recorded between two trainings, and one at the end."""
    folder = tmp_path_factory.mktemp("sb3")
    env = filmed(in_sb3(), folder)
    PPO("MlpPolicy", env, **SETTINGS).learn(2 * N_STEPS)
    PPO("MlpPolicy", env, **SETTINGS).learn(5 * N_STEPS)
    env.close()
    # moviepy writes the last of three frames twice.
    assert [len(frames) for frames in videos(folder).values()] == [LENGTH + 1] * 11 + [4]
    return folder


@pytest.mark.parametrize(("mode", "backend"), [("sync", "inline"), ("pipelined", "process")])
def test_videos_equal_those_of_sb3(mode: str, backend: str, sb3_folder: Path, tmp_path: Path) -> None:
    env = filmed(in_samplers(backend=backend), tmp_path)
    AsyncPPO("MlpPolicy", env, mode=mode, **SETTINGS).learn(2 * N_STEPS)
    AsyncPPO("MlpPolicy", env, mode=mode, **SETTINGS).learn(5 * N_STEPS)
    assert env.step_id == 7 * N_STEPS and not env.recorded_frames
    env.close()
    assert_same_videos(tmp_path, sb3_folder)


@pytest.mark.parametrize("mode", ["pipelined", "free"])
def test_the_first_environment_of_the_first_sampler_is_filmed(mode: str, tmp_path: Path) -> None:
    env = filmed(in_samplers(2, 2, "process"), tmp_path)
    with AsyncPPO("MlpPolicy", env, mode=mode, **SETTINGS) as model:
        model.learn(4 * 3 * N_STEPS)
    found = stamps(tmp_path)
    assert list(found) == list(range(0, EVERY * len(found), EVERY))
    for first, frames in found.items():
        # Seven steps an episode: the seventh shows the beginning of the next one.
        assert frames == [(1, step // 7, step % 7) for step in range(first, first + len(frames))]
    # Where the first come are the first served, each sampler makes as many steps as it can.
    if mode != "free":
        assert [len(frames) for frames in found.values()] == [LENGTH + 1] * 5


WRAPPERS: dict[str, Callable[[Wrap], Wrap]] = {
    "below VecNormalize": lambda film: lambda env: VecNormalize(film(env)),
    "above VecNormalize": lambda film: lambda env: film(VecNormalize(env)),
    "between": lambda film: lambda env: VecFrameStack(film(VecNormalize(VecFrameStack(env, 2))), 2),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_other_wrappers_train_the_same_with_it(name: str, tmp_path: Path) -> None:
    def trained(env: VecEnv) -> AsyncPPO:
        return AsyncPPO("MlpPolicy", env, mode="sync", **SETTINGS).learn(4 * 3 * N_STEPS)

    film: Wrap = lambda env: filmed(env, tmp_path)  # noqa: E731 - stands for the wrapper
    with trained(WRAPPERS[name](film)(in_samplers(2, 2))) as model:
        recorder = unwrap_vec_wrapper(model.get_env(), VecVideoRecorder)
        assert recorder is not None and recorder.step_id == 3 * N_STEPS
        with trained(WRAPPERS[name](lambda env: env)(in_samplers(2, 2))) as plain:
            assert_same_weights(plain, model)
    assert list(stamps(tmp_path)) == [0, 10, 20, 30, 40]


def test_off_policy_algorithms_film_too(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"learning_starts": 10, "batch_size": 8, "buffer_size": 100, "seed": 1}
    expected, found = tmp_path / "sb3", tmp_path / "ours"
    env = filmed(in_sb3(), expected)
    DQN("MlpPolicy", env, **settings).learn(36)
    env.close()
    with AsyncDQN("MlpPolicy", filmed(in_samplers(), found), mode="sync", **settings) as model:
        model.learn(36)
    assert_same_videos(found, expected)


def test_training_and_steps_by_hand_share_one_count(tmp_path: Path) -> None:
    """In lockstep the wrapper itself films, as around any VecEnv. No video here lasts from one to the other."""

    def use(env: VecEnv, model: PPO) -> None:
        model.learn(N_STEPS)
        env.reset()
        for _ in range(12):
            env.step(np.zeros(1, int))
        model.learn(N_STEPS, reset_num_timesteps=False)
        env.reset()
        env.step(np.zeros(1, int))
        env.close()

    expected, found = filmed(in_sb3(), tmp_path / "sb3"), filmed(in_samplers(), tmp_path / "ours")
    use(expected, PPO("MlpPolicy", expected, **SETTINGS))
    use(found, AsyncPPO("MlpPolicy", found, mode="sync", **SETTINGS))
    assert found.step_id == expected.step_id == 2 * N_STEPS + 13
    assert_same_videos(tmp_path / "ours", tmp_path / "sb3")
    assert list(videos(tmp_path / "ours")) == [0, 10, 20, 30, 40]


def test_a_video_ends_where_training_and_steps_by_hand_meet(tmp_path: Path) -> None:
    env = filmed(in_samplers(), tmp_path)
    with AsyncPPO("MlpPolicy", env, mode="sync", **SETTINGS) as model:
        # To step 16, then to step 22, in the middle of a video, and to step 38.
        model.learn(N_STEPS)
        for _ in range(6):
            env.step(np.zeros(1, int))
        model.learn(N_STEPS, reset_num_timesteps=False)
    # moviepy writes the last of three frames twice.
    assert {first: len(frames) for first, frames in videos(tmp_path).items()} == {0: 5, 10: 5, 20: 4, 30: 5}


def test_a_recorder_that_comes_later_counts_from_there(tmp_path: Path) -> None:
    with AsyncPPO("MlpPolicy", in_samplers(), mode="sync", **SETTINGS) as model:
        model.learn(N_STEPS)
        model.set_env(filmed(model.get_env(), tmp_path))
        model.learn(N_STEPS)
    assert {first: len(frames) for first, frames in videos(tmp_path).items()} == {0: 5, 10: 5}


class KillsFirstSampler(BaseCallback):
    """Kills the first sampler after the second rollout."""

    n_rollouts = 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.n_rollouts += 1
        if self.n_rollouts == 2:
            pid = self.training_env.env_method("process_id")[0]
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the sampler is gone")


def test_a_sampler_that_takes_the_place_of_another_counts_on(tmp_path: Path) -> None:
    env = filmed(in_samplers(backend="process"), tmp_path)
    model = AsyncPPO("MlpPolicy", env, mode="sync", **SETTINGS)
    with model, pytest.warns(SamplerWarning, match="SIGKILL"):
        model.learn(4 * N_STEPS, callback=KillsFirstSampler())
    # The video of step 30 was being recorded when the sampler died after step 32; then a new environment began.
    found = stamps(tmp_path)
    assert list(found) == [0, 10, 20, 40, 50, 60]
    for first in (40, 50):
        steps = range(first - 32, first - 32 + LENGTH + 1)
        assert found[first] == [(1, step // 7, step % 7) for step in steps]


def test_environments_of_a_dummy_vec_env_are_filmed_in_samplers(tmp_path: Path) -> None:
    env = filmed(make_vec_env(FilmedEnv, 2), tmp_path)
    with AsyncPPO("MlpPolicy", env, n_samplers=1, backend="process", mode="sync", **SETTINGS) as model:
        assert isinstance(env.unwrapped, SamplerVecEnv)
        model.learn(2 * N_STEPS)
        # Here the wrapper itself films, both environments.
        env.reset()
        for _ in range(EVERY):
            env.step(np.zeros(2, int))
    found = videos(tmp_path)
    assert list(found) == [0, 10, 20]
    assert [frames[0].size for frames in found.values()] == [32 * 32 * 3] * 2 + [2 * 32 * 32 * 3]


def test_an_evaluation_is_filmed(tmp_path: Path) -> None:
    eval_env = filmed(in_samplers(backend="process"), tmp_path)
    with AsyncPPO("MlpPolicy", FilmedEnv, n_samplers=1, backend="inline", **SETTINGS) as model:
        model.learn(N_STEPS, callback=EvalCallback(eval_env, n_eval_episodes=2, eval_freq=N_STEPS, verbose=0))
    eval_env.close()
    # Two episodes of seven steps.
    assert stamps(tmp_path)[0] == [(1, 0, step) for step in range(LENGTH + 1)]


def test_what_goes_wrong_in_the_trigger_reaches_the_user(tmp_path: Path) -> None:
    def trigger(step: int) -> bool:
        return 1 / (5 - step) > 9

    samplers = SamplerVecEnv([FilmedEnv], backend="inline", on_failure="raise")
    model = AsyncPPO("MlpPolicy", VecVideoRecorder(samplers, str(tmp_path), trigger, LENGTH), **SETTINGS)
    with pytest.raises(SamplerError, match="ZeroDivisionError"):
        model.learn(N_STEPS)


def test_writing_a_video_is_no_step_of_an_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = memoryview(bytearray(8)).cast("q")
    at_writing: list[int] = []

    class Clip:
        def __init__(self, frames: list[np.ndarray], fps: int) -> None:
            assert (len(frames), fps) == (LENGTH + 1, 20)

        def write_videofile(self, path: str, logger: None) -> None:
            at_writing.append(place[0])

    monkeypatch.setattr(clip_module, "ImageSequenceClip", Clip)
    envs = SamplerEnvs([FilmedEnv], Pulse(place))
    layer = VideoRecorderSpec(str(tmp_path), lambda step: step == 0, LENGTH, "rl-video", 20).build(envs, envs)
    layer.reset([None], [{}])
    for _ in range(LENGTH):
        layer.step([0], envs.observations, np.zeros(1), np.zeros(1, bool), lambda *_: None)
    assert at_writing == [0]
