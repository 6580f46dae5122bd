"""
Vectorised environments inside samplers: Gymnasium's CartPole is also written as one object that steps many poles in one
call, with NumPy. Each sampler builds one of envs_per_sampler poles.
"""

import os

import gymnasium as gym
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_walle import AsyncPPO

TIMESTEPS = int(os.environ.get("TIMESTEPS", 200_000))


def make_poles(n: int) -> gym.vector.VectorEnv:
    return gym.make_vec("CartPole-v1", num_envs=n, vectorization_mode="vector_entry_point")


with AsyncPPO("MlpPolicy", make_poles, n_samplers=2, envs_per_sampler=16, n_steps=64, verbose=1) as model:
    model.learn(TIMESTEPS)
    model.save("poles")
    mean_reward, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=32)
    print(f"Reward of an episode: {mean_reward:.0f}")
