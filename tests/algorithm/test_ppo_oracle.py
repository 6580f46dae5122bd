"""With mode="sync", one sampler and the torch actor, AsyncPPO is SB3's PPO to the last bit."""

from typing import Any

import pytest
import torch as th
from oracle import assert_same_weights, episodes, lockstep_twin
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.env_util import make_vec_env
from toy_envs import DictEnv, RandomWalk

from sb3_walle import AsyncPPO

# Longer than a chunk, and not a multiple of its length.
N_STEPS = 200
SETTINGS: dict[str, Any] = {"n_steps": N_STEPS, "batch_size": 100, "n_epochs": 2, "seed": 3, "device": "cpu"}


def train_both(env: Any, n_envs: int, policy: str = "MlpPolicy", backend: str = "inline", **settings: Any) -> None:
    total = 2 * N_STEPS * n_envs
    settings = {**SETTINGS, **settings}
    oracle = PPO(policy, make_vec_env(env, n_envs), **settings).learn(total)
    model = lockstep_twin(policy, env, n_envs, backend=backend, **settings).learn(total)
    assert model.num_timesteps == oracle.num_timesteps
    assert episodes(model) == episodes(oracle) != []
    assert_same_weights(oracle, model)
    model.get_env().close()


@pytest.mark.parametrize(
    ("env", "n_envs"),
    [
        pytest.param("CartPole-v1", 3, id="discrete"),
        pytest.param("Pendulum-v1", 1, id="time-limited"),
        pytest.param(RandomWalk, 3, id="both ends"),
    ],
)
def test_training_equals_sb3(env: Any, n_envs: int) -> None:
    train_both(env, n_envs)


def test_training_in_another_process_equals_sb3() -> None:
    train_both("Pendulum-v1", n_envs=2, backend="process")


def test_training_on_dictionaries_equals_sb3() -> None:
    train_both(DictEnv, n_envs=2, policy="MultiInputPolicy")


def test_training_with_state_dependent_exploration_equals_sb3() -> None:
    train_both("Pendulum-v1", n_envs=2, use_sde=True, sde_sample_freq=16)


class DoublingBuffer(RolloutBuffer):
    """A buffer class of a user's own, whose ``add()`` changes what it is given."""

    def add(self, *args: Any, **kwargs: Any) -> None:
        observation, action, reward, *rest = args
        super().add(observation, action, 2 * reward, *rest, **kwargs)


def test_training_with_a_buffer_of_ones_own_equals_sb3() -> None:
    train_both("Pendulum-v1", n_envs=2, rollout_buffer_class=DoublingBuffer)


def test_consecutive_learn_calls_continue_where_sb3_does() -> None:
    def learn_twice(algorithm: PPO) -> PPO:
        return algorithm.learn(N_STEPS).learn(N_STEPS, reset_num_timesteps=False)

    oracle = learn_twice(PPO("MlpPolicy", make_vec_env("Pendulum-v1", 1), **SETTINGS))
    model = learn_twice(lockstep_twin("MlpPolicy", "Pendulum-v1", 1, **SETTINGS))
    assert model.num_timesteps == oracle.num_timesteps == 2 * N_STEPS
    assert_same_weights(oracle, model)


def test_reseeding_makes_samplers_begin_their_random_streams_anew() -> None:
    settings = {**SETTINGS, "seed": None}
    model = AsyncPPO("MlpPolicy", "Pendulum-v1", n_samplers=2, mode="sync", backend="inline", **settings)
    initial = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
    initial_optimizer = model.policy.optimizer.state_dict()
    weights = []
    for _ in range(2):
        model.policy.load_state_dict(initial)
        model.policy.optimizer.load_state_dict(initial_optimizer)
        model.set_random_seed(7)
        model.learn(2 * N_STEPS)
        weights.append({name: tensor.clone() for name, tensor in model.policy.state_dict().items()})
    assert all(th.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_a_weight_changed_between_learn_calls_reaches_the_samplers() -> None:
    """A policy that was made to prefer one action is what samplers run next."""
    model = AsyncPPO("MlpPolicy", "CartPole-v1", n_samplers=2, mode="sync", backend="inline", **SETTINGS)
    model.learn(2 * N_STEPS)
    with th.no_grad():
        model.policy.action_net.bias.copy_(th.tensor([-100.0, 100.0]))
    model.learn(2 * N_STEPS)
    assert (model.rollout_buffer.actions == 1).all()


def test_training_continues_in_other_environments_where_sb3_does() -> None:
    def exchange_environments(algorithm: PPO, env: Any) -> PPO:
        algorithm.learn(N_STEPS).set_env(env)
        algorithm.get_env().seed(5)
        return algorithm.learn(N_STEPS)

    # make_vec_env() draws seeds from NumPy's stream, which also shuffles minibatches: before the algorithm seeds it.
    first, second = make_vec_env("Pendulum-v1", 2), make_vec_env("Pendulum-v1", 2)
    oracle = exchange_environments(PPO("MlpPolicy", first, **SETTINGS), second)
    model = exchange_environments(lockstep_twin("MlpPolicy", "Pendulum-v1", 2, **SETTINGS), "Pendulum-v1")
    assert_same_weights(oracle, model)
