"""
Callbacks: SB3's own work as they are, and one of your own can talk to the environments while samplers collect.

Here it makes the task harder whenever it has become too easy.
"""

import os
from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.monitor import Monitor

from sb3_walle import AsyncPPO

TIMESTEPS = int(os.environ.get("TIMESTEPS", 60_000))
HARDEST = 5


class Golf(gym.Env):
    """
    The agent brings a ball to rest in a hole. The higher the level, the farther away the hole may be.

    :param level: from 1 to 5
    """

    observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, level: int = 1) -> None:
        self.level = level

    def set_level(self, level: int) -> None:
        """Holds from the next episode on."""
        self.level = level

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.level_of_episode, self.steps = self.level, 0
        self.way = self.np_random.uniform(-0.4, 0.4, 2) * self.level
        self.speed = np.zeros(2)
        return self.observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        before = np.linalg.norm(self.way)
        self.speed = 0.8 * self.speed + 0.05 * action
        self.way = self.way - self.speed
        self.steps += 1
        distance = np.linalg.norm(self.way)
        holed = bool(distance < 0.1 and np.linalg.norm(self.speed) < 0.1)
        info = {"level": self.level_of_episode, "is_success": holed}
        return self.observe(), float(before - distance + holed), holed, self.steps == 40, info

    def observe(self) -> np.ndarray:
        return np.concatenate([self.way, self.speed]).astype(np.float32)


class Curriculum(BaseCallback):
    """Begins the next level when 90 of the last 100 episodes of the present one were a success."""

    def __init__(self) -> None:
        super().__init__()
        self.level = 1
        self.successes: deque[bool] = deque(maxlen=100)

    def _on_step(self) -> bool:
        for info, done in zip(self.locals["infos"], self.locals["dones"], strict=True):
            # When the level changes, samplers may already have collected a rollout of the one before.
            if done and info["level"] == self.level:
                self.successes.append(info["is_success"])
        return True

    def _on_rollout_end(self) -> None:
        if self.level < HARDEST and self.successes.count(True) >= 90:
            self.level += 1
            self.successes.clear()
            # Takes effect, and returns, when samplers have finished what they were asked for before.
            self.training_env.env_method("set_level", self.level)
            print(f"Level {self.level} after {self.num_timesteps} steps")
        self.logger.record("curriculum/level", self.level)


# As in SB3, eval_freq counts calls of the callback, each of which stands for one step of all 8 environments.
evaluation = EvalCallback(
    Monitor(Golf(HARDEST)), eval_freq=500, n_eval_episodes=20, best_model_save_path="golf", log_path="golf"
)

# Infos of every step are sent to callbacks that may look at them. Naming the keys that they need makes that cheaper.
model = AsyncPPO("MlpPolicy", Golf, n_samplers=8, n_steps=256, info_keys=("level", "is_success"), verbose=1)
model.learn(TIMESTEPS, callback=[Curriculum(), evaluation])
print(f"Levels of the environments: {model.get_env().get_attr('level')}")
print(f"Best mean reward at level {HARDEST}: {evaluation.best_mean_reward:.2f}")
