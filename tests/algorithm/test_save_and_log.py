"""Saving, loading and logging, as with SB3."""

import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch as th
from conftest import child_processes
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from toy_envs import StampedEnv

from sb3_walle import AsyncPPO, SamplerVecEnv

SETTINGS: dict[str, Any] = {"n_steps": 64, "batch_size": 64, "n_epochs": 1, "seed": 0, "device": "cpu"}


def same_policy(first: PPO, second: PPO) -> bool:
    expected, found = first.policy.state_dict(), second.policy.state_dict()
    return expected.keys() == found.keys() and all(th.equal(found[name], tensor) for name, tensor in expected.items())


def test_what_asyncppo_saves_loads_in_ppo_and_trains_on(tmp_path: Path) -> None:
    model = AsyncPPO("MlpPolicy", "CartPole-v1", n_samplers=2, **SETTINGS).learn(256)
    model.save(tmp_path / "model")
    loaded = PPO.load(tmp_path / "model", env=make_vec_env("CartPole-v1", 3))
    assert type(loaded) is PPO and same_policy(model, loaded) and loaded.num_timesteps == 256
    loaded.learn(192)


def test_what_ppo_saves_loads_in_asyncppo_and_trains_on(tmp_path: Path) -> None:
    model = PPO("MlpPolicy", make_vec_env("CartPole-v1", 3), **SETTINGS).learn(192)
    model.save(tmp_path / "model")
    loaded = AsyncPPO.load(tmp_path / "model", env="CartPole-v1", n_samplers=2, backend="inline", mode="sync")
    assert same_policy(model, loaded) and loaded.n_envs == 2 and loaded.mode == "sync"
    loaded.learn(256, reset_num_timesteps=False)
    assert loaded.num_timesteps == 192 + 256


def test_a_loaded_model_without_environments_predicts(tmp_path: Path) -> None:
    model = AsyncPPO("MlpPolicy", "CartPole-v1", n_samplers=1, mode="free", max_policy_lag=3, **SETTINGS).learn(64)
    model.save(tmp_path / "model")
    loaded = AsyncPPO.load(tmp_path / "model")
    assert (loaded.mode, loaded.max_policy_lag, loaded.policy_version) == ("free", 3, 1)
    observation = model.observation_space.sample()
    assert loaded.predict(observation, deterministic=True)[0] == model.predict(observation, deterministic=True)[0]


def test_new_environments_can_be_set() -> None:
    model = AsyncPPO("MlpPolicy", StampedEnv, n_samplers=2, backend="inline", **SETTINGS).learn(128)
    model.set_env(SamplerVecEnv([lambda i=i: StampedEnv(10 + i) for i in range(2)], backend="inline"))
    model.learn(128)
    assert set(model.rollout_buffer.observations.reshape(-1, 3)[:, 0]) == {10, 11}


@pytest.mark.parametrize(
    "env", [StampedEnv, StampedEnv(3), "dummy"], ids=["a factory", "an environment", "a DummyVecEnv"]
)
def test_environments_that_are_set_are_put_into_samplers(env: Any) -> None:
    model = AsyncPPO("MlpPolicy", StampedEnv, n_samplers=2, backend="inline", **SETTINGS).learn(128)
    model.set_env(make_vec_env(StampedEnv, 2) if env == "dummy" else env)
    assert isinstance(model.env, SamplerVecEnv) and model.env.backend == "inline"
    model.learn(256)
    assert model.num_timesteps == 256


def test_samplers_of_environments_that_were_replaced_are_released() -> None:
    """The fixture in conftest.py looks for processes that are left, while the model is still there."""
    model = AsyncPPO("MlpPolicy", StampedEnv, n_samplers=2, **SETTINGS).learn(128)
    model.set_env(SamplerVecEnv([StampedEnv] * 2, backend="inline"))
    model.learn(128)
    gc.collect()
    deadline = time.monotonic() + 10
    while child_processes() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert child_processes() == set()


def test_another_mode_can_be_chosen_at_loading(tmp_path: Path) -> None:
    model = AsyncPPO("MlpPolicy", StampedEnv, n_samplers=1, mode="free", max_policy_lag=3, backend="inline", **SETTINGS)
    model.save(tmp_path / "model")
    assert AsyncPPO.load(tmp_path / "model", mode="sync").max_policy_lag is None
    with pytest.raises(ValueError, match="actor must be one of"):
        AsyncPPO.load(tmp_path / "model", actor="Torch")


def test_two_models_may_take_turns_on_the_same_samplers() -> None:
    env = SamplerVecEnv([StampedEnv] * 2, backend="inline")
    models = [AsyncPPO("MlpPolicy", env, **SETTINGS) for _ in range(2)]
    for _ in range(2):
        for model in models:
            model.learn(256)
            assert model.num_timesteps == 256


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "progress.json").read_text().splitlines()]


@pytest.mark.parametrize("mode", ["sync", "pipelined", "free"])
def test_sb3s_figures_and_our_own_are_logged(mode: str, tmp_path: Path) -> None:
    oracle = PPO("MlpPolicy", make_vec_env(StampedEnv, 2), **SETTINGS)
    model = AsyncPPO("MlpPolicy", StampedEnv, n_samplers=2, mode=mode, **SETTINGS)
    logs = {}
    for name, algorithm in (("sb3", oracle), ("ours", model)):
        algorithm.set_logger(configure(str(tmp_path / name), ["json"]))
        algorithm.learn(3 * 128)
        logs[name] = rows(tmp_path / name)
    expected = {key for row in logs["sb3"] for key in row}
    found = {key for row in logs["ours"] for key in row}
    own = {"time/collect_seconds", "time/wait_seconds", "time/learn_seconds"}
    own |= {"async/policy_lag_mean", "async/policy_lag_max", "async/sampler_steps_per_second", "async/queue_fill"}
    own |= {"async/restarts", "async/compiled_update", "async/bottleneck"}
    own |= {"async/importance_weight"} if mode != "sync" else set()
    assert found - expected == own | ({"async/stale_steps"} if mode == "free" else set())
    assert expected <= found
    timesteps = [[row["time/total_timesteps"] for row in log] for log in logs.values()]
    assert timesteps[0] == timesteps[1]
    last = logs["ours"][-1]
    assert last["async/policy_lag_mean"] == {"sync": 0, "pipelined": 1}.get(mode, last["async/policy_lag_mean"])
    assert 0.5 < last.get("async/importance_weight", 1) <= 1
    assert last["async/sampler_steps_per_second"] > 0 and last["time/collect_seconds"] > 0
    assert last["time/learn_seconds"] > 0 and 0 <= last["async/queue_fill"] <= 1
    assert last["rollout/ep_len_mean"] == 7


# Which of the heavy packages samplers have imported after training.
MODULES_IN_SAMPLERS = """
import gymnasium as gym
class Curious(gym.Env):
    observation_space, action_space = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2)
    def reset(self, seed=None, options=None):
        return self.observation_space.sample(), {}
    def step(self, action):
        return self.observation_space.sample(), 1.0, False, False, {}
    def modules(self):
        import sys
        # Spelled backwards, because a name in an environment's pickle is taken for a reason to import it.
        return [name[::-1] for name in ("hcrot", "3senilesab_elbats") if name[::-1] in sys.modules]
from sb3_walle import AsyncPPO
for actor in ("numpy", "torch"):
    model = AsyncPPO("MlpPolicy", Curious, n_samplers=1, n_steps=64, n_epochs=1, actor=actor).learn(64)
    print(*model.env.env_method("modules")[0])
"""


def test_a_sampler_with_the_numpy_actor_never_imports_torch() -> None:
    output = subprocess.run(
        [sys.executable, "-c", MODULES_IN_SAMPLERS], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    numpy_actor, torch_actor = (set(line.split()) for line in output.splitlines())
    assert numpy_actor == set()
    assert torch_actor == {"torch", "stable_baselines3"}
