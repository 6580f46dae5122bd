"""The halves of a step, gradient and apply, had apart: the same numbers as the whole."""

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import DDPG, DQN, SAC, TD3
from test_off_policy_updates import Traced
from test_off_policy_updates import made as made_off_policy
from update_pairs import BATCH_NORM, TracedUpdates
from update_pairs import made as made_ppo

from sb3_walle.updates.step import Gradient, State, UpdateStep

CASES: dict[str, Any] = {
    "PPO": lambda: TracedUpdates(made_ppo()),
    "PPO with batch normalization": lambda: TracedUpdates(made_ppo(policy_kwargs=BATCH_NORM)),
    "PPO that refuses": lambda: TracedUpdates(made_ppo(target_kl=-1.0)),
    "SAC": lambda: Traced(made_off_policy(SAC)),
    "SAC with a fixed coefficient": lambda: Traced(made_off_policy(SAC, ent_coef=0.1)),
    "TD3": lambda: Traced(made_off_policy(TD3, policy_delay=1)),
    "DDPG": lambda: Traced(made_off_policy(DDPG)),
    "DQN that clips": lambda: Traced(made_off_policy(DQN, max_grad_norm=0.01)),
}


def recorded(case: Any) -> tuple[UpdateStep, list[th.Tensor], list[th.Tensor], th.Tensor]:
    """Of the first minibatch of an update: the step, its inputs before and after, and what it returns."""
    calls: list[tuple[list[th.Tensor], list[th.Tensor], th.Tensor]] = []
    (name,) = case.steps

    def program(inputs: list[th.Tensor]) -> th.Tensor:
        before = [tensor.clone() for tensor in inputs]
        found = case.steps[name].graph(*inputs)[0]
        calls.append((before, [tensor.clone() for tensor in inputs], found))
        return found

    case.programs[name] = program
    np.random.seed(0)
    th.manual_seed(0)
    case.train()
    before, after, statistics = calls[0]
    return case.steps[name].eager, before, after, statistics


def gradients_of_halves(step: UpdateStep, stage: Any, state: State, inputs: list[th.Tensor]) -> list[Gradient]:
    """Gradients of the minibatch, and of the same one as a worker would have it that knows nothing of optimizers."""
    minibatch = step.unpacked(inputs)[1]
    return [step.gradient(stage, state, some) for some in (minibatch, minibatch._replace(adam={}))]


@pytest.mark.parametrize("name", CASES)
def test_halves_give_the_numbers_of_the_whole_step(name: str) -> None:
    """To the last bit, for they are the same operations in the same order."""
    step, before, after, statistics = recorded(CASES[name]())
    untouched = [tensor.clone() for tensor in before]
    state, minibatch = step.unpacked(before)
    found: dict[str, th.Tensor] = {}
    errors: list[th.Tensor] = []
    for stage in step.made:
        gradient, of_worker = gradients_of_halves(step, stage, state, before)
        assert all(th.equal(gradient.vectors[group], of_worker.vectors[group]) for group in gradient.vectors)
        # An optimizer does not need the samples.
        state, further = step.apply(stage, state, gradient, minibatch._replace(rows=None, noise=()))
        found |= {**gradient.statistics, **further}
        errors += [] if gradient.errors is None else [gradient.errors]
    expected = step.unpacked(after)[0]
    for one, other in zip(state.changing(), expected.changing(), strict=True):
        assert th.equal(one, other)
    assert th.equal(th.cat([th.stack([found[each] for each in step.statistics]), *errors]), statistics)
    # Neither half has changed anything in place.
    assert all(th.equal(one, other) for one, other in zip(before, untouched, strict=True))


def test_the_actor_follows_the_critics_after_their_step() -> None:
    step, before, _, _ = recorded(CASES["SAC"]())
    state, minibatch = step.unpacked(before)
    critic, actor = step.made
    after, _ = step.apply(critic, state, step.gradient(critic, state, minibatch), minibatch)
    early, late = (step.gradient(actor, some, minibatch).vectors["actor"] for some in (state, after))
    assert not th.equal(early, late)


def test_gradients_of_two_shards_are_those_of_the_minibatch() -> None:
    """Their mean is, within rounding: what two gradient workers would hand in."""
    step, before, _, _ = recorded(CASES["SAC"]())
    state, minibatch = step.unpacked(before)

    def shard(tensor: th.Tensor, part: int) -> th.Tensor:
        return tensor.chunk(2)[part] if len(tensor) > 1 else tensor

    shards = [
        minibatch._replace(
            rows=type(minibatch.rows)(*(shard(tensor, part) for tensor in minibatch.rows)),
            noise=tuple(shard(tensor, part) for tensor in minibatch.noise),
        )
        for part in (0, 1)
    ]
    for stage in step.made:
        whole = step.gradient(stage, state, minibatch).vectors
        halves = [step.gradient(stage, state, some).vectors for some in shards]
        for name, expected in whole.items():
            th.testing.assert_close((halves[0][name] + halves[1][name]) / 2, expected, rtol=1e-4, atol=1e-6)


def test_a_frozen_parameter_of_a_critic_is_refused() -> None:
    """It would be trained otherwise."""
    from sb3_walle.updates.unsupported import Unsupported

    model = made_off_policy(SAC)
    model.critic.qf0[0].weight.requires_grad_(False)
    with pytest.raises(Unsupported, match="parameters of the critic are frozen"):
        Traced(model)
