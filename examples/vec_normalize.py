"""
Normalise observations and rewards while training, and keep the statistics for what comes later.

VecNormalize goes around the samplers as around any other VecEnv, and they apply it. AsyncPPO(..., normalize=True) does
the same where there is no VecEnv to wrap; then model.get_vec_normalize_env() is the one to save.
"""

import os

import gymnasium as gym
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from sb3_walle import AsyncPPO, SamplerVecEnv

TIMESTEPS = int(os.environ.get("TIMESTEPS", 100_000))
GAMMA = 0.9

# Rewards are divided by the standard deviation of the discounted return: it should be discounted as the model does.
env = VecNormalize(SamplerVecEnv([lambda: gym.make("Pendulum-v1")] * 8), gamma=GAMMA)
model = AsyncPPO("MlpPolicy", env, n_steps=128, gamma=GAMMA, learning_rate=1e-3, verbose=1)
model.learn(TIMESTEPS)

# The policy is worth nothing without the statistics of the observations that it has learned from.
model.save("pendulum")
env.save("pendulum_statistics.pkl")
env.close()

# Later. Neither file needs sb3_walle: this part is nothing but SB3.
env = VecNormalize.load("pendulum_statistics.pkl", make_vec_env("Pendulum-v1"))
env.training = False  # Leave the statistics as they are,
env.norm_reward = False  # and show rewards as the task gives them.
model = PPO.load("pendulum", device="cpu")
mean_reward, std_reward = evaluate_policy(model, env, n_eval_episodes=10)
print(f"Reward of an episode: {mean_reward:.0f} +- {std_reward:.0f}")
