"""AsyncRecurrentPPO: sb3-contrib's RecurrentPPO, with samplers that keep the states of LSTMs."""

import copy
import time
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from contrib_pairs import assert_same_training
from gymnasium import spaces
from late_vector_env import NextStep
from oracle import TINY, assert_same_policies
from sb3_contrib import RecurrentPPO
from space_env import SpaceEnv
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from task_envs import TellsOfTorch
from toy_envs import RandomWalk

from sb3_walle import AsyncEvalCallback, AsyncRecurrentPPO, SamplerVecEnv
from sb3_walle.collection import queues
from sb3_walle.on_policy.recurrent_rollout_buffer import states_of_rows
from sb3_walle.samplers.actors.lstm_states import LSTM_STATES
from sb3_walle.samplers.refusals import VectorizedEnvError

VECTOR, IMAGE = spaces.Box(-1, 1, (3,), np.float32), spaces.Box(0, 255, (1, 36, 36), np.uint8)
PARTS = spaces.Dict({"a": VECTOR, "b": spaces.Discrete(3)})
DISCRETE = partial(SpaceEnv, VECTOR, spaces.Discrete(3))
SMALL: dict[str, Any] = {"lstm_hidden_size": 8, "net_arch": [8]}
SAME = partial(assert_same_training, RecurrentPPO, AsyncRecurrentPPO, further_arrays=LSTM_STATES)


def kwargs(**changes: Any) -> dict[str, Any]:
    return {"policy_kwargs": {**SMALL, **changes}}


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollout is two chunks, between which states are kept."""
    monkeypatch.setattr(queues, "MAX_CHUNK_STEPS", 7)


@pytest.mark.parametrize(
    "changes",
    [
        {"n_lstm_layers": 2},
        {"shared_lstm": True, "enable_critic_lstm": False},
        {"enable_critic_lstm": False},
        {"share_features_extractor": False},
    ],
    ids=["two layers", "shared LSTM", "no LSTM of the critic", "separate features"],
)
def test_training_equals_that_of_sb3_contrib(changes: dict[str, Any]) -> None:
    SAME("MlpLstmPolicy", RandomWalk, **kwargs(**changes))


@pytest.mark.parametrize(("policy", "space"), [("CnnLstmPolicy", IMAGE), ("MultiInputLstmPolicy", PARTS)])
def test_training_equals_with_images_and_dictionaries(policy: str, space: spaces.Space) -> None:
    SAME(policy, partial(SpaceEnv, space, spaces.MultiDiscrete([2, 3])), **kwargs())


def test_training_equals_in_another_process() -> None:
    SAME("MlpLstmPolicy", DISCRETE, backend="process", **kwargs())


def test_training_equals_with_state_dependent_exploration() -> None:
    SAME("MlpLstmPolicy", RandomWalk, use_sde=True, sde_sample_freq=4, **kwargs())


def with_statistics(venv: VecEnv) -> VecNormalize:
    """Not the truth, but statistics with which normalising makes a difference."""
    vec_normalize = VecNormalize(venv, training=False)
    vec_normalize.obs_rms.mean[:], vec_normalize.obs_rms.var[:], vec_normalize.ret_rms.var = 0.3, 0.2, np.array(5.0)
    return vec_normalize


def test_training_equals_with_normalised_observations_and_rewards() -> None:
    SAME("MlpLstmPolicy", RandomWalk, around=with_statistics, **kwargs())


def test_states_are_kept_from_one_learn_call_to_the_next() -> None:
    def learn(model: Any, callback: BaseCallback) -> None:
        for _ in range(3):
            model.learn(model.n_steps * 2, callback, reset_num_timesteps=False)

    SAME("MlpLstmPolicy", RandomWalk, learn=learn, **kwargs())


class Watched(AsyncRecurrentPPO):
    """Looks at the rollout buffer when it was prepared for an update."""

    def learn(self, *args: Any, **kwargs: Any) -> Any:
        self.weights: list[np.ndarray] = []
        self.changes: list[float] = []
        self.n_other_episodes = 0
        return super().learn(*args, **kwargs)

    def _correct_for_policy_lag(self) -> None:
        behaviour, returns = self.rollout_buffer.log_probs.copy(), self.rollout_buffer.returns.copy()
        super()._correct_for_policy_lag()
        self.changes.append(float(np.abs(self.rollout_buffer.returns - returns).max()))
        self.weights.append(np.exp(self.rollout_buffer.log_probs - behaviour))
        self.n_other_episodes += int(self.rollout_buffer.episode_starts.sum() - self.rollout_buffer.state_resets.sum())
        self._check_the_first_ratio()

    def _check_the_first_ratio(self) -> None:
        """In the first minibatch of an update, whatever its sequences, the ratio is one and values are the critic's."""
        for samples in copy.deepcopy(self.rollout_buffer).get(self.batch_size):
            actions = samples.actions.long().flatten()
            with th.no_grad():
                values, log_probs, _ = self.policy.evaluate_actions(
                    samples.observations, actions, samples.lstm_states, samples.episode_starts
                )
            mask = samples.mask > 1e-8
            np.testing.assert_allclose(log_probs[mask], samples.old_log_prob[mask], atol=1e-5)
            np.testing.assert_allclose(values.flatten()[mask], samples.old_values[mask], atol=1e-5)


class LongEpisodes(SpaceEnv):
    """
    Episodes that are longer than a rollout.

    :param delay: how long a step takes, in seconds
    """

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__(VECTOR, spaces.Discrete(3))
        self.delay = delay

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(self.delay)
        observation, reward, *_, info = super().step(action)
        return observation, reward, False, self.steps >= 31, info


def watched(mode: str, env: Any = LongEpisodes, **arguments: Any) -> Watched:
    settings = {**TINY, "mode": mode, **kwargs(), **arguments}
    with Watched("MlpLstmPolicy", env, n_samplers=3, backend="inline", **settings) as model:
        return model.learn(6 * 12 * 3)


def test_the_ratio_is_to_the_policy_before_the_update() -> None:
    model = watched("pipelined", learning_rate=0.03)
    assert len(model.weights) == 5
    assert all(weights.std() > 1e-3 for weights in model.weights)
    assert min(model.changes) > 1e-3


@pytest.mark.parametrize(("actor", "normalize"), [("torch", False), ("numpy", False), ("torch", True), ("numpy", True)])
def test_actions_of_the_present_policy_keep_their_weight(actor: str, normalize: bool) -> None:
    """
    If updates change nothing, a policy lag does not matter, for what values are estimated either; nor do statistics
    that move from one rollout to the next.
    """
    model = watched("pipelined", learning_rate=0.0, actor=actor, normalize=normalize)
    for weights in model.weights:
        np.testing.assert_allclose(weights, 1, atol=1e-4)
    assert max(model.changes) < 1e-3


def test_they_keep_it_where_columns_change_the_environment() -> None:
    """In mode "free", fast samplers fill the columns of a slow one, from the middle of episodes on."""
    envs = SamplerVecEnv([LongEpisodes, LongEpisodes, partial(LongEpisodes, 0.3)])
    with Watched("MlpLstmPolicy", envs, **{**TINY, "mode": "free", "learning_rate": 0.0, **kwargs()}) as model:
        model.learn(15 * 12 * 3)
    assert model.n_other_episodes > 0
    for weights in model.weights:
        np.testing.assert_allclose(weights, 1, atol=1e-4)
    assert max(model.changes) < 1e-3


def test_whole_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"AsyncRecurrentPPO cannot collect whole episodes. Use rollout='steps'"):
        AsyncRecurrentPPO("MlpLstmPolicy", RandomWalk, n_samplers=2, rollout="episodes", target_steps=60)


@pytest.mark.parametrize(("actor", "has_torch"), [("auto", 0), ("torch", 1)])
def test_samplers_import_torch_only_to_run_it(actor: str, has_torch: int) -> None:
    with AsyncRecurrentPPO("MlpLstmPolicy", TellsOfTorch, n_samplers=1, actor=actor, **TINY, **kwargs()) as model:
        model.learn(12)
        assert {info["r"] for info in model.ep_info_buffer or ()} == {has_torch}


def inline() -> SamplerVecEnv:
    return SamplerVecEnv([DISCRETE], backend="inline")


@pytest.mark.parametrize("deterministic", [True, False])
def test_evaluation_keeps_states(deterministic: bool) -> None:
    callbacks = [
        EvalCallback(make_vec_env(DISCRETE, 2), eval_freq=6, verbose=0, deterministic=deterministic),
        AsyncEvalCallback(inline(), eval_freq=6, verbose=0, deterministic=deterministic),
    ]
    settings = {**TINY, "n_samplers": 2, "backend": "inline", **kwargs()}
    with AsyncRecurrentPPO("MlpLstmPolicy", DISCRETE, **settings) as model:
        model.learn(48, callback=callbacks)
    assert all(np.isfinite(callback.last_mean_reward) for callback in callbacks)


def test_models_load_in_sb3_contrib_and_the_other_way_round(tmp_path: Path) -> None:
    settings = {**TINY, "n_samplers": 2, "backend": "inline", **kwargs()}
    with AsyncRecurrentPPO("MlpLstmPolicy", DISCRETE, **settings) as model:
        model.learn(24).save(tmp_path / "ours")
        theirs = RecurrentPPO.load(tmp_path / "ours", make_vec_env(DISCRETE, 2))
        assert_same_policies(model, theirs)
    theirs.learn(24).save(tmp_path / "theirs")
    with AsyncRecurrentPPO.load(tmp_path / "theirs", DISCRETE, n_samplers=3, backend="inline") as back:
        assert_same_policies(theirs, back)
        assert back.n_envs == 3 and back.learn(36).num_timesteps == 36


def test_it_trains_without_samplers_as_sb3_contrib() -> None:
    class Foreign(type(make_vec_env(DISCRETE, 1))):  # type: ignore[misc]
        """A VecEnv that stays where it is."""

    def trained(algorithm: Any) -> Any:
        np.random.seed(0)
        env = Foreign([DISCRETE] * 2)
        env.seed(1)
        return algorithm("MlpLstmPolicy", env, **TINY, **kwargs()).learn(48)

    assert_same_policies(trained(RecurrentPPO), trained(AsyncRecurrentPPO))


@pytest.mark.parametrize(
    ("policy", "space", "changes", "reason"),
    [
        ("CnnLstmPolicy", IMAGE, {}, "its features extractor is a NatureCNN"),
        ("MlpLstmPolicy", VECTOR, {"enable_critic_lstm": False}, "its critic has no LSTM of its own"),
    ],
)
def test_what_numpy_cannot_run_is_refused(
    policy: str, space: spaces.Space, changes: dict[str, Any], reason: str
) -> None:
    env = partial(SpaceEnv, space, spaces.Discrete(2))
    settings = {"n_samplers": 1, "backend": "inline", "actor": "numpy", **kwargs(**changes)}
    with pytest.raises(ValueError, match=f"actor='numpy' cannot run this policy: {reason}"):
        AsyncRecurrentPPO(policy, env, **settings)


class Compared(AsyncRecurrentPPO):
    """What NumPy has recorded, and what the policy computes, with the values of the rewards' time limits."""

    def train(self) -> None:
        """Goes through the rollout as sb3-contrib collects it."""
        buffer = self.rollout_buffer
        for step in range(buffer.buffer_size):
            states = states_of_rows(buffer, range(step, step + 1), self.device)
            tensors = obs_as_tensor({key: part[step] for key, part in buffer.observations.items()}, self.device)
            starts = th.as_tensor(buffer.state_resets[step])
            with th.no_grad():
                actions = th.as_tensor(buffer.actions[step], dtype=th.float32)
                values, log_probs, _ = self.policy.evaluate_actions(tensors, actions, states, starts)
                *_, after = self.policy.forward(tensors, states, starts, deterministic=True)
            np.testing.assert_allclose(buffer.values[step], values.numpy().flatten(), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(buffer.log_probs[step], log_probs.numpy(), rtol=1e-4, atol=1e-5)
            if step + 1 < buffer.buffer_size:
                found = states_of_rows(buffer, range(step + 1, step + 2), self.device)
                for expected, state in zip((*after.pi, *after.vf), (*found.pi, *found.vf), strict=True):
                    np.testing.assert_allclose(state, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("action_space", [spaces.Box(-1, 1, (2,), np.float32), spaces.MultiDiscrete([2, 3])])
def test_numpy_records_what_the_policy_computes(action_space: spaces.Space) -> None:
    settings = {**TINY, "n_samplers": 2, "envs_per_sampler": 2, "backend": "inline", "mode": "sync"}
    env = partial(SpaceEnv, PARTS, action_space)
    with Compared("MultiInputLstmPolicy", env, actor="numpy", **settings, **kwargs(n_lstm_layers=2)) as model:
        model.learn(3 * 12 * 4)
        assert 0 < model.rollout_buffer.state_resets.mean() < 1


def bootstrapped(actor: str) -> np.ndarray:
    """Advantages of a rollout with time limits, in which each action leads to the same."""
    settings = {**TINY, "n_samplers": 1, "envs_per_sampler": 2, "backend": "inline", "mode": "sync", "n_steps": 20}
    with AsyncRecurrentPPO("MlpLstmPolicy", Indifferent, actor=actor, **settings, **kwargs()) as model:
        model.train = lambda: None  # type: ignore[method-assign]
        model.learn(3 * 40)
        return model.rollout_buffer.advantages.copy()


class Indifferent(RandomWalk):
    """Does not look at actions."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return super().step(0 * action)


def test_numpy_bootstraps_as_torch() -> None:
    np.testing.assert_allclose(bootstrapped("numpy"), bootstrapped("torch"), rtol=1e-4, atol=1e-5)


def test_vectorised_environments_that_reset_late_are_refused() -> None:
    def late(n_envs: int) -> gym.vector.VectorEnv:
        return NextStep([DISCRETE() for _ in range(n_envs)])

    settings = {**TINY, "n_samplers": 1, "envs_per_sampler": 2, "backend": "inline", **kwargs()}
    with (
        AsyncRecurrentPPO("MlpLstmPolicy", late, **settings) as model,
        pytest.raises(VectorizedEnvError, match=r"AutoresetMode\.SAME_STEP"),
    ):
        model.learn(24)
