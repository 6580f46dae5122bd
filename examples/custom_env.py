"""Train on an environment of your own. Its class may stand in the script: it travels to the samplers by value."""

import os
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_walle import AsyncPPO

TIMESTEPS = int(os.environ.get("TIMESTEPS", 100_000))


class Docking(gym.Env):
    """A spaceship sees its distance from the station and its speed, and chooses its thrust. It should come to rest."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.distance, self.speed, self.steps = self.np_random.uniform(-1, 1), 0.0, 0
        return self.observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.speed += 0.1 * float(action[0])
        self.distance += 0.1 * self.speed
        self.steps += 1
        lost, time_is_over = abs(self.distance) > 3, self.steps == 100
        reward = -200.0 if lost else -abs(self.distance) - 0.1 * abs(self.speed)
        return self.observe(), reward, lost, time_is_over, {}

    def observe(self) -> np.ndarray:
        return np.array([self.distance, self.speed], dtype=np.float32)


# Gymnasium's rules, checked before anything starts.
check_env(Docking())

# Pass the class, or any function that builds an environment, rather than an environment: each sampler builds its own.
model = AsyncPPO("MlpPolicy", Docking, n_samplers=4, n_steps=256, verbose=1)
model.learn(TIMESTEPS)
model.save("docking")

mean_reward, std_reward = evaluate_policy(model, Monitor(Docking()), n_eval_episodes=20)
print(f"Reward of an episode: {mean_reward:.1f} +- {std_reward:.1f}")
