"""With mode="sync", one sampler and the torch actor, off-policy algorithms are SB3's to the last bit."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
from off_policy_pairs import Reach, assert_same_buffers, tiny
from oracle import assert_same_policies
from sb3_contrib import QRDQN, TQC, CrossQ
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

import sb3_walle


def normal() -> NormalActionNoise:
    return NormalActionNoise(np.zeros(1), 0.2 * np.ones(1))


def ornstein_uhlenbeck() -> OrnsteinUhlenbeckActionNoise:
    return OrnsteinUhlenbeckActionNoise(np.zeros(1), 0.2 * np.ones(1))


def train_both(
    name: str,
    env: Any,
    n_envs: int = 1,
    policy: str = "MlpPolicy",
    backend: str = "inline",
    noise: Callable[[], Any] | None = None,
    **settings: Any,
) -> tuple[Any, Any]:
    """Train twice with each, so that the second ``learn()`` begins in the middle of an episode."""

    def train(algorithm: Any) -> Any:
        return algorithm.learn(50).learn(60, reset_num_timesteps=False)

    def arguments() -> dict[str, Any]:
        return {**tiny(), **settings, **({} if noise is None else {"action_noise": noise()})}

    # Each is trained where it is built: they share the global random streams, which are seeded there.
    oracle = train(original(name)(policy, make_vec_env(env, n_envs), **arguments()))
    lockstep = {"n_samplers": 1, "envs_per_sampler": n_envs, "mode": "sync", "actor": "torch", "backend": backend}
    model = getattr(sb3_walle, f"Async{name}")(policy, env, **lockstep, **arguments())
    with model:
        train(model)
        assert model.num_timesteps == oracle.num_timesteps
        assert len(model.ep_info_buffer) == len(oracle.ep_info_buffer) > 0
        assert_same_policies(oracle, model)
        assert_same_buffers(oracle, model)
        # Environments draw the beginnings of episodes from the streams of training.
        assert evaluated(oracle) == evaluated(model)
    return oracle, model


def original(name: str) -> Any:
    """An algorithm of SB3 or sb3-contrib."""
    of_contrib = {"TQC": TQC, "QRDQN": QRDQN, "CrossQ": CrossQ}
    return of_contrib[name] if name in of_contrib else getattr(stable_baselines3, name)


def evaluated(model: Any) -> Any:
    """Returns and lengths of some episodes in the training environments."""
    return evaluate_policy(model, model.get_env(), n_eval_episodes=3, return_episode_rewards=True)


CASES: dict[str, dict[str, Any]] = {
    "SAC": {"name": "SAC"},
    "gSDE": {"name": "SAC", "use_sde": True},
    "gSDE, drawn often, from the start": {
        "name": "SAC",
        "use_sde": True,
        "use_sde_at_warmup": True,
        "sde_sample_freq": 3,
        "train_freq": 7,
        "gradient_steps": -1,
    },
    "TD3 with normal noise": {"name": "TD3", "noise": normal, "gradient_steps": 2},
    "DDPG with the noise of Ornstein and Uhlenbeck": {"name": "DDPG", "noise": ornstein_uhlenbeck},
    "n-step returns": {"name": "SAC", "n_steps": 3},
    "TQC": {"name": "TQC"},
    "TQC with gSDE": {"name": "TQC", "use_sde": True, "sde_sample_freq": 3},
    # Its actors normalise with statistics that change with each gradient step.
    "CrossQ": {"name": "CrossQ", "gradient_steps": 2},
    "less memory": {
        "name": "TD3",
        "optimize_memory_usage": True,
        "replay_buffer_kwargs": {"handle_timeout_termination": False},
    },
}


@pytest.mark.parametrize(("name", "n_envs"), [*((name, 2) for name in CASES), ("SAC", 1), ("less memory", 1)])
def test_training_with_continuous_actions_equals_sb3(name: str, n_envs: int) -> None:
    train_both(env=short_pendulum, n_envs=n_envs, **CASES[name])


def short_pendulum() -> Any:
    """Pendulum with short episodes."""
    return gym.make("Pendulum-v1", max_episode_steps=30)


@pytest.mark.parametrize(("name", "n_envs", "learning_starts"), [("DQN", 1, 0), ("DQN", 3, 20), ("QRDQN", 3, 20)])
def test_training_with_discrete_actions_equals_sb3(name: str, n_envs: int, learning_starts: int) -> None:
    further = {"exploration_fraction": 0.5, "target_update_interval": 50, "learning_starts": learning_starts}
    train_both(name, "CartPole-v1", n_envs, **further)


def test_training_in_another_process_equals_sb3() -> None:
    train_both("SAC", short_pendulum, n_envs=2, backend="process")


def test_training_by_episodes_equals_sb3() -> None:
    train_both("TD3", short_pendulum, train_freq=(1, "episode"), gradient_steps=-1, noise=normal)


@pytest.mark.parametrize("n_envs", [1, 2])
def test_training_with_hindsight_equals_sb3(n_envs: int) -> None:
    train_both("SAC", Reach, n_envs, policy="MultiInputPolicy", replay_buffer_class=HerReplayBuffer)
