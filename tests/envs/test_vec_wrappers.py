"""VecEnv wrappers around samplers, and inside them, do what they do around SB3's own environments."""

import csv
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from oracle import Contiguous, Recorder, assert_same, assert_same_weights, episodes, train
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor, load_results
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecEnv,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper
from toy_envs import DictEnv, RandomWalk, StampedEnv

from sb3_walle import AsyncPPO, SamplerError, SamplerVecEnv
from sb3_walle.envs.wrappers import wrapped_samplers

SETTINGS: dict[str, Any] = {"n_steps": 48, "batch_size": 24, "n_epochs": 1, "seed": 3, "device": "cpu"}
N_ENVS = 2
Wrap = Callable[[VecEnv], VecEnv]


class Screen(gym.Env):
    """Shows an image with channels last, which its random stream and the actions paint."""

    observation_space = spaces.Box(0, 255, (36, 36, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(0), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        truncated = self.steps == 9
        return self._observe(int(action)), float(action), bool(self.np_random.random() < 0.05), truncated, {}

    def _observe(self, action: int) -> np.ndarray:
        return self.np_random.integers(100 * action, 256, (36, 36, 3), np.uint8)


class Offset(VecEnvWrapper):
    """A wrapper of the user's own, which changes everything that it can."""

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv, observation_space=spaces.Box(-np.inf, np.inf, venv.observation_space.shape, np.float32))

    def reset(self) -> np.ndarray:
        return self.venv.reset() + 1

    def step_async(self, actions: np.ndarray) -> None:
        self.venv.step_async(actions / 2)

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        for info in infos:
            info["offset"] = 1
            if "terminal_observation" in info:
                info["terminal_observation"] = info["terminal_observation"] + 1
        return observations + 1, rewards - 1, dones, infos


WRAPPERS: dict[str, tuple[str, Any, Wrap]] = {
    "VecFrameStack": ("MlpPolicy", RandomWalk, lambda venv: VecFrameStack(venv, 3)),
    "VecFrameStack of a dictionary": (
        "MultiInputPolicy",
        lambda: gym.wrappers.TransformObservation(
            DictEnv(),
            lambda observation: {"vector": observation["vector"]},
            spaces.Dict({"vector": DictEnv.observation_space["vector"]}),
        ),
        lambda venv: VecFrameStack(venv, 2, channels_order={"vector": "first"}),
    ),
    "VecTransposeImage": ("CnnPolicy", Screen, VecTransposeImage),
    "VecFrameStack of images": ("CnnPolicy", Screen, lambda venv: VecTransposeImage(VecFrameStack(venv, 2))),
    "VecMonitor": ("MlpPolicy", RandomWalk, VecMonitor),
    "VecMonitor of two": ("MlpPolicy", RandomWalk, lambda venv: VecCheckNan(VecMonitor(VecFrameStack(venv, 2)))),
    "VecCheckNan": ("MlpPolicy", RandomWalk, lambda venv: VecCheckNan(venv, raise_exception=True)),
    "VecExtractDictObs": ("MlpPolicy", DictEnv, lambda venv: VecExtractDictObs(venv, "vector")),
}


def compare(policy: str, oracle_env: VecEnv, env: VecEnv, **settings: Any) -> tuple[AsyncPPO, Recorder]:
    """SB3's PPO and AsyncPPO train the same to the last bit."""
    oracle = PPO(policy, oracle_env, **SETTINGS, **settings)
    expected = train(oracle)
    model = AsyncPPO(policy, env, mode="sync", actor="torch", **SETTINGS, **settings)
    found = train(model)
    assert_same(expected.steps, found.steps, "steps")
    assert_same(expected.buffers, found.buffers, "rollout_buffer")
    assert_same(episodes(oracle), episodes(model), "ep_info_buffer")
    assert_same_weights(oracle, model)
    return model, found


def in_samplers(env: Any, backend: str = "inline", n_envs: int = N_ENVS, **kwargs: Any) -> VecEnv:
    settings = {"envs_per_sampler": n_envs, "backend": backend, **kwargs}
    return make_vec_env(env, n_envs, vec_env_cls=SamplerVecEnv, vec_env_kwargs=settings)


def quietly(wrap: Wrap, venv: VecEnv) -> VecEnv:
    with warnings.catch_warnings():
        # Of a VecMonitor around monitored environments.
        warnings.simplefilter("ignore")
        return wrap(venv)


@pytest.mark.parametrize("name", WRAPPERS)
def test_training_in_a_wrapper_of_sb3_equals_sb3(name: str) -> None:
    policy, env, wrap = WRAPPERS[name]
    oracle_env = quietly(wrap, make_vec_env(env, N_ENVS))
    compare(policy, Contiguous(oracle_env) if policy == "CnnPolicy" else oracle_env, quietly(wrap, in_samplers(env)))


@pytest.mark.parametrize("name", ["VecFrameStack", "VecExtractDictObs"])
def test_training_with_the_wrapper_given_to_the_samplers_equals_sb3(name: str) -> None:
    policy, env, wrap = WRAPPERS[name]
    samplers = in_samplers(env, vec_wrapper=wrap)
    assert isinstance(samplers, SamplerVecEnv)
    compare(policy, wrap(make_vec_env(env, N_ENVS)), samplers)


def test_any_wrapper_can_be_given_to_the_samplers() -> None:
    samplers = in_samplers(RandomWalk, "process", vec_wrapper=Offset)
    compare("MlpPolicy", Offset(make_vec_env(RandomWalk, N_ENVS)), samplers)
    samplers.close()


def test_wrappers_inside_and_around_work_together() -> None:
    oracle_env = VecFrameStack(Offset(make_vec_env(RandomWalk, N_ENVS)), 2)
    compare("MlpPolicy", oracle_env, VecFrameStack(in_samplers(RandomWalk, vec_wrapper=Offset), 2))


@pytest.mark.parametrize("wrap", [Offset, lambda venv: VecFrameStack(venv, 3)])
def test_lockstep_with_a_wrapper_inside_equals_dummy_vec_env(wrap: Wrap) -> None:
    oracle = wrap(make_vec_env(RandomWalk, 4, seed=5))
    ours = make_vec_env(
        RandomWalk,
        4,
        seed=5,
        vec_env_cls=SamplerVecEnv,
        vec_env_kwargs={"envs_per_sampler": 2, "vec_wrapper": wrap, "backend": "inline"},
    )
    assert (ours.observation_space, ours.action_space) == (oracle.observation_space, oracle.action_space)
    np.testing.assert_array_equal(ours.reset(), oracle.reset())
    for _ in range(60):
        actions = np.stack([oracle.action_space.sample() for _ in range(4)])
        assert_same(list(oracle.step(actions)), list(ours.step(actions)), "step")
    assert ours.env_is_wrapped(Monitor) == [True] * 4
    assert ours.get_attr("steps", indices=[1, 3]) == oracle.get_attr("steps", indices=[1, 3])


def test_images_with_channels_last_are_transposed_in_samplers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = AsyncPPO("CnnPolicy", Screen, n_samplers=2, backend="inline", **SETTINGS)
    assert isinstance(model.env, VecTransposeImage) and isinstance(model.env.venv, SamplerVecEnv)
    recorder = train(model)
    assert recorder.buffers[0]["observations"].shape == (48, 2, 3, 36, 36)


def stacks_of(observations: np.ndarray, n_stack: int) -> np.ndarray:
    """Observations of a StampedEnv, ``[T, n_envs, 3 * n_stack]``, frame by frame."""
    return observations.reshape(*observations.shape[:2], n_stack, 3)


class Frames(Recorder):
    """Looks at what was learned from: every frame of a stack belongs to its episode, and none is missing."""

    def _on_rollout_end(self) -> None:
        super()._on_rollout_end()
        for stack in stacks_of(self.buffers[-1]["observations"], 3).reshape(-1, 3, 3):
            identity, episode, step = stack[-1]
            for age, frame in enumerate(stack[::-1]):
                expected = (identity, episode, step - age) if step >= age else (0, 0, 0)
                assert tuple(frame) == expected


@pytest.mark.parametrize(("mode", "backend"), [("sync", "inline"), ("pipelined", "inline"), ("free", "process")])
def test_frames_are_stacked_within_episodes_in_every_mode(mode: str, backend: str) -> None:
    env = VecFrameStack(SamplerVecEnv([partial(StampedEnv, i + 1) for i in range(4)], 2, backend), 3)
    model = AsyncPPO("MlpPolicy", env, mode=mode, **SETTINGS)
    model.learn(4 * 48 * 4, callback=Frames())
    model.learn(2 * 48 * 4, callback=Frames(), reset_num_timesteps=False)
    env.close()


def test_training_continues_after_the_environments_were_used_in_lockstep() -> None:
    """What is around the samplers has not seen the lockstep steps, and must not mix them up with its own."""
    env = VecFrameStack(in_samplers(lambda: StampedEnv(1)), 2)
    model = AsyncPPO("MlpPolicy", env, mode="sync", **SETTINGS).learn(96)
    evaluate_policy(model, env, n_eval_episodes=3)
    env.step(np.zeros(N_ENVS, int))
    before = env.step(np.zeros(N_ENVS, int))[0]
    recorder = Recorder()
    model.learn(96, callback=recorder, reset_num_timesteps=False)
    first = stacks_of(recorder.buffers[0]["observations"], 2)[0]
    np.testing.assert_array_equal(first[:, 1], before.reshape(N_ENVS, 2, 3)[:, 1])
    assert (first[:, 0] == 0).all()


def test_vec_monitor_writes_the_file_that_it_writes_with_sb3(tmp_path: Path) -> None:
    def rows(name: str) -> list[tuple[float, float]]:
        with (tmp_path / f"{name}.monitor.csv").open() as file:
            assert file.readline().startswith("#")
            return [(float(row["r"]), float(row["l"])) for row in csv.DictReader(file)]

    class Marked(RandomWalk):
        def step(self, action: np.ndarray) -> Any:
            *result, info = super().step(action)
            return (*result, {**info, "mark": 7})

    def monitored(name: str) -> Wrap:
        return lambda venv: VecMonitor(venv, str(tmp_path / name), info_keywords=("mark",))

    oracle_env = quietly(monitored("sb3"), make_vec_env(Marked, N_ENVS))
    env = quietly(monitored("ours"), in_samplers(Marked, "process"))
    compare("MlpPolicy", oracle_env, env)
    assert rows("ours") == rows("sb3") != []
    assert env.episode_count == oracle_env.episode_count > 0
    env.close()
    results = load_results(str(tmp_path))
    assert set(results["mark"]) == {7} and (results["t"] >= 0).all()


def test_vec_check_nan_raises_in_the_sampler() -> None:
    class Broken(RandomWalk):
        def step(self, action: np.ndarray) -> Any:
            observation, *rest = super().step(action)
            return (observation * np.nan, *rest)

    samplers = SamplerVecEnv([RandomWalk, Broken], backend="inline", on_failure="raise")
    env = VecCheckNan(samplers, raise_exception=True)
    with pytest.raises(SamplerError, match=r"Sampler 1 failed while collecting") as caught:
        AsyncPPO("MlpPolicy", env, **SETTINGS).learn(96)
    assert "found nan in observations" in str(caught.value)


def test_layers_that_stay_the_same_are_kept() -> None:
    """Otherwise, the frames of the present episode would be lost whenever something else changes."""
    env = VecNormalize(VecFrameStack(in_samplers(RandomWalk), 2))
    first, second = wrapped_samplers(env), wrapped_samplers(env)
    assert first is not None and second is not None
    assert first.layers == second.layers and first.vec_env is second.vec_env
    env.norm_reward = False
    third = wrapped_samplers(env)
    assert third is not None and third.layers != first.layers and third.layers[0] == first.layers[0]


@pytest.mark.parametrize(
    ("vec_wrapper", "error", "message"),
    [
        ("VecFrameStack", TypeError, "vec_wrapper must be a function that takes a VecEnv"),
        (lambda venv: None, SamplerError, "vec_wrapper must take a VecEnv and return it wrapped"),
        (lambda venv: DummyVecEnv([RandomWalk]), SamplerError, "turned 2 environments into 1"),
        (lambda venv: VecFrameStack(venv, n_stacks=3), SamplerError, "n_stacks"),
    ],
)
def test_a_wrong_wrapper_fails_in_the_constructor(vec_wrapper: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        SamplerVecEnv([RandomWalk] * 2, envs_per_sampler=2, backend="inline", vec_wrapper=vec_wrapper)


def test_a_wrapper_inside_can_render() -> None:
    class Photographer(Offset):
        def step_wait(self) -> Any:
            self.pictures = self.get_images()
            return super().step_wait()

    made: list[Photographer] = []

    def wrap(venv: VecEnv) -> VecEnv:
        made.append(Photographer(venv))
        return made[-1]

    class Painted(RandomWalk):
        metadata = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012
        render_mode = "rgb_array"

        def render(self) -> np.ndarray:
            return np.zeros((2, 2, 3), np.uint8)

    with SamplerVecEnv([Painted] * 2, 2, "inline", vec_wrapper=wrap) as env:
        env.reset()
        env.step(np.zeros((2, 1), np.float32))
        assert [picture.shape for picture in made[0].pictures] == [(2, 2, 3)] * 2
