"""Tasks are learned although at least one chunk in a hundred kills its sampler."""

import gymnasium as gym
import pytest
from danger import fragile_cart_pole, fragile_signs
from fault_envs import SignEnv
from stable_baselines3.common.callbacks import EvalCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_walle import AsyncDQN, AsyncPPO, SamplerVecEnv

# What the task itself calls solved. An episode has 500 steps at most.
SOLVED = 475


@pytest.mark.filterwarnings("ignore::sb3_walle.SamplerWarning")
def test_cart_pole_is_solved_in_mode_free() -> None:
    env = SamplerVecEnv([fragile_cart_pole] * 8, max_restarts=1000)
    evaluation = EvalCallback(
        Monitor(gym.make("CartPole-v1")),
        callback_on_new_best=StopTrainingOnRewardThreshold(SOLVED),
        eval_freq=1024,
        verbose=0,
    )
    settings = {"n_steps": 128, "batch_size": 256, "learning_rate": 1e-3, "gamma": 0.98, "gae_lambda": 0.9}
    with AsyncPPO("MlpPolicy", env, mode="free", seed=0, device="cpu", **settings) as model:
        model.learn(300_000, callback=evaluation)
        n_restarts = env.client.n_restarts
    print(f"a return of {evaluation.last_mean_reward} after {model.num_timesteps} steps and {n_restarts} kills")
    assert evaluation.last_mean_reward >= SOLVED
    assert n_restarts > 0


@pytest.mark.filterwarnings("ignore::sb3_walle.SamplerWarning")
def test_an_off_policy_algorithm_learns_signs_in_mode_pipelined() -> None:
    env = SamplerVecEnv([fragile_signs] * 4, max_restarts=1000)
    settings = {"policy_kwargs": {"net_arch": [32]}, "learning_rate": 3e-3, "gamma": 0.0, "gradient_steps": -1}
    with AsyncDQN("MlpPolicy", env, mode="pipelined", learning_starts=100, seed=0, device="cpu", **settings) as model:
        model.learn(1_500)
        n_restarts = env.client.n_restarts
    mean_return = evaluate_policy(model, Monitor(SignEnv()), n_eval_episodes=20)[0]
    print(f"a return of {mean_return} after {model.num_timesteps} steps and {n_restarts} kills")
    # Half of it is what chance gives.
    assert mean_return >= 0.9 * 11
    assert n_restarts > 0
