"""DQN's update with prioritised replay: the paper's, the same compiled as eager, and SB3's where all weights are 1."""

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import DQN
from test_off_policy_updates import BATCH_SIZE, DICTIONARY, Traced, made, spoiled, train_alike
from torch.nn import functional

from sb3_walle import NonFiniteError, PrioritizedReplayBuffer
from sb3_walle.updates.prioritized_dqn import train_prioritized
from sb3_walle.updates.unsupported import Unsupported


class PrioritizedDQN(DQN):
    """DQN with the eager update, but without samplers."""

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        assert isinstance(self.replay_buffer, PrioritizedReplayBuffer)
        train_prioritized(self, self.replay_buffer, gradient_steps, batch_size)


def made_prioritized(n_trained: int = 3, buffer: dict[str, Any] | None = None, **settings: Any) -> Any:
    """An algorithm with a filled buffer, some of whose priorities are those of errors."""
    kinds = {"replay_buffer_class": PrioritizedReplayBuffer, "replay_buffer_kwargs": buffer or {}}
    model = made(PrioritizedDQN, **kinds, **settings)
    model._current_progress_remaining = 0.7
    np.random.seed(5)
    model.train(n_trained, BATCH_SIZE)
    return model


CASES: dict[str, dict[str, Any]] = {
    "arrays": {},
    "n-step returns": {"buffer": {"n_steps": 3, "gamma": 0.9}},
    "dictionaries": {"space": DICTIONARY},
    "normalisation": {"normalized": True},
    "clipping": {"max_grad_norm": 0.01},
    "less memory": {"optimize_memory_usage": True, "buffer": {"handle_timeout_termination": False}},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_traced_updates_are_the_eager_ones(case: dict[str, Any]) -> None:
    eager, by_us = (made_prioritized(**case) for _ in range(2))
    before = by_us.replay_buffer.priorities
    train_alike(eager, by_us, Traced(by_us))
    np.testing.assert_allclose(by_us.replay_buffer.priorities, eager.replay_buffer.priorities, rtol=1e-3, atol=1e-5)
    assert np.count_nonzero(by_us.replay_buffer.priorities != before) > BATCH_SIZE
    assert by_us.replay_buffer.max_priority == pytest.approx(eager.replay_buffer.max_priority, rel=1e-4)


def test_errors_that_a_program_gets_wrong_are_found_out() -> None:
    model = made_prioritized()
    traced = Traced(model)
    program, before = traced.programs["update"], model.replay_buffer.priorities

    def wrong(inputs: list[th.Tensor]) -> th.Tensor:
        found = program(inputs)
        found[1 + 3] *= -1
        return found

    assert traced.train(is_compared=True)
    traced.programs["update"] = wrong
    with pytest.raises(Unsupported, match="something else"):
        traced.train(is_compared=True)
    traced.programs["update"] = spoiled(program, 0, 1.0)
    assert traced.train(is_compared=True)
    assert not np.array_equal(model.replay_buffer.priorities, before)


def test_losses_are_weighted_and_priorities_are_errors() -> None:
    """Of the paper's algorithm 1, sample by sample."""
    model = made_prioritized(max_grad_norm=1e9, learning_rate=0.1)
    buffer, policy = model.replay_buffer, model.policy
    np.random.seed(2)
    samples = buffer.sample_weighted(BATCH_SIZE, progress_remaining=0.7)
    assert samples.weights.min() < 0.99 and samples.weights.max() == 1
    terms, errors = [], []
    for i in range(BATCH_SIZE):
        following = policy.q_net_target(samples.next_observations[i : i + 1]).max().item()
        target = samples.rewards[i, 0] + model.gamma * following * (1 - samples.dones[i, 0])
        value = policy.q_net(samples.observations[i : i + 1])[0, int(samples.actions[i, 0])]
        terms.append(samples.weights[i, 0] * functional.huber_loss(value, target))
        errors.append(abs((target - value).item()))
    loss = th.stack(terms).sum() / BATCH_SIZE
    expected = th.autograd.grad(loss, list(policy.q_net.parameters()))
    np.random.seed(2)
    model.train(1, BATCH_SIZE)
    for gradient, parameter in zip(expected, policy.q_net.parameters(), strict=True):
        th.testing.assert_close(parameter.grad, gradient)
    assert model.logger.name_to_value["train/loss"] == pytest.approx(loss.item())
    found = buffer.priorities.reshape(-1)[samples.indices]
    np.testing.assert_allclose(found, (np.array(errors) + buffer.min_priority) ** buffer.alpha, rtol=1e-3)


@pytest.mark.parametrize("is_traced", [False, True])
def test_an_update_that_has_diverged_is_an_error(is_traced: bool) -> None:
    model = made_prioritized()
    traced = Traced(model)
    with th.no_grad():
        model.policy.q_net.q_net[0].weight.fill_(th.nan)
    with pytest.raises(NonFiniteError, match="the network has diverged"):
        traced.train() if is_traced else model.train(1, BATCH_SIZE)
