"""Compiled updates of off-policy algorithms: the numbers of SB3 and sb3-contrib, and what cannot be compiled."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from native_helpers import FakeBuild, FakeProgram
from sb3_contrib import QRDQN, TQC
from stable_baselines3 import DDPG, DQN, SAC, TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn
from toy_envs import RandomWalk, StampedEnv

from sb3_walle import AsyncDQN, AsyncSAC, AsyncTD3, PrioritizedReplayBuffer
from sb3_walle.updates import compiled_update, program_compiler, updater
from sb3_walle.updates.compiled_update import make_update
from sb3_walle.updates.dqn_update import DQNUpdate
from sb3_walle.updates.native.store import DIRECTORY_VARIABLE
from sb3_walle.updates.off_policy_update import OffPolicyUpdate
from sb3_walle.updates.qrdqn_update import QRDQNUpdate
from sb3_walle.updates.sac_update import SACUpdate
from sb3_walle.updates.td3_update import TD3Update
from sb3_walle.updates.tqc_update import TQCUpdate
from sb3_walle.updates.traced_step import TracedStep, trace_update
from sb3_walle.updates.unsupported import Unsupported
from sb3_walle.updates.updater import Updater

BATCH_SIZE, N_STORED = 32, 300
VECTOR = spaces.Box(-np.inf, np.inf, (5,), np.float64)
ACTIONS = spaces.Box(-2.0, 2.0, (2,), np.float32)
DICTIONARY = spaces.Dict({"one": spaces.Box(-1, 1, (2, 2), np.float32), "other": spaces.Discrete(3)})


class Spaces(gym.Env):
    """
    Only has spaces.

    :param observation_space: one of them
    :param action_space: the other
    """

    def __init__(self, observation_space: spaces.Space = VECTOR, action_space: spaces.Space = ACTIONS) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


def made(algorithm: Any, space: spaces.Space = VECTOR, normalized: bool = False, **settings: Any) -> Any:
    """An algorithm with a filled replay buffer, the same one every time."""
    is_discrete = issubclass(algorithm, DQN | QRDQN)
    env: Any = DummyVecEnv([lambda: Spaces(space, spaces.Discrete(3) if is_discrete else ACTIONS)])
    env = VecNormalize(env) if normalized else env
    policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
    arguments = {"policy_kwargs": {"net_arch": [8, 6]}, "buffer_size": 400, "batch_size": BATCH_SIZE, **settings}
    model = algorithm(policy, env, device="cpu", seed=1, **arguments)
    random = np.random.default_rng(0)
    space.seed(0)
    for _ in range(N_STORED):
        observation, following = (
            {k: np.array(v) for k, v in o.items()} if isinstance(o, dict) else o[None]
            for o in (space.sample(), space.sample())
        )
        actions = random.integers(3, size=(1, 1)) if is_discrete else random.uniform(-1, 1, (1, 2))
        rewards, done = random.normal(size=1), random.random(1) < 0.1
        infos = [{"TimeLimit.truncated": bool(random.random() < 0.5)}]
        model.replay_buffer.add(observation, following, actions, rewards, done, infos)
    model.set_logger(Logger(None, []))
    return model


def update_of(model: Any) -> OffPolicyUpdate:
    kinds: dict[Any, Any] = {SAC: SACUpdate, TD3: TD3Update, DQN: DQNUpdate, TQC: TQCUpdate, QRDQN: QRDQNUpdate}
    (kind,) = (update for algorithm, update in kinds.items() if isinstance(model, algorithm))
    return kind(model)


class Traced:
    """
    Updates a model as compiled programs do, with the traced graphs themselves for programs: all that a compiler would
    change of the numbers is their last digits.

    :param model: the model
    """

    def __init__(self, model: Any) -> None:
        self.model, self.update = model, update_of(model)
        self.update.expect(4)
        self.update.key()
        self.groups = self.update.make_groups()
        self.steps = trace_update(self.update, self.groups)
        self.programs: dict[str, Any] = {name: program_of(step) for name, step in self.steps.items()}

    def train(self, is_compared: bool = False, may_differ: bool = False) -> bool:
        """Make four gradient steps; whether the first was the same in both ways."""
        arguments = (self.update, self.groups, self.steps, self.programs)
        return make_update(*arguments, 1, is_compared, may_differ)[1]


def program_of(step: TracedStep) -> Any:
    return lambda inputs: step.graph(*inputs)[0]


@pytest.fixture(autouse=True)
def _fake_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "programs"))
    monkeypatch.setattr(program_compiler, "Build", FakeBuild)
    monkeypatch.setattr(program_compiler, "NativeProgram", FakeProgram)
    monkeypatch.setattr(FakeBuild, "begun", [])
    yield


def train_alike(by_sb3: Any, by_us: Any, traced: Traced, n_updates: int = 2) -> None:
    """Train both from the same random states, and compare all that remains of it."""
    for number in range(n_updates):
        states = []
        for trains_by_sb3 in (True, False):
            np.random.seed(number)
            th.manual_seed(number)
            if trains_by_sb3:
                by_sb3.train(4, BATCH_SIZE)
            else:
                assert traced.train(is_compared=number == 0)
            states.append((np.random.get_state()[1:3], th.get_rng_state()))
        np.testing.assert_equal(states[0][0], states[1][0])
        assert th.equal(states[0][1], states[1][1])
        assert_same(by_sb3, by_us)


def assert_same(by_sb3: Any, by_us: Any) -> None:
    for name, expected in by_sb3.policy.state_dict().items():
        th.testing.assert_close(by_us.policy.state_dict()[name], expected, rtol=1e-4, atol=1e-6)
    for expected, found in zip(optimizers(by_sb3), optimizers(by_us), strict=True):
        for one, other in zip(expected.state.values(), found.state.values(), strict=True):
            for entry, value in one.items():
                th.testing.assert_close(other[entry], value, rtol=1e-3, atol=1e-6)
    assert by_us._n_updates == by_sb3._n_updates
    expected, found = by_sb3.logger.name_to_value, by_us.logger.name_to_value
    assert list(expected) == list(found)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-4, atol=1e-6)


def optimizers(model: Any) -> list[th.optim.Optimizer]:
    if isinstance(model, DQN | QRDQN):
        return [model.policy.optimizer]
    entropy = getattr(model, "ent_coef_optimizer", None)
    return [model.actor.optimizer, model.critic.optimizer, *([entropy] if entropy is not None else [])]


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "SAC": (SAC, {}),
    "SAC with a fixed coefficient and slow targets": (SAC, {"ent_coef": 0.1, "target_update_interval": 3}),
    "SAC with n-step returns": (SAC, {"n_steps": 3}),
    "SAC with dictionaries": (SAC, {"space": DICTIONARY}),
    "SAC with normalisation": (SAC, {"normalized": True}),
    "SAC with other networks": (
        SAC,
        {"policy_kwargs": {"net_arch": {"pi": [7], "qf": [5, 5]}, "n_critics": 3, "activation_fn": nn.Tanh}},
    ),
    "TD3": (TD3, {}),
    "TD3 without delay": (TD3, {"policy_delay": 1}),
    "DDPG": (DDPG, {}),
    "DQN": (DQN, {}),
    "DQN that clips": (DQN, {"max_grad_norm": 0.01, "n_steps": 2}),
    "DQN with dictionaries": (DQN, {"space": DICTIONARY}),
    "DQN with normalisation": (DQN, {"normalized": True}),
    "TQC": (TQC, {"target_update_interval": 2}),
    "TQC with other quantiles": (
        TQC,
        {
            "top_quantiles_to_drop_per_net": 3,
            "ent_coef": 0.1,
            "policy_kwargs": {"net_arch": [8], "n_quantiles": 7, "n_critics": 3},
        },
    ),
    "QR-DQN": (QRDQN, {}),
    "QR-DQN that clips": (QRDQN, {"max_grad_norm": 0.01, "n_steps": 2}),
    "AdamW": (
        TD3,
        {
            "policy_kwargs": {
                "net_arch": [8],
                "optimizer_class": th.optim.AdamW,
                "optimizer_kwargs": {"amsgrad": True, "weight_decay": 0.1},
            }
        },
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_traced_updates_are_sb3s(case: tuple[Any, dict[str, Any]]) -> None:
    algorithm, settings = case
    by_sb3, by_us = (made(algorithm, **settings) for _ in range(2))
    traced = Traced(by_us)
    # After an update of SB3's own, whose moments have to be taken over.
    for model in (by_sb3, by_us):
        np.random.seed(9)
        th.manual_seed(9)
        model.train(3, BATCH_SIZE)
    train_alike(by_sb3, by_us, traced)


def test_training_continues_with_what_was_loaded(tmp_path: Path) -> None:
    by_sb3, by_us = (made(SAC) for _ in range(2))
    other = made(SAC, policy_kwargs={"net_arch": [8, 6]}, learning_rate=0.01)
    other.train(5, BATCH_SIZE)
    other.save(tmp_path / "other")
    traced = Traced(by_us)
    train_alike(by_sb3, by_us, traced, n_updates=1)
    for model in (by_sb3, by_us):
        model.set_parameters(str(tmp_path / "other"), device="cpu")
    train_alike(by_sb3, by_us, traced)
    # What was trained by a program can be saved, and trained on by SB3.
    by_us.save(tmp_path / "ours")
    loaded = SAC.load(tmp_path / "ours", device="cpu")
    for name, value in by_us.policy.state_dict().items():
        assert th.equal(loaded.policy.state_dict()[name], value)
    for model in (by_sb3, by_us):
        np.random.seed(4)
        th.manual_seed(4)
        model.train(4, BATCH_SIZE)
    assert_same(by_sb3, by_us)


class OwnBuffer(ReplayBuffer):
    pass


def with_batch_norm(model: Any) -> Any:
    model.policy.critic.qf0.insert(1, nn.BatchNorm1d(8))
    return model


def with_hook(model: Any) -> Any:
    model.policy.actor.register_forward_hook(lambda *_: None)
    return model


def with_check(model: Any) -> Any:
    model.check_nan = True
    return model


REFUSED: dict[str, tuple[Any, str]] = {
    "gSDE": (lambda: made(SAC, use_sde=True), "it uses gSDE"),
    "another buffer": (lambda: made(SAC, replay_buffer_class=OwnBuffer), "the replay buffer is a OwnBuffer"),
    "another optimizer": (
        lambda: made(TD3, policy_kwargs={"net_arch": [4], "optimizer_class": th.optim.SGD}),
        "the optimizer is SGD",
    ),
    "buffers": (lambda: with_batch_norm(made(SAC)), "the policy has buffers"),
    "hooks": (lambda: with_hook(made(SAC)), "there are hooks"),
    "checks": (lambda: with_check(made(SAC)), "check_nan looks at every gradient"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_compiled_is_said(case: tuple[Any, str]) -> None:
    build, message = case
    model = build()
    with pytest.raises(ValueError, match=f"learner='compiled' is impossible: {message}"):
        Updater(update_of(model), "compiled").require()


def test_a_difference_that_does_not_come_again_was_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(SAC)
    updater_of = Updater(update_of(model), "compiled")
    updater_of.update.expect(4)
    updater_of.plan(10)
    verdicts = iter([False, False, True, False, False, True])
    monkeypatch.setattr(SACUpdate, "minibatches_per_comparison", 16)
    monkeypatch.setattr(compiled_update, "agrees", lambda *_: next(verdicts))
    # Begins with a comparison, and after 16 gradient steps comes another one; further ones until there is no doubt.
    for number in range(9):
        updater_of.train(number, lambda: pytest.fail("it is not compiled"))
    assert next(verdicts, None) is None


def test_actions_at_their_bounds_are_no_difference() -> None:
    """Where 1 - tanh(x)^2 has few digits left, log-probabilities differ by rounding that is no small number."""
    model = made(SAC)
    with th.no_grad():
        model.actor.mu.bias.fill_(4.5)
        model.log_ent_coef.fill_(-5.0)
        _, log_prob = model.actor.action_log_prob(model.replay_buffer.sample(N_STORED).observations)
        # The loss is about 0, which hides nothing.
        model.target_entropy = -log_prob.mean().item()
    traced = Traced(model)
    for step in traced.steps.values():
        use_another_tanh(step)
    assert traced.train(is_compared=True)


def use_another_tanh(step: TracedStep) -> None:
    """Have a graph round its tanh in another way."""
    for node in step.graph.graph.nodes:
        if node.target is th.ops.aten.tanh.default:
            node.target = tanh_rounded_down
    step.graph.recompile()


def tanh_rounded_down(values: th.Tensor) -> th.Tensor:
    return th.nextafter(th.tanh(values), th.zeros_like(values))


def test_a_policy_that_has_changed_in_secret_is_found_out() -> None:
    model = made(SAC)
    traced = Traced(model)
    # Nothing that can be seen from outside.
    model.actor.latent_pi[1].forward = lambda x: x.clamp(-0.5, 0.5)
    by_sb3 = made(SAC)
    by_sb3.actor.latent_pi[1].forward = model.actor.latent_pi[1].forward
    # It may have been rounding. Until that is clear, the policy as it is now is what counts.
    for number in range(2):
        for train in (lambda: by_sb3.train(4, BATCH_SIZE), lambda: traced.train(is_compared=True, may_differ=True)):
            np.random.seed(number)
            th.manual_seed(number)
            assert train() in (None, False)
        assert_same(by_sb3, model)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    random_state = np.random.get_state()[2]
    with pytest.raises(Unsupported, match="something else than it did when its update was compiled"):
        traced.train(is_compared=True)
    assert all(th.equal(before[name], value) for name, value in model.policy.state_dict().items())
    assert np.random.get_state()[2] == random_state


# Programs that compute something else, slightly


def spoiled(program: Any, index: int, factor: float) -> Any:
    """A program that leaves another tensor in one of its inputs."""

    def wrong(inputs: list[th.Tensor]) -> th.Tensor:
        found = program(inputs)
        inputs[index].mul_(factor)
        return found

    return wrong


# Where SAC's state has the actor's parameters, its gradient, that of the critics, and the target's parameters.
@pytest.mark.parametrize("index", [0, 3, 7, 12], ids=["actor", "actor's gradient", "critics' gradient", "target"])
def test_a_program_that_is_wrong_by_three_percent_is_found_out(index: int) -> None:
    model = made(SAC)
    traced = Traced(model)
    traced.programs["update"] = spoiled(traced.programs["update"], index, 1.03)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    with pytest.raises(Unsupported, match="something else"):
        traced.train(is_compared=True)
    assert all(th.equal(before[name], value) for name, value in model.policy.state_dict().items())


def test_an_entropy_coefficient_whose_gradient_cancels_is_no_difference() -> None:
    """Where the entropy is what it should be, the sum of its two terms is nothing but rounding."""
    model = made(SAC)
    traced = Traced(model)
    np.random.seed(1)
    th.manual_seed(1)
    with th.no_grad():
        samples = model.replay_buffer.sample(BATCH_SIZE).observations
        _, log_prob = model.actor.action_log_prob(samples)
        model.target_entropy = -log_prob.mean().item()
    program = traced.programs["update"]

    def rounding(inputs: list[th.Tensor]) -> th.Tensor:
        # Coefficients stand before what three optimizers take. The first is what the entropy should be.
        inputs[-4] = inputs[-4] + th.tensor([1e-4, 0.0, 0.0])
        return program(inputs)

    traced.programs["update"] = rounding
    np.random.seed(1)
    th.manual_seed(1)
    traced.update.expect(1)
    assert traced.train(is_compared=True)
    gradient = traced.groups[2].adopt().gradient
    assert gradient is not None and 1e-5 < abs(gradient.item()) < 2e-4


@pytest.mark.parametrize(
    ("algorithm", "env", "settings"),
    [
        (AsyncSAC, RandomWalk, {}),
        (AsyncTD3, RandomWalk, {}),
        # The target follows between updates.
        (AsyncDQN, StampedEnv, {"learning_starts": 40, "target_update_interval": 20, "tau": 0.5}),
        (AsyncDQN, StampedEnv, {"learning_starts": 40, "replay_buffer_class": PrioritizedReplayBuffer}),
    ],
    ids=["SAC", "TD3", "DQN", "DQN with priorities"],
)
def test_training_with_compiled_updates_is_that_with_eager_ones(
    algorithm: Any, env: Any, settings: dict[str, Any]
) -> None:
    weights = []
    for choice in ("eager", "compiled"):
        arguments: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "batch_size": 16, "seed": 2, "device": "cpu"}
        arguments |= settings
        with algorithm("MlpPolicy", env, n_samplers=2, backend="inline", learner=choice, **arguments) as model:
            model.learn(160)
            assert model._updater.is_compiled == (choice == "compiled")
            weights.append(model.policy.state_dict())
    for name, expected in weights[0].items():
        th.testing.assert_close(weights[1][name], expected, rtol=1e-3, atol=1e-5)


def test_a_seeded_training_becomes_compiled_at_the_same_update_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the program is on disk or not."""
    monkeypatch.setattr(updater, "WORTH_COMPILING", 30 * SACUpdate.eager_seconds)
    monkeypatch.setattr(updater, "NOMINAL_COMPILE_SECONDS", 10 * SACUpdate.eager_seconds)
    found = []
    for _ in range(2):
        model = AsyncSAC("MlpPolicy", RandomWalk, n_samplers=2, backend="inline", seed=2, device="cpu", batch_size=16)
        noted = NoteCompiled()
        model.learn(200, callback=noted)
        model.env.close()
        found.append((noted.are_compiled, model.policy.state_dict()))
    (first, weights), (second, others) = found
    assert first == second == [False] * 10 + [True] * (len(first) - 10) and len(first) > 30
    assert all(th.equal(value, others[name]) for name, value in weights.items())


class NoteCompiled(BaseCallback):
    """Notes which updates are compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.are_compiled: list[bool] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.model._n_updates > 0:
            self.are_compiled.append(self.model._updater.is_compiled)


def test_an_algorithm_with_an_update_of_its_own_is_not_compiled() -> None:
    class OwnTrain(SAC):
        def train(self, gradient_steps: int, batch_size: int = 64) -> None:
            self._n_updates += gradient_steps

    class AsyncOwnTrain(AsyncSAC, OwnTrain):
        pass

    with pytest.raises(ValueError, match="AsyncOwnTrain makes another update"):
        AsyncOwnTrain("MlpPolicy", Spaces, n_samplers=1, backend="inline", learner="compiled", buffer_size=100)
