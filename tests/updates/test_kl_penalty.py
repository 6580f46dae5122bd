"""PPO with the WALL-E report's adaptive penalty on the KL divergence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from space_env import SpaceEnv
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from torch.nn import functional as F

from sb3_walle import AsyncPPO, NonFiniteError
from sb3_walle.updates.kl_penalty import PRESETS, KLPenalty, divergence, train_with_kl_penalty
from sb3_walle.updates.policy_copy import copy_without_optimizer

VECTOR, BOX = spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-1, 1, (2,), np.float32)
N_STEPS = 32
SETTINGS: dict[str, Any] = {
    "objective": "kl_penalty",
    "n_samplers": 2,
    "backend": "inline",
    "n_steps": N_STEPS,
    "batch_size": 16,
    "n_epochs": 2,
    "policy_kwargs": {"net_arch": [8]},
    "seed": 0,
    "device": "cpu",
}
ACTIONS: dict[str, tuple[spaces.Space, dict[str, Any]]] = {
    "continuous": (BOX, {}),
    "discrete": (spaces.Discrete(3), {}),
    "several discrete": (spaces.MultiDiscrete([2, 3]), {}),
    "bits": (spaces.MultiBinary(3), {}),
    "gSDE": (BOX, {"use_sde": True}),
}


def model(action_space: spaces.Space = BOX, kind: type[AsyncPPO] = AsyncPPO, **settings: Any) -> AsyncPPO:
    return kind("MlpPolicy", lambda: SpaceEnv(VECTOR, action_space), **{**SETTINGS, **settings})


def collected(learning_rate: float, **settings: Any) -> AsyncPPO:
    """An algorithm that has learned nothing yet from what it has collected."""
    learning = model(learning_rate=0.0, **settings)
    learning.learn(2 * N_STEPS)
    learning.lr_schedule = lambda progress: learning_rate
    learning.policy.optimizer.state.clear()
    return learning


def logged(learning: PPO, name: str) -> float:
    return learning.logger.name_to_value[name]


def kl_of_gaussians(old: Any, new: Any, observations: th.Tensor) -> th.Tensor:
    """Mean over samples, sum over the dimensions of actions."""
    old_mean, mean = (policy.get_distribution(observations).distribution.mean for policy in (old, new))
    variance = th.exp(2 * new.log_std)
    each = new.log_std - old.log_std + (th.exp(2 * old.log_std) + (old_mean - mean) ** 2) / (2 * variance) - 0.5
    return each.sum(dim=1).mean()


# The objective


@pytest.mark.parametrize(("clip_range_vf", "preset", "hinge"), [(None, None, 50), (0.1, "batchppo", 1000)])
def test_steps_minimise_the_published_loss(clip_range_vf: float | None, preset: str | None, hinge: float) -> None:
    """In the first step there is no divergence yet, and so no penalty. In the second it has two parts."""
    settings: dict[str, Any] = {"batch_size": 2 * N_STEPS, "ent_coef": 0.01}
    learning = collected(3e-3, clip_range_vf=clip_range_vf, preset=preset, **settings)
    coef, kl_target = 3.0, 1.0
    old, new = (copy_without_optimizer(learning.policy) for _ in range(2))
    optimizer = th.optim.Adam(new.parameters(), lr=3e-3, eps=1e-5)
    samples = next(learning.rollout_buffer.get())
    for step in range(2):
        kl = kl_of_gaussians(old, new, samples.observations)
        if step == 1:
            # So that the divergence is too large, but not so large that there would be no second epoch.
            kl_target = kl.item() / 3
        values, log_prob, entropy = new.evaluate_actions(samples.observations, samples.actions)
        advantages = (samples.advantages - samples.advantages.mean()) / (samples.advantages.std() + 1e-8)
        surrogate = (th.exp(log_prob - samples.old_log_prob) * advantages).mean()
        values = values.flatten()
        if clip_range_vf is not None:
            values = samples.old_values + (values - samples.old_values).clamp(-clip_range_vf, clip_range_vf)
        loss = -surrogate + coef * kl + hinge * th.relu(kl - 2 * kl_target) ** 2
        loss = loss - 0.01 * entropy.mean() + 0.5 * F.mse_loss(samples.returns, values)
        optimizer.zero_grad()
        loss.backward()
        th.nn.utils.clip_grad_norm_(new.parameters(), 0.5)
        optimizer.step()
    learning.target_kl = kl_target
    train_with_kl_penalty(learning, KLPenalty(coef), preset or "report")
    found = dict(learning.policy.named_parameters())
    for name, parameter in new.named_parameters():
        np.testing.assert_allclose(found[name].detach(), parameter.detach(), rtol=1e-4, atol=1e-5, err_msg=name)
    assert logged(learning, "train/loss") == pytest.approx(loss.item(), abs=1e-4)
    assert logged(learning, "train/kl") == pytest.approx(kl_of_gaussians(old, new, samples.observations).item(), 1e-3)


@pytest.mark.parametrize("name", ACTIONS)
def test_divergence_is_exact_for_all_actions(name: str) -> None:
    """Against an average over many actions of the old policy."""
    action_space, settings = ACTIONS[name]
    learning = collected(0.02, action_space=action_space, **settings)
    old = copy_without_optimizer(learning.policy)
    samples = next(learning.rollout_buffer.get())
    assert divergence(learning.policy, old, samples).detach().numpy() == pytest.approx(0.0, abs=1e-6)
    learning.target_kl = 1.0
    learning.train()
    found = divergence(learning.policy, old, samples).detach().numpy()
    assert found.shape == (2 * N_STEPS,) and (found >= 0).all() and found.mean() > 1e-3
    log_ratios = []
    with th.no_grad():
        for _ in range(1000):
            distribution = old.get_distribution(samples.observations)
            actions = distribution.distribution.sample() if name == "gSDE" else distribution.sample()
            old_log_prob = distribution.log_prob(actions)
            log_ratios.append(old_log_prob - learning.policy.get_distribution(samples.observations).log_prob(actions))
    assert found.mean() == pytest.approx(th.stack(log_ratios).mean().item(), rel=0.15)


@pytest.mark.parametrize("name", ACTIONS)
@pytest.mark.parametrize("mode", ["sync", "pipelined"])
def test_any_actions_can_be_learned(name: str, mode: str) -> None:
    action_space, settings = ACTIONS[name]
    learning = model(action_space, mode=mode, **settings).learn(3 * 2 * N_STEPS)
    assert learning.policy_version == 3
    assert all(th.isfinite(parameter).all() for parameter in learning.policy.parameters())
    assert logged(learning, "async/compiled_update") == 0


# Its adaptation


@pytest.mark.parametrize(
    ("before", "kl", "after"),
    [
        (KLPenalty(), 0.01, KLPenalty()),
        (KLPenalty(), 0.021, KLPenalty(1.5)),
        (KLPenalty(), 0.004, KLPenalty(1 / 1.5)),
        # Where more of the penalty does not help, smaller steps do.
        (KLPenalty(19.0), 0.03, KLPenalty(28.5)),
        (KLPenalty(28.5), 0.03, KLPenalty(35.0, 1 / 1.5)),
        (KLPenalty(35.0, 0.11), 0.03, KLPenalty(35.0, 0.1)),
        (KLPenalty(1 / 28.5), 0.0, KLPenalty(1 / 35, 1.5)),
        (KLPenalty(1 / 35, 9.0), 0.0, KLPenalty(1 / 35, 10.0)),
        (KLPenalty(35.0, 0.5), 0.001, KLPenalty(35 / 1.5, 0.5)),
    ],
)
def test_penalty_adapts(before: KLPenalty, kl: float, after: KLPenalty) -> None:
    found = before.adapted(kl, kl_target=0.01)
    assert (found.coef, found.learning_rate_factor) == pytest.approx((after.coef, after.learning_rate_factor))


@pytest.mark.parametrize(
    ("before", "kl", "after"),
    [
        (1.0, 0.0072, 1.0),
        (1.0, 0.0128, 1.0),
        (1.0, 0.0132, 1.5),
        (1.0, 0.0068, 1 / 1.5),
        # There are no bounds, and learning rates stay as they are.
        (100.0, 0.1, 150.0),
        (0.001, 0.0, 0.001 / 1.5),
    ],
)
def test_penalty_of_batchppo_adapts(before: float, kl: float, after: float) -> None:
    found = KLPenalty(before).adapted(kl, PRESETS["batchppo"].kl_target, PRESETS["batchppo"])
    assert (found.coef, found.learning_rate_factor) == (pytest.approx(after), 1.0)


def test_presets_are_followed_while_learning(tmp_path: Path) -> None:
    learning = model(preset="batchppo", learning_rate=0.05, n_epochs=10)
    learning.learn(2 * N_STEPS)
    # With the target of this preset, 0.01, the penalty grows.
    assert logged(learning, "train/kl") > 1.3 * 0.01 and learning.kl_coef == 1.5
    learning.save(tmp_path / "model")
    assert AsyncPPO.load(tmp_path / "model").preset == "batchppo"


def test_epochs_end_when_the_divergence_is_far_too_large(capsys: pytest.CaptureFixture[str]) -> None:
    learning = collected(0.05, n_epochs=10, verbose=1)
    learning._n_updates = 0
    train_with_kl_penalty(learning, KLPenalty())
    assert learning._n_updates == 1
    assert "Early stopping at step 0 due to reaching max kl" in capsys.readouterr().out
    learning.target_kl = 100.0
    train_with_kl_penalty(learning, KLPenalty())
    assert learning._n_updates == 11


def test_learning_rates_are_scaled_once() -> None:
    learning = collected(1e-3)
    for _ in range(2):
        train_with_kl_penalty(learning, KLPenalty(learning_rate_factor=0.5))
        assert [group["lr"] for group in learning.policy.optimizer.param_groups] == [5e-4]


def test_divergence_that_is_aimed_at_is_reached() -> None:
    learning = model(learning_rate=1e-3, n_epochs=5, target_kl=0.02, n_steps=128, batch_size=64)
    learning.learn(20 * 2 * 128)
    assert 0.002 < logged(learning, "train/kl") < 0.08
    assert logged(learning, "train/kl_coef") != 1.0


def test_penalty_continues_after_it_was_saved(tmp_path: Path) -> None:
    learning = model(learning_rate=0.0)
    learning.learn(3 * 2 * N_STEPS)
    assert learning.kl_coef == pytest.approx(1.5**-3)
    learning.save(tmp_path / "model")
    loaded = AsyncPPO.load(tmp_path / "model", env=lambda: SpaceEnv(VECTOR, BOX), n_samplers=2, backend="inline")
    assert (loaded.objective, loaded.kl_coef) == ("kl_penalty", learning.kl_coef)
    loaded.learn(2 * N_STEPS)
    assert loaded.kl_coef == pytest.approx(1.5**-4)
    assert isinstance(PPO.load(tmp_path / "model"), PPO)


# What cannot be


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "clipped"}, r"objective must be one of \('clip', 'kl_penalty'\), got 'clipped'"),
        ({"preset": "other"}, r"preset must be one of \('report', 'batchppo'\), got 'other'"),
        ({"objective": "clip", "preset": "report"}, "preset='report' is for objective='kl_penalty'"),
        ({"learner": "compiled"}, "objective='kl_penalty' has no compiled update"),
        ({"target_kl": 0.0}, r"target_kl must be above 0 with objective='kl_penalty', got 0\.0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**settings)


def test_algorithm_that_trains_in_its_own_way_is_refused() -> None:
    class OwnPPO(PPO):
        def train(self) -> None:
            """Does something else."""

    class AsyncOwnPPO(AsyncPPO, OwnPPO):
        """Has the training of the one and the sampling of the other."""

    with pytest.raises(ValueError, match=r"takes the place of SB3's PPO.train\(\), and AsyncOwnPPO has one of its own"):
        model(kind=AsyncOwnPPO)


def test_numbers_that_are_not_finite_never_reach_the_weights() -> None:
    class BufferOfInfinity(RolloutBuffer):
        def compute_returns_and_advantage(self, *args: Any, **kwargs: Any) -> None:
            super().compute_returns_and_advantage(*args, **kwargs)
            self.returns[0] = np.inf

    learning = model(check_nan=True, rollout_buffer_class=BufferOfInfinity)
    with pytest.raises(NonFiniteError, match="Update 1 was stopped before minibatch"):
        learning.learn(2 * N_STEPS)
    assert all(th.isfinite(parameter).all() for parameter in learning.policy.parameters())
