"""Train HalfCheetah with ten samplers, then see what it has learned. No main guard is needed."""

import os

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_walle import AsyncPPO

TIMESTEPS = int(os.environ.get("TIMESTEPS", 300_000))

# n_steps is per environment, as in SB3: a rollout is 10 * 512 steps.
model = AsyncPPO("MlpPolicy", "HalfCheetah-v4", n_samplers=10, n_steps=512, verbose=1)
model.learn(TIMESTEPS, progress_bar=True)
model.save("half_cheetah")

mean_reward, std_reward = evaluate_policy(model, make_vec_env("HalfCheetah-v4"), n_eval_episodes=5)
print(f"Reward of an episode: {mean_reward:.0f} +- {std_reward:.0f}")
