"""
Evaluate beside training: a sampler of its own plays the episodes, and training goes on meanwhile.

The same training twice, first with SB3's EvalCallback, which stops it for each evaluation, then with AsyncEvalCallback.
Both find the same rewards.
"""

import os
import time

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_walle import AsyncEvalCallback, AsyncPPO

TIMESTEPS = int(os.environ.get("TIMESTEPS", 100_000))

seconds = {}
for kind in (EvalCallback, AsyncEvalCallback):
    name = kind.__name__
    # Both evaluate in the same episodes.
    eval_env = make_vec_env("Pendulum-v1", seed=1)
    evaluation = kind(eval_env, n_eval_episodes=10, eval_freq=512, log_path=name, best_model_save_path=name, verbose=0)
    with AsyncPPO("MlpPolicy", "Pendulum-v1", n_samplers=4, n_steps=256, gamma=0.9, seed=0, verbose=1) as model:
        started = time.perf_counter()
        model.learn(TIMESTEPS, callback=evaluation)
        seconds[name] = time.perf_counter() - started
    evaluation.eval_env.close()

for name, needed in seconds.items():
    found = np.load(f"{name}/evaluations.npz")
    rewards = ", ".join(f"{reward:.1f}" for reward in found["results"].mean(axis=1)[-5:])
    print(f"{name}: {needed:.1f} s. Mean rewards of the last evaluations: {rewards}")

# The best model is one of SB3's. With a VecNormalize, its statistics would lie beside it.
best = PPO.load("AsyncEvalCallback/best_model", device="cpu")
print(f"Best model: after {best.num_timesteps} steps")
