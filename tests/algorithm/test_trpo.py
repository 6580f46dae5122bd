"""AsyncTRPO is sb3-contrib's TRPO."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from oracle import assert_same_policies, assert_same_weights
from sb3_contrib import TRPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from test_a2c import assert_trains_like
from toy_envs import DictEnv

from sb3_walle import AsyncTRPO, NonFiniteError
from sb3_walle.on_policy.policy_lag import log_probs_of

SETTINGS: dict[str, Any] = {"n_steps": 64, "batch_size": 32, "n_critic_updates": 2, "seed": 3, "device": "cpu"}
SAMPLERS: dict[str, Any] = {"n_samplers": 2, "backend": "inline"}


@pytest.mark.parametrize(
    ("env", "n_envs", "policy", "settings"),
    [
        pytest.param("CartPole-v1", 1, "MlpPolicy", {"sub_sampling_factor": 2}, id="discrete"),
        pytest.param("Pendulum-v1", 2, "MlpPolicy", {"n_steps": 256, "normalize_advantage": False}, id="continuous"),
        pytest.param("Pendulum-v1", 2, "MlpPolicy", {"n_steps": 256, "use_sde": True, "sde_sample_freq": 4}, id="gSDE"),
        pytest.param(DictEnv, 2, "MultiInputPolicy", {}, id="dictionaries"),
    ],
)
def test_training_equals_that_of_sb3_contrib(env: Any, n_envs: int, policy: str, settings: dict[str, Any]) -> None:
    """To the last bit, the random start of the search for a direction included."""
    settings = {**SETTINGS, **settings}
    assert_trains_like(TRPO, partial(AsyncTRPO, learner="eager"), env, n_envs, policy, n_rollouts=3, **settings)


def test_gradients_of_a_users_own_are_kept() -> None:
    class OwnGradients(AsyncTRPO):
        n_calls = 0

        def _compute_actor_grad(self, *losses: Any) -> Any:
            self.n_calls += 1
            return super()._compute_actor_grad(*losses)

    with OwnGradients("MlpPolicy", "CartPole-v1", **SAMPLERS, **SETTINGS) as model:
        assert model.learn(2 * 128).n_calls == 2
    with pytest.raises(ValueError, match="OwnGradients makes another update"):
        OwnGradients("MlpPolicy", "CartPole-v1", learner="compiled", **SAMPLERS, **SETTINGS)


def test_models_are_saved_and_loaded_in_both_directions(tmp_path: Path) -> None:
    with AsyncTRPO("MlpPolicy", "CartPole-v1", **SAMPLERS, **SETTINGS) as model:
        model.learn(128).save(tmp_path / "ours")
    theirs = TRPO.load(tmp_path / "ours", env=make_vec_env("CartPole-v1", 2), device="cpu")
    assert type(theirs) is TRPO
    assert_same_weights(model, theirs)
    theirs.learn(128, reset_num_timesteps=False).save(tmp_path / "theirs")
    with AsyncTRPO.load(tmp_path / "theirs", env="CartPole-v1", device="cpu", **SAMPLERS) as loaded:
        assert loaded.mode == "sync"
        assert_same_policies(theirs, loaded)
        assert loaded.learn(128, reset_num_timesteps=False).num_timesteps == 384


class Lags(BaseCallback):
    """Notes policy lags, and what the buffer says of the actions of each rollout before it is corrected."""

    def __init__(self) -> None:
        super().__init__()
        self.lags: list[int] = []
        self.log_probs: list[np.ndarray] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        assert isinstance(self.model, AsyncTRPO)
        self.lags.append(self.model._rollout_policy_lag)
        self.log_probs.append(self.model.rollout_buffer.log_probs.copy())


def test_pipelined_learns_from_the_policy_before_and_corrects_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = AsyncTRPO("MlpPolicy", "CartPole-v1", mode="pipelined", learner="eager", **SAMPLERS, **SETTINGS)
    ratios = []
    train = TRPO.train

    def noted(self: Any) -> None:
        buffer = self.rollout_buffer
        # The surrogate's ratio is one to the policy around which the trust region lies.
        np.testing.assert_allclose(buffer.log_probs, log_probs_of(buffer, self.policy), atol=1e-5)
        ratios.append(np.abs(buffer.log_probs - watch.log_probs[-1]).max())
        train(self)

    watch = Lags()
    with model, monkeypatch.context() as patched:
        patched.setattr(TRPO, "train", noted)
        model.learn(4 * 128, callback=watch)
    assert model.num_timesteps == 4 * 128 and len(ratios) == 4
    assert watch.lags == [0, 1, 1, 1]
    assert ratios[0] == 0 and min(ratios[1:]) > 1e-3


@pytest.mark.parametrize("mode", ["sync", "pipelined"])
def test_a_rollout_of_one_sample_does_no_harm(mode: str) -> None:
    """sb3-contrib divides its advantage by a deviation that is not a number, and by that of one of two sub-samples."""
    settings = {**SETTINGS, "rollout": "episodes", "target_steps": 1, "max_episode_steps": 1, "mode": mode}
    del settings["n_steps"]
    with AsyncTRPO("MlpPolicy", "CartPole-v1", sub_sampling_factor=2, **SAMPLERS, **settings) as model:
        before = model.policy.state_dict()["action_net.weight"].clone()
        with pytest.warns(UserWarning, match="within 1 steps and was truncated"):
            model.learn(3)
        model.target_steps = 2
        model.learn(4)
        after = model.policy.state_dict()["action_net.weight"]
    assert th.isfinite(after).all() and not th.equal(before, after) and model.normalize_advantage


def test_pipelined_learns_cart_pole() -> None:
    settings = {**SETTINGS, "n_steps": 256, "batch_size": 128, "n_critic_updates": 5, "gae_lambda": 0.98}
    with AsyncTRPO("MlpPolicy", "CartPole-v1", mode="pipelined", **SAMPLERS, **settings) as model:
        model.learn(15_000)
        returns = [info["r"] for info in model.ep_info_buffer or ()]
    assert np.mean(returns[-20:]) > 150


def test_free_is_no_mode_of_it() -> None:
    with pytest.raises(
        ValueError, match=r"AsyncTRPO cannot learn in mode='free'. Its modes are \('sync', 'pipelined'\)"
    ):
        AsyncTRPO("MlpPolicy", "CartPole-v1", mode="free", **SAMPLERS)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_a_gradient_of_the_critic_that_is_not_finite_stops_the_update() -> None:
    with AsyncTRPO("MlpPolicy", "CartPole-v1", check_nan=True, **SAMPLERS, **SETTINGS) as model:
        model.learn(128)
        n_updates = model._n_updates
        model.rollout_buffer.returns[3] = np.inf
        with pytest.raises(NonFiniteError, match="value_net"):
            model.train()
    assert model._n_updates == n_updates
    assert all(th.isfinite(tensor).all() for tensor in model.policy.state_dict().values())
