"""
Train with the RL Baselines3 Zoo and its tuned hyperparameters, but with samplers. Needs `pip install rl_zoo3`.

Takes the Zoo's own command line:

    python zoo.py --env HalfCheetah-v4 --seed 1 --tensorboard-log tensorboard -params n_envs:8

Each of the Zoo's environments becomes a sampler, also with --vec-env subproc. The arguments of AsyncPPO are
hyperparameters like all others: with -params n_envs:8 n_samplers:2 "mode:'free'" there are 2 samplers of 4
environments.

What this leaves in logs/ is what the Zoo always leaves. SB3's own PPO loads the models, and

    python -m rl_zoo3.enjoy --env HalfCheetah-v4 --folder logs

shows what was learned.
"""

import os
import sys

from rl_zoo3 import ALGOS, exp_manager
from rl_zoo3.train import train
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_walle import AsyncPPO

# The Zoo finds an algorithm's class, and its file of hyperparameters, by this name.
ALGOS["ppo"] = AsyncPPO
# For --vec-env subproc: samplers take environments out of a DummyVecEnv, which a SubprocVecEnv does not let go.
exp_manager.SubprocVecEnv = DummyVecEnv

if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.argv += ["--env", "HalfCheetah-v4", "--n-timesteps", os.environ.get("TIMESTEPS", "1000000")]
    train()
