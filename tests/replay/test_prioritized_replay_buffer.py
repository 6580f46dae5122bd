"""Prioritised replay, against its formulas in plain Python, and against SB3's buffers for what is in the samples."""

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_walle import AsyncDQN, AsyncSAC, NonFiniteError, PrioritizedReplayBuffer

VECTOR = spaces.Box(-10, 10, (3,), np.float32)
DICTIONARY = spaces.Dict({"one": spaces.Box(-1, 1, (2, 2), np.float32), "other": spaces.Discrete(3)})
ACTIONS = spaces.Discrete(4)
SIZE, N_ENVS = 20, 3


def filled(
    *kinds: Any, space: spaces.Space = VECTOR, n_added: int = 33, n_envs: int = N_ENVS, **settings: Any
) -> list[Any]:
    """
    Buffers of some classes with the same transitions.

    :param kinds: a class, or a class and further arguments
    :param n_added: rows that are added; from 20 on they replace the oldest ones
    """
    made = []
    for kind in kinds:
        cls, further = kind if isinstance(kind, tuple) else (kind, {})
        made.append(cls(SIZE * n_envs, space, ACTIONS, device="cpu", n_envs=n_envs, **settings, **further))
    random = np.random.default_rng(0)
    space.seed(0)
    following = observations(space, n_envs)
    for _ in range(n_added):
        before, following = following, observations(space, n_envs)
        dones = random.random(n_envs) < 0.2
        infos = [{"TimeLimit.truncated": bool(done and random.random() < 0.5)} for done in dones]
        actions, rewards = random.integers(4, size=n_envs), random.normal(size=n_envs)
        for buffer in made:
            buffer.add(before, following, actions, rewards, dones, infos)
    return made


def observations(space: spaces.Space, n_envs: int) -> Any:
    found: list[Any] = [space.sample() for _ in range(n_envs)]
    if isinstance(space, spaces.Dict):
        return {key: np.array([observation[key] for observation in found]) for key in space}
    return np.array(found)


def sampled_by_sb3(monkeypatch: pytest.MonkeyPatch, buffer: Any, indices: np.ndarray, normalizer: Any) -> Any:
    """What SB3's buffer gives for the same transitions: it draws their columns at random."""
    rows, envs = np.divmod(indices, buffer.n_envs)
    with monkeypatch.context() as patch:
        patch.setattr(np.random, "randint", lambda *_, **__: envs)
        return buffer._get_samples(rows, normalizer)


def assert_same_samples(found: Any, expected: Any) -> None:
    for name in expected._fields:
        one, other = (parts_of(getattr(samples, name)) for samples in (expected, found))
        for part, counterpart in zip(one, other, strict=True):
            assert part.dtype == counterpart.dtype and th.equal(part, counterpart), name


def parts_of(tensors: Any) -> list[th.Tensor]:
    if isinstance(tensors, dict):
        return list(tensors.values())
    return [] if tensors is None else [th.as_tensor(tensors)]


N_STEPS: dict[str, Any] = {"n_steps": 3, "gamma": 0.9}
SB3S: dict[str, tuple[Any, dict[str, Any]]] = {
    "arrays": (ReplayBuffer, {}),
    "one environment": (ReplayBuffer, {"n_envs": 1}),
    "time limits that end episodes": (ReplayBuffer, {"handle_timeout_termination": False}),
    "less memory": (ReplayBuffer, {"optimize_memory_usage": True, "handle_timeout_termination": False}),
    "not yet full": (ReplayBuffer, {"n_added": 7}),
    "just full": (ReplayBuffer, {"n_added": SIZE}),
    "dictionaries": (DictReplayBuffer, {"space": DICTIONARY}),
    "numbers": (ReplayBuffer, {"space": spaces.Discrete(5)}),
    "n-step returns": (NStepReplayBuffer, N_STEPS),
    "n-step returns, not yet full": (NStepReplayBuffer, {**N_STEPS, "n_added": 7}),
}


@pytest.mark.parametrize("case", SB3S)
def test_samples_are_those_of_sb3s_buffers(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, arguments = SB3S[case]
    expected, buffer = filled(kind, PrioritizedReplayBuffer, **arguments)
    samples = buffer.sample_weighted(200)
    assert len(np.unique(samples.indices)) == np.count_nonzero(buffer.priorities)
    assert_same_samples(samples, sampled_by_sb3(monkeypatch, expected, samples.indices, None))


@pytest.mark.parametrize("case", ["arrays", "n-step returns", "less memory"])
def test_samples_are_normalised_as_by_sb3(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, arguments = SB3S[case]
    expected, buffer = filled(kind, PrioritizedReplayBuffer, **arguments)
    normalizer = VecNormalize(DummyVecEnv([lambda: Spaces()]))
    normalizer.obs_rms.mean[:], normalizer.ret_rms.var = 2.0, np.array(9.0)  # type: ignore[union-attr]
    samples = buffer.sample_weighted(100, normalizer)
    assert_same_samples(samples, sampled_by_sb3(monkeypatch, expected, samples.indices, normalizer))
    assert not th.equal(samples.observations, buffer._get_samples(samples.indices).observations)


class Spaces(gym.Env):
    """Only has spaces."""

    observation_space, action_space = VECTOR, ACTIONS


# Formulas


class PlainPriorities:
    """The paper's formulas, one transition at a time: index, priority and weight in lists."""

    def __init__(self, n_slots: int, alpha: float, min_priority: float) -> None:
        self.priorities, self.alpha, self.min_priority = [0.0] * n_slots, alpha, min_priority

    def add(self, slots: list[int], greatest: float) -> None:
        for slot in slots:
            self.priorities[slot] = greatest

    def update(self, slots: list[int], errors: list[float]) -> None:
        for slot, error in zip(slots, errors, strict=True):
            self.priorities[slot] = abs(error) + self.min_priority

    def probability(self, slot: int) -> float:
        total = sum(priority**self.alpha for priority in self.priorities if priority > 0)
        return float(self.priorities[slot] ** self.alpha / total)

    def weights(self, slots: list[int], beta: float) -> list[float]:
        n = sum(priority > 0 for priority in self.priorities)
        weights = [(n * self.probability(slot)) ** -beta for slot in slots]
        return [weight / max(weights) for weight in weights]


@settings(max_examples=60, deadline=None)
@given(
    alpha=st.floats(0, 1),
    beta=st.floats(0, 1),
    final_beta=st.floats(0, 1),
    n_envs=st.integers(1, 3),
    rounds=st.lists(st.tuples(st.integers(0, 30), st.floats(0, 1), st.integers(0, 1_000)), min_size=1, max_size=5),
)
def test_priorities_and_weights_are_those_of_the_paper(
    alpha: float, beta: float, final_beta: float, n_envs: int, rounds: list[tuple[int, float, int]]
) -> None:
    arguments = {"alpha": alpha, "beta": beta, "final_beta": final_beta, "min_priority": 0.01}
    (buffer,) = filled(PrioritizedReplayBuffer, n_added=5, n_envs=n_envs, **arguments)
    plain, greatest = PlainPriorities(SIZE * n_envs, alpha, 0.01), 1.0
    plain.add(list(range(5 * n_envs)), greatest)
    for n_added, progress_remaining, seed in rounds:
        for _ in range(n_added):
            plain.add([buffer.pos * n_envs + env for env in range(n_envs)], greatest)
            buffer.add(np.zeros((n_envs, 3)), np.zeros((n_envs, 3)), *np.zeros((3, n_envs)), [{}] * n_envs)
        samples = buffer.sample_weighted(16, progress_remaining=progress_remaining)
        slots = samples.indices.tolist()
        expected = plain.weights(slots, progress_remaining * beta + (1 - progress_remaining) * final_beta)
        np.testing.assert_allclose(samples.weights[:, 0], expected, rtol=1e-5)
        errors = np.random.default_rng(seed).normal(scale=3, size=16).astype(np.float32)
        buffer.update_priorities(samples.indices, th.tensor(errors).reshape(-1, 1))
        plain.update(slots, errors.tolist())
        greatest = max(greatest, *(abs(error) + 0.01 for error in errors.tolist()))
        assert buffer.max_priority == pytest.approx(greatest)
        scaled = [priority**alpha if priority else 0.0 for priority in plain.priorities]
        np.testing.assert_allclose(buffer.priorities.reshape(-1), scaled, rtol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_transitions_are_sampled_in_proportion_to_their_priorities(alpha: float) -> None:
    (buffer,) = filled(PrioritizedReplayBuffer, alpha=alpha)
    errors = 10.0 ** np.random.default_rng(1).uniform(-1, 1, size=SIZE * N_ENVS)
    buffer.update_priorities(np.arange(SIZE * N_ENVS), errors)
    np.random.seed(0)
    n_minibatches, batch_size = 4_000, 32
    drawn = np.concatenate([buffer.sample_weighted(batch_size).indices for _ in range(n_minibatches)])
    expected = (errors + 1e-6) ** alpha / ((errors + 1e-6) ** alpha).sum()
    found = np.bincount(drawn, minlength=SIZE * N_ENVS) / len(drawn)
    # Five standard deviations of independent draws, which draws from equal shares stay below.
    assert (np.abs(found - expected) < 5 * np.sqrt(expected / len(drawn))).all()
    # Each share of the sum gives one sample: what has a tenth of it comes three times in 32 at least.
    assert np.bincount(buffer.sample_weighted(batch_size).indices, minlength=SIZE * N_ENVS).max() <= (
        np.ceil(expected.max() * batch_size) + 1
    )


def test_without_alpha_and_beta_sampling_is_uniform() -> None:
    (buffer,) = filled(PrioritizedReplayBuffer, alpha=0.0, beta=0.0, final_beta=0.0)
    buffer.update_priorities(np.arange(10), np.linspace(0, 100, 10))
    samples = buffer.sample_weighted(SIZE * N_ENVS)
    # As many shares as transitions.
    assert np.array_equal(samples.indices, np.arange(SIZE * N_ENVS))
    assert (samples.weights == 1).all()


def test_what_is_overwritten_where_memory_is_saved_is_never_sampled() -> None:
    arguments = {"optimize_memory_usage": True, "handle_timeout_termination": False}
    (buffer,) = filled(PrioritizedReplayBuffer, **arguments)
    # Its observation is the last one that was reached.
    assert (buffer.priorities[buffer.pos] == 0).all() and np.count_nonzero(buffer.priorities) == (SIZE - 1) * N_ENVS
    buffer.add(np.zeros((3, 3)), np.zeros((3, 3)), *np.zeros((3, 3)), [{}] * 3)
    assert (buffer.priorities[buffer.pos] == 0).all() and np.count_nonzero(buffer.priorities) == (SIZE - 1) * N_ENVS


def test_a_copy_and_an_empty_buffer() -> None:
    (buffer,) = filled((PrioritizedReplayBuffer, {"n_steps": 2}))
    buffer.update_priorities(np.arange(30), np.arange(30.0))
    copy = pickle.loads(pickle.dumps(buffer))
    found = []
    for one in (buffer, copy):
        np.random.seed(3)
        found.append(one.sample_weighted(50, progress_remaining=0.3))
        assert one.max_priority == 29 + 1e-6
    assert_same_samples(*found)
    buffer.reset()
    assert (buffer.size(), buffer.max_priority, buffer.priorities.sum()) == (0, 1.0, 0.0)
    with pytest.raises(ValueError, match="buffer is empty"):
        buffer.sample_weighted(1)
    assert copy.priorities.sum() > 0


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 1.5}, "alpha must be from 0 to 1, got 1.5"),
        ({"beta": -0.1}, "beta must be from 0 to 1, got -0.1"),
        ({"final_beta": float("nan")}, "final_beta must be from 0 to 1, got nan"),
        ({"min_priority": 0.0}, "min_priority must be a number above 0, got 0.0"),
        ({"n_steps": 0}, "n_steps must be at least 1, got 0"),
        (
            {"n_steps": 2, "optimize_memory_usage": True, "handle_timeout_termination": False},
            "n_steps=2 needs the next observation of each step",
        ),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrioritizedReplayBuffer(10, VECTOR, ACTIONS, **arguments)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_errors_that_are_not_finite_are_refused(wrong: float) -> None:
    (buffer,) = filled(PrioritizedReplayBuffer)
    before = buffer.priorities
    with pytest.raises(NonFiniteError, match="the network has diverged"):
        buffer.update_priorities(np.arange(3), np.array([0.5, wrong, 0.5]))
    assert np.array_equal(buffer.priorities, before)


@pytest.mark.parametrize(("algorithm", "env"), [(DQN, "CartPole-v1"), (SAC, "Pendulum-v1")])
def test_algorithms_of_sb3_are_told_that_they_cannot_use_it(algorithm: Any, env: str) -> None:
    model = algorithm("MlpPolicy", env, replay_buffer_class=PrioritizedReplayBuffer, learning_starts=10)
    with pytest.raises(RuntimeError, match=r"neither weights its losses nor returns errors.*AsyncDQN"):
        model.learn(50)
    assert model._n_updates == 0


class OwnTraining(DQN):
    """A DQN with an update of its own, which samples as all of SB3's do."""

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        super().train(gradient_steps, batch_size)


class AsyncOwnTraining(AsyncDQN, OwnTraining):
    pass


def test_so_are_other_algorithms_of_ours() -> None:
    with pytest.raises(ValueError, match="AsyncSAC cannot learn from a PrioritizedReplayBuffer: it neither weights"):
        AsyncSAC("MlpPolicy", "Pendulum-v1", replay_buffer_class=PrioritizedReplayBuffer, backend="inline")
    arguments: dict[str, Any] = {"n_samplers": 1, "backend": "inline", "learning_starts": 10, "device": "cpu"}
    model = AsyncOwnTraining("MlpPolicy", "CartPole-v1", replay_buffer_class=PrioritizedReplayBuffer, **arguments)
    with model, pytest.raises(RuntimeError, match="neither weights its losses"):
        model.learn(50)
