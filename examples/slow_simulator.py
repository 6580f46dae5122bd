"""
A simulator that waits: for a physics server, a game, a robot. This is where samplers help most.

DummyVecEnv waits for its environments one after the other, samplers wait for theirs at the same time. So expect 8
samplers to collect about 8 times as many steps per second, on however many cores: waiting takes none. A little more is
possible, because the learner updates the policy meanwhile. Where steps take computing rather than waiting, cores are
the limit: `sb3-walle bench` measures that.
"""

import os
import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

from sb3_walle import AsyncPPO

TIMESTEPS = int(os.environ.get("TIMESTEPS", 2_048))
N_ENVS = 8
SETTINGS = {"n_steps": 16, "batch_size": 64, "device": "cpu"}


class SlowSimulator(gym.Env):
    """Takes 20 ms for a step, give or take 10."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        time.sleep(self.np_random.uniform(0.01, 0.03))
        self.steps += 1
        return self.observe(), -float(action[0] ** 2), False, self.steps == 100, {}

    def observe(self) -> np.ndarray:
        return self.np_random.normal(size=3).astype(np.float32)


def steps_per_second(model: PPO) -> float:
    started = time.perf_counter()
    model.learn(TIMESTEPS)
    return model.num_timesteps / (time.perf_counter() - started)


# In mode "free", a rollout is complete when enough steps have arrived, from any samplers: the slowest delays no other.
# In mode "pipelined" each gives its share, which makes training reproducible from a seed.
ours = steps_per_second(AsyncPPO("MlpPolicy", SlowSimulator, n_samplers=N_ENVS, mode="free", **SETTINGS))
print(f"AsyncPPO, {N_ENVS} samplers: {ours:.0f} steps per second")
theirs = steps_per_second(PPO("MlpPolicy", make_vec_env(SlowSimulator, N_ENVS), **SETTINGS))
print(f"PPO, DummyVecEnv({N_ENVS}): {theirs:.0f} steps per second")
print(f"{ours / theirs:.1f} times as many")
