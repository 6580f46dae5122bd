"""
Learn from images. What is made for Atari works the same way: channels come last, VecFrameStack shows several pictures
at once, and SB3 puts the channels first for CnnPolicy. All of that happens inside the samplers.
"""

import os
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecFrameStack

from sb3_walle import AsyncPPO, SamplerVecEnv

TIMESTEPS = int(os.environ.get("TIMESTEPS", 50_000))
CELLS, PIXELS = 12, 3


class Catch(gym.Env):
    """A ball falls, straight or slantwise, and a bat at the bottom of the picture should be where it arrives."""

    observation_space = spaces.Box(0, 255, (CELLS * PIXELS, CELLS * PIXELS, 1), np.uint8)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.ball, self.bat = np.array([0, self.np_random.integers(CELLS)]), CELLS // 2
        # One picture alone does not show where the ball is going.
        self.velocity = np.array([1, self.np_random.integers(-1, 2)])
        return self.draw(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.bat = int(np.clip(self.bat + action - 1, 1, CELLS - 2))
        self.ball = np.clip(self.ball + self.velocity, 0, CELLS - 1)
        down = bool(self.ball[0] == CELLS - 1)
        caught = abs(self.ball[1] - self.bat) <= 1
        return self.draw(), down * (1.0 if caught else -1.0), down, False, {}

    def draw(self) -> np.ndarray:
        cells = np.zeros((CELLS, CELLS), dtype=np.uint8)
        cells[-1, self.bat - 1 : self.bat + 2] = 120
        cells[tuple(self.ball)] = 255
        return cells.repeat(PIXELS, axis=0).repeat(PIXELS, axis=1)[..., None]


# Where a forward pass is expensive, a few environments share the one of their sampler: 2 samplers of 4 here.
env = VecFrameStack(SamplerVecEnv([Catch] * 8, envs_per_sampler=4), n_stack=4)
model = AsyncPPO("CnnPolicy", env, n_steps=64, n_epochs=4, verbose=1)
model.learn(TIMESTEPS)
model.save("catch")

mean_reward, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=100)
print(f"Balls caught: {50 * (1 + mean_reward):.0f} %")
