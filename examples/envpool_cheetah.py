"""
EnvPool inside samplers: its C++ steps the environments of a sampler in one call, several times faster than Python does.
Samplers, the learner and their overlap stay the same. Needs pip install envpool.

Each sampler has a core, so its pool needs one thread. The pools get their seeds from the model.
"""

import os
from typing import Any

import envpool
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_walle import AsyncPPO

TIMESTEPS = int(os.environ.get("TIMESTEPS", 500_000))


def make_cheetahs(n: int) -> Any:
    return envpool.make("HalfCheetah-v4", env_type="gymnasium", num_envs=n, num_threads=1)


with AsyncPPO(
    "MlpPolicy", make_cheetahs, n_samplers=2, envs_per_sampler=8, n_steps=256, normalize=True, seed=0, verbose=1
) as model:
    model.learn(TIMESTEPS)
    model.save("cheetahs")
    vec_normalize = model.get_vec_normalize_env()
    vec_normalize.save("cheetahs_statistics.pkl")
    vec_normalize.training = vec_normalize.norm_reward = False
    mean_reward, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=16)
    print(f"Reward of an episode: {mean_reward:.0f}")
