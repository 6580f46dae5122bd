"""
Off-policy algorithms on samplers: AsyncSAC, AsyncTD3, AsyncDDPG and AsyncDQN come with the package, and any other one
of SB3 and sb3-contrib that collects in SB3's way takes a class of two lines. This one is TQC of sb3-contrib.

The number of gradient steps for each step of the environments is that of SB3, however fast samplers are.
"""

import os

from sb3_contrib import TQC
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_walle import AsyncOffPolicyMixin

TIMESTEPS = int(os.environ.get("TIMESTEPS", 12_000))


class AsyncTQC(AsyncOffPolicyMixin, TQC):
    """Truncated Quantile Critics (Kuznetsov et al., 2020) with experience from N samplers."""


# Four environments, and a gradient step for each of their steps.
with AsyncTQC(
    "MlpPolicy", "Pendulum-v1", n_samplers=4, gradient_steps=-1, policy_kwargs={"net_arch": [64, 64]}, verbose=1
) as model:
    model.learn(TIMESTEPS, log_interval=20)
    model.save("tqc_pendulum")
    mean_reward, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=8)
    print(f"Reward of an episode: {mean_reward:.0f}")
