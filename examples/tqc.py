"""
An off-policy algorithm of sb3-contrib on samplers (pip install "sb3_walle[contrib]").

The number of gradient steps for each step of the environments is that of SB3, however fast samplers are.
"""

import os

from stable_baselines3.common.evaluation import evaluate_policy

from sb3_walle import AsyncTQC

TIMESTEPS = int(os.environ.get("TIMESTEPS", 12_000))

# Four environments, and a gradient step for each of their steps.
with AsyncTQC(
    "MlpPolicy", "Pendulum-v1", n_samplers=4, gradient_steps=-1, policy_kwargs={"net_arch": [64, 64]}, verbose=1
) as model:
    model.learn(TIMESTEPS, log_interval=20)
    model.save("tqc_pendulum")
    mean_reward, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=8)
    print(f"Reward of an episode: {mean_reward:.0f}")
