"""Train HalfCheetah with ten samplers, then see what it has learned. No main guard is needed."""

import os

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from sb3_walle import AsyncPPO

TIMESTEPS = int(os.environ.get("TIMESTEPS", 500_000))

# As in SB3, n_steps is per environment: a rollout is 10 * 256 steps. Normalised, the task is learned much faster.
model = AsyncPPO("MlpPolicy", "HalfCheetah-v4", n_samplers=10, n_steps=256, normalize=True, verbose=1)
model.learn(TIMESTEPS, progress_bar=True)
model.save("half_cheetah")
model.get_vec_normalize_env().save("half_cheetah_statistics.pkl")

env = VecNormalize.load("half_cheetah_statistics.pkl", make_vec_env("HalfCheetah-v4"))
env.training = False
mean_reward, std_reward = evaluate_policy(model, env, n_eval_episodes=5)
print(f"Reward of an episode: {mean_reward:.0f} +- {std_reward:.0f}")
