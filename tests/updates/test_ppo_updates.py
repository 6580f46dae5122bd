"""
Which update a training makes, and when: what is traced and compiled, what the user is told, and what happens to it when
something changes.
"""

import copy
import gc
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch as th
from lifecycle_helpers import inline_envs, same, weights_of
from native_helpers import FakeBuild, FakeProgram, cart_pole, compile_processes, slow_compiler
from process_helpers import wait_until
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.ppo import PPO

from sb3_walle import AsyncPPO
from sb3_walle.algorithm import experience_source
from sb3_walle.updates import compiled_update, program_compiler, updater
from sb3_walle.updates.native.store import DIRECTORY_VARIABLE, ProgramStore
from sb3_walle.updates.ppo_update import PPOUpdate
from sb3_walle.updates.updater import Updater

N_STEPS, N_ENVS = 16, 2
ROLLOUT = N_STEPS * N_ENVS
BATCH_SIZE, N_EPOCHS = 16, 2
MINIBATCHES = N_EPOCHS * ROLLOUT // BATCH_SIZE
SETTINGS: dict[str, Any] = {
    "n_samplers": N_ENVS,
    "backend": "inline",
    "n_steps": N_STEPS,
    "batch_size": BATCH_SIZE,
    "n_epochs": N_EPOCHS,
    "policy_kwargs": {"net_arch": [8]},
    "device": "cpu",
    "verbose": 1,
}
NEVER = float("inf")


def model(learner: str = "auto", kind: type[AsyncPPO] = AsyncPPO, **settings: Any) -> AsyncPPO:
    return kind("MlpPolicy", "CartPole-v1", learner=learner, **{**SETTINGS, **settings})


def updates(learning: AsyncPPO) -> Updater:
    assert learning._updater is not None
    return learning._updater


def is_compiled(learning: AsyncPPO) -> bool:
    """Whether the last update was a compiled one."""
    return learning._updater is not None and learning._updater.is_compiled


def lines(captured: pytest.CaptureFixture[str], beginning: str) -> list[str]:
    """What was printed since the last time, of the lines that begin so."""
    return [line for line in captured.readouterr().out.splitlines() if line.startswith(beginning)]


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[FakeBuild]:
    """One that compiles nothing, at once or when it is told to. Every test begins with nothing on disk."""
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "programs"))
    monkeypatch.setattr(program_compiler, "Build", FakeBuild)
    monkeypatch.setattr(program_compiler, "NativeProgram", FakeProgram)
    monkeypatch.setattr(FakeBuild, "begun", [])
    return FakeBuild


@pytest.fixture(autouse=True)
def traces(monkeypatch: pytest.MonkeyPatch) -> list[type[PPO]]:
    """What was traced. Not the algorithms themselves: they would not be deleted."""
    found: list[type[PPO]] = []
    trace = updater.trace_update

    def noted(update: Any, groups: Any) -> Any:
        found.append(type(update.algorithm))
        return trace(update, groups)

    monkeypatch.setattr(updater, "trace_update", noted)
    return found


def set_worth(monkeypatch: pytest.MonkeyPatch, tracing: float, compiling: float) -> None:
    """From how many seconds of updates on it pays to trace and to compile."""
    monkeypatch.setattr(updater, "WORTH_TRACING", tracing)
    monkeypatch.setattr(updater, "WORTH_COMPILING", compiling)


@pytest.fixture
def pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is worth compiling."""
    set_worth(monkeypatch, 0.0, 0.0)


class AtRollout(BaseCallback):
    """
    Does something at the end of a rollout, and notes which updates are compiled.

    :param number: number of the rollout, from 1
    :param action: what to do
    """

    def __init__(self, number: int = 0, action: Callable[[], Any] = lambda: None) -> None:
        super().__init__()
        self._number, self._action = number, action
        self._n_rollouts = 0
        self.are_compiled: list[bool] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self._n_rollouts:
            self._note()

    def _on_rollout_end(self) -> None:
        self._n_rollouts += 1
        if self._n_rollouts == self._number:
            self._action()

    def _on_training_end(self) -> None:
        self._note()

    def _note(self) -> None:
        assert isinstance(self.model, AsyncPPO)
        self.are_compiled.append(is_compiled(self.model))


class StopAfter(BaseCallback):
    """
    Ends the training after some updates.

    :param n_updates: number of updates
    :param action: what to do before that
    """

    def __init__(self, n_updates: int, action: Callable[[], Any]) -> None:
        super().__init__()
        self._n_updates, self._action = n_updates, action

    def _on_step(self) -> bool:
        assert isinstance(self.model, AsyncPPO)
        if self.model.policy_version < self._n_updates:
            return True
        self._action()
        return False


# Eagerly


def test_eager_updates_need_no_trace(
    pays: None, traces: list[type[PPO]], compiler: type[FakeBuild], capsys: pytest.CaptureFixture[str]
) -> None:
    learning = model("eager").learn(3 * ROLLOUT)
    assert traces == compiler.begun == [] and not is_compiled(learning)
    assert lines(capsys, "Updates") == []


@pytest.mark.parametrize("seed", [None, 0])
def test_few_updates_are_not_worth_a_trace(
    seed: int | None, traces: list[type[PPO]], compiler: type[FakeBuild], capsys: pytest.CaptureFixture[str]
) -> None:
    learning = model(seed=seed).learn(3 * ROLLOUT)
    assert traces == compiler.begun == [] and not is_compiled(learning)
    assert lines(capsys, "Updates") == []


def test_subclass_with_a_train_of_its_own_stays_eager(pays: None, traces: list[type[PPO]]) -> None:
    class OwnTrain(PPO):
        n_own = 0

        def train(self) -> None:
            self.n_own += 1
            super().train()

    class AsyncOwnTrain(AsyncPPO, OwnTrain):
        pass

    learning = model(kind=AsyncOwnTrain).learn(2 * ROLLOUT)
    assert isinstance(learning, AsyncOwnTrain) and learning.n_own == 2
    assert traces == [] and not is_compiled(learning)
    with pytest.raises(ValueError, match="AsyncOwnTrain makes another update"):
        model("compiled", AsyncOwnTrain)


def test_subclass_that_only_adds_something_is_compiled(pays: None, compiler: type[FakeBuild]) -> None:
    class Counting(AsyncPPO):
        n_own = 0

        def train(self) -> None:
            self.n_own += 1
            super().train()

    learning = model("compiled", Counting).learn(2 * ROLLOUT)
    assert isinstance(learning, Counting) and learning.n_own == 2 and is_compiled(learning)


@pytest.mark.parametrize("learner", ["Compiled", "", None, "native"])
def test_unknown_learner_is_an_error(learner: Any) -> None:
    message = re.escape(f"learner must be one of ('auto', 'compiled', 'eager'), got {learner!r}")
    with pytest.raises(ValueError, match=message):
        model(learner)


# Compiled from the beginning


def test_compiled_waits_before_the_first_update_and_says_so(
    compiler: type[FakeBuild], traces: list[type[PPO]], capsys: pytest.CaptureFixture[str]
) -> None:
    noted = AtRollout()
    model("compiled").learn(3 * ROLLOUT, callback=noted)
    assert noted.are_compiled == [True] * 3
    assert len(traces) == len(compiler.begun) == 1 and compiler.begun[0].was_waited_for
    output = capsys.readouterr().out
    assert output.count("Waiting for the update to be compiled, which takes some seconds, the first time only\n") == 1
    (announcement,) = re.findall(r"^Updates are .*", output, re.MULTILINE)
    assert re.fullmatch(
        r"Updates are compiled from number 1 on \(compiled within 12 s\): [\d,]+ us a minibatch", announcement
    )


def test_second_model_finds_the_program_on_disk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model("compiled").learn(ROLLOUT)
    lines(capsys, "")
    monkeypatch.setattr(program_compiler, "Build", lambda *_: pytest.fail("it is compiled again"))
    learning = model("compiled").learn(2 * ROLLOUT)
    assert is_compiled(learning)
    output = capsys.readouterr().out
    assert "Updates are compiled from number 1 on (found on disk): " in output and "Waiting" not in output


def test_second_learn_neither_traces_nor_compiles_nor_announces_again(
    traces: list[type[PPO]], compiler: type[FakeBuild], capsys: pytest.CaptureFixture[str]
) -> None:
    learning = model("compiled").learn(2 * ROLLOUT)
    lines(capsys, "")
    learning.learn(2 * ROLLOUT)
    assert is_compiled(learning) and len(traces) == len(compiler.begun) == 1
    assert lines(capsys, "Updates") == []


def test_quiet_model_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert is_compiled(model("compiled", verbose=0).learn(ROLLOUT))
    assert capsys.readouterr().out == ""


# Compiled where it pays


def test_auto_begins_eagerly_and_switches_once_the_program_is_there(
    pays: None, compiler: type[FakeBuild], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    noted = AtRollout(3, lambda: monkeypatch.setattr(compiler, "are_done", True))
    model().learn(5 * ROLLOUT, callback=noted)
    assert noted.are_compiled == [False, False, True, True, True]
    assert not compiler.begun[0].was_waited_for
    output = capsys.readouterr().out
    assert "Waiting" not in output
    (announcement,) = re.findall(r"^Updates are .*", output, re.MULTILINE)
    pattern = (
        r"Updates are compiled from number 3 on \(compiled within 12 s\): [\d,]+ us a minibatch "
        r"instead of [\d,]+, \d+\.\d times as fast"
    )
    assert re.fullmatch(pattern, announcement)


def test_an_eager_update_leaves_a_core_to_the_compiler(
    pays: None, compiler: type[FakeBuild], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experience_source, "available_cpus", lambda: 3)
    threads: list[int] = []
    update_eagerly = AsyncPPO._update_eagerly

    def noting(self: AsyncPPO) -> None:
        threads.append(th.get_num_threads())
        update_eagerly(self)

    monkeypatch.setattr(AsyncPPO, "_update_eagerly", noting)
    n_before = th.get_num_threads()
    th.set_num_threads(3)
    try:
        model().learn(2 * ROLLOUT)
        assert compiler.begun and threads == [2, 2]
        model("eager").learn(ROLLOUT)
        assert threads == [2, 2, 3] and th.get_num_threads() == 3
    finally:
        th.set_num_threads(n_before)


def test_auto_says_what_it_gains_without_what_tracing_and_comparing_take(
    pays: None, compiler: type[FakeBuild], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a clock that a test sets."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(updater, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def taking(seconds: float, function: Callable[..., Any]) -> Callable[..., Any]:
        def slower(*arguments: Any) -> Any:
            clock.now += seconds
            return function(*arguments)

        return slower

    # An update has 4 minibatches.
    monkeypatch.setattr(AsyncPPO, "_update_eagerly", taking(0.008, AsyncPPO._update_eagerly))
    monkeypatch.setattr(FakeProgram, "__call__", taking(0.0005, FakeProgram.__call__))
    monkeypatch.setattr(updater, "trace_update", taking(1000.0, updater.trace_update))
    monkeypatch.setattr(compiled_update, "agrees", taking(1000.0, compiled_update.agrees))
    # Traced during the second update, as eager ones of a millisecond each were already made.
    set_worth(monkeypatch, 0.001, 0.001)
    monkeypatch.setattr(PPOUpdate, "eager_seconds", 0.0)
    noted = AtRollout(3, lambda: monkeypatch.setattr(compiler, "are_done", True))
    model().learn(4 * ROLLOUT, callback=noted)
    assert noted.are_compiled == [False, False, True, True] and clock.now > 2000
    (announcement,) = lines(capsys, "Updates are compiled")
    assert announcement.endswith(": 500 us a minibatch instead of 2,000, 4.0 times as fast")


def test_auto_takes_what_is_on_disk_where_only_that_pays_and_does_not_look_where_nothing_is(
    traces: list[type[PPO]], compiler: type[FakeBuild], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_worth(monkeypatch, 0.0, NEVER)
    learning = model().learn(3 * ROLLOUT)
    assert traces == [] and compiler.begun == [] and not is_compiled(learning)
    model("compiled").learn(ROLLOUT)
    noted = AtRollout()
    model().learn(2 * ROLLOUT, callback=noted)
    assert noted.are_compiled == [True, True] and len(compiler.begun) == 1


def test_auto_takes_into_account_what_updates_have_taken_already(
    compiler: type[FakeBuild], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program may call learn() again and again, each time for a little."""
    clock = SimpleNamespace(now=0.0)

    def perf_counter() -> float:
        # Each eager update is measured by two readings, so each takes a second.
        clock.now += 1.0
        return clock.now

    monkeypatch.setattr(updater, "time", SimpleNamespace(perf_counter=perf_counter))
    set_worth(monkeypatch, 4.0, 4.0)
    learning = model()
    for _ in range(4):
        learning.learn(ROLLOUT, reset_num_timesteps=False)
        assert compiler.begun == []
    learning.learn(ROLLOUT, reset_num_timesteps=False)
    assert len(compiler.begun) == 1


@pytest.fixture
def third_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a seed, two updates are eager while the compiler is at work, and three are worth its work."""
    of_each = PPOUpdate.eager_seconds * MINIBATCHES
    set_worth(monkeypatch, NEVER, 2.5 * of_each)
    monkeypatch.setattr(updater, "NOMINAL_COMPILE_SECONDS", 1.5 * of_each)


THIRD = [False, False, True, True]


def seeded(n_updates: int = len(THIRD), learning: AsyncPPO | None = None, **more: Any) -> tuple[list[bool], Any]:
    """Which updates of a seeded training are compiled, and what it leads to."""
    noted, learning = AtRollout(), model(seed=3) if learning is None else learning
    learning.learn(n_updates * ROLLOUT, callback=noted, **more)
    return noted.are_compiled, weights_of(learning)


def test_seeded_auto_switches_at_the_same_update_however_long_the_compiler_takes(
    third_is_compiled: None, compiler: type[FakeBuild], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = []
    for number, are_done in enumerate((False, True)):
        monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / str(number)))
        monkeypatch.setattr(compiler, "are_done", are_done)
        are_compiled, weights = seeded()
        assert are_compiled == THIRD
        found.append(weights)
    assert [build.was_waited_for for build in compiler.begun] == [True, False]
    assert same(*found)


def test_seeded_auto_does_not_depend_on_what_is_on_disk(
    third_is_compiled: None, compiler: type[FakeBuild], traces: list[type[PPO]]
) -> None:
    (first, before), (second, after) = seeded(), seeded()
    assert first == second == THIRD and same(before, after) and len(compiler.begun) == 1
    # Too few for a compiler: what is there already must not matter.
    assert seeded(2)[0] == [False, False] and len(traces) == 2


def test_seeded_auto_says_what_it_waits_for(third_is_compiled: None, capsys: pytest.CaptureFixture[str]) -> None:
    seeded()
    assert lines(capsys, "Waiting") == [
        "Waiting for the update to be compiled, which takes some seconds: with a seed, updates are compiled from "
        "number 3 on in every run"
    ]
    # The program is on disk.
    seeded()
    assert lines(capsys, "Waiting") == []


def test_seeded_auto_compiles_nothing_where_no_update_would_use_it(
    monkeypatch: pytest.MonkeyPatch, traces: list[type[PPO]]
) -> None:
    of_each = PPOUpdate.eager_seconds * MINIBATCHES
    set_worth(monkeypatch, NEVER, 0.5 * of_each)
    monkeypatch.setattr(updater, "NOMINAL_COMPILE_SECONDS", of_each)
    assert seeded(1)[0] == [False] and traces == []


def test_seeded_auto_stays_compiled_in_later_calls_of_learn(third_is_compiled: None, compiler: type[FakeBuild]) -> None:
    learning = model(seed=3)
    assert seeded(3, learning)[0] == [False, False, True]
    assert seeded(1, learning)[0] == [True]
    assert seeded(2, learning, reset_num_timesteps=False)[0] == [True] * 2
    assert len(compiler.begun) == 1


@pytest.mark.parametrize("are_done", [False, True])
def test_seeded_auto_counts_the_updates_of_all_calls_of_learn(
    are_done: bool, third_is_compiled: None, compiler: type[FakeBuild], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three are worth compiling, during another two the compiler is at work."""
    monkeypatch.setattr(compiler, "are_done", are_done)
    learning = model(seed=3)
    are_compiled = [seeded(1, learning, reset_num_timesteps=False)[0] for _ in range(7)]
    assert are_compiled == [[False]] * 5 + [[True]] * 2


def test_seeded_auto_counts_anew_when_another_program_is_needed(
    third_is_compiled: None, compiler: type[FakeBuild]
) -> None:
    learning = model(seed=3)
    assert seeded(3, learning)[0] == [False, False, True]
    learning.batch_size = 8
    # Updates of twice as many minibatches, of which one takes as long as the compiler.
    assert seeded(3, learning)[0] == [False, True, True]
    assert len(compiler.begun) == 2


# What cannot be compiled


class Dropout(FlattenExtractor):
    """Features some of which are missing, by chance."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return th.nn.functional.dropout(super().forward(observations), training=self.training)


RANDOM: dict[str, Any] = {"policy_kwargs": {"net_arch": [8], "features_extractor_class": Dropout}}


@pytest.mark.parametrize("seed", [None, 0])
def test_policy_that_cannot_be_traced_trains_eagerly_and_says_so_once(
    seed: int | None, pays: None, compiler: type[FakeBuild], capsys: pytest.CaptureFixture[str]
) -> None:
    learning = model(**RANDOM, seed=seed)
    before, noted = weights_of(learning), AtRollout()
    learning.learn(3 * ROLLOUT, callback=noted)
    assert noted.are_compiled == [False] * 3 and compiler.begun == []
    assert not same(before, weights_of(learning))
    (line,) = lines(capsys, "Updates are")
    assert line.startswith("Updates are not compiled: the policy draws random numbers (aten.")


def test_a_quiet_model_warns_once_that_updates_are_not_compiled(pays: None) -> None:
    learning = model(verbose=0, policy_kwargs={"optimizer_class": th.optim.SGD})
    with pytest.warns(UserWarning, match="Updates are not compiled: the optimizer is SGD") as warned:
        learning.learn(3 * ROLLOUT)
    assert len(warned) == 1


def test_compiled_is_refused_for_a_policy_that_cannot_be_traced() -> None:
    message = (
        r"^learner='compiled' is impossible: the policy draws random numbers \(aten\..*\)\. "
        r"Use learner='auto' or 'eager'\.$"
    )
    with pytest.raises(ValueError, match=message):
        model("compiled", **RANDOM)


def test_compiled_is_refused_for_an_optimizer_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="learner='compiled' is impossible: the optimizer is SGD, not Adam or AdamW"):
        model("compiled", policy_kwargs={"net_arch": [8], "optimizer_class": th.optim.SGD, "optimizer_kwargs": {}})


def test_compiled_is_refused_without_a_place_for_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"learner='compiled' is impossible: nothing can be kept in '.*file'"):
        model("compiled")


@pytest.mark.parametrize("learner", ["auto", "compiled"])
def test_training_continues_eagerly_when_the_compiler_fails(
    learner: str,
    pays: None,
    compiler: type[FakeBuild],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(compiler, "reason", "the compiler failed: no space left on device")
    monkeypatch.setattr(compiler, "are_done", True)
    noted = AtRollout()
    model(learner).learn(3 * ROLLOUT, callback=noted)
    assert noted.are_compiled == [False] * 3
    # To try again would take as long, and fail again.
    assert len(compiler.begun) == 1 and compiler.begun[0].is_closed
    assert lines(capsys, "Updates") == ["Updates are not compiled: the compiler failed: no space left on device"]


def test_program_that_computes_something_else_is_given_up_before_it_does_harm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(program: FakeProgram, inputs: list[th.Tensor]) -> th.Tensor:
        statistics = program._graph(*inputs)[0]
        inputs[0].add_(1.0)
        return statistics + 0.1

    expected = weights_of(model("eager", seed=0).learn(2 * ROLLOUT))
    monkeypatch.setattr(FakeProgram, "__call__", wrong)
    learning = model("compiled", seed=0).learn(2 * ROLLOUT)
    assert not is_compiled(learning) and same(weights_of(learning), expected)
    assert lines(capsys, "Updates") == [
        "Updates are not compiled: the policy computes something else than it did when its update was compiled"
    ]


def test_updates_of_few_minibatches_are_compared_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doing one of four minibatches in both ways would cost more than many a compiled update gains."""
    monkeypatch.setattr(PPOUpdate, "minibatches_per_comparison", 3 * MINIBATCHES)
    compared: list[int] = []
    agrees = compiled_update.agrees

    def noted(*arguments: Any) -> bool:
        compared.append(learning.policy_version + 1)
        return agrees(*arguments)

    monkeypatch.setattr(compiled_update, "agrees", noted)
    learning = model("compiled")
    learning.learn(8 * ROLLOUT)
    assert compared == [1, 4, 7]
    # What has been traced anew has never been compared.
    learning.batch_size = 8
    learning.learn(2 * ROLLOUT, reset_num_timesteps=False)
    assert compared == [1, 4, 7, 9]


# What changes between two calls of learn()


def freeze(learning: AsyncPPO) -> None:
    learning.policy.action_net.weight.requires_grad_(False)


def change_batch_size(learning: AsyncPPO) -> None:
    learning.batch_size = 8


def replace_optimizer(learning: AsyncPPO) -> None:
    learning.policy.optimizer = th.optim.Adam(learning.policy.parameters(), lr=1e-3, eps=1e-3)


def clip_values(learning: AsyncPPO) -> None:
    learning.clip_range_vf = lambda _: 0.2


def add_environments(learning: AsyncPPO) -> None:
    learning.set_env(inline_envs(3, cart_pole))
    # More than there are in a rollout.
    learning.batch_size = 64


@pytest.mark.parametrize("change", [freeze, change_batch_size, replace_optimizer, clip_values])
def test_what_has_changed_is_compiled_anew(
    change: Callable[[AsyncPPO], None], traces: list[type[PPO]], compiler: type[FakeBuild]
) -> None:
    learning = model("compiled").learn(ROLLOUT)
    change(learning)
    learning.learn(ROLLOUT)
    assert is_compiled(learning)
    assert len(traces) == 2 and len({build.blueprint.key for build in compiler.begun}) == 2


@pytest.mark.parametrize("settings", [{"learner": "compiled"}, {"seed": 0}, {}])
def test_frozen_parameter_stays_as_it_is(
    settings: dict[str, Any], compiler: type[FakeBuild], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "are_done", True)
    # Only the first call of learn() is so long that it pays.
    set_worth(monkeypatch, 0.01, 0.01)
    monkeypatch.setattr(updater, "NOMINAL_COMPILE_SECONDS", 0.001)
    learning = model(**settings).learn(3 * ROLLOUT)
    assert is_compiled(learning)
    freeze(learning)
    before = weights_of(learning)
    learning.learn(ROLLOUT)
    after = weights_of(learning)
    assert th.equal(before["action_net.weight"], after["action_net.weight"])
    assert not th.equal(before["action_net.bias"], after["action_net.bias"])


def test_numbers_may_change_at_any_time(traces: list[type[PPO]], compiler: type[FakeBuild]) -> None:
    found = []
    for learner in ("eager", "compiled"):
        learning = model(learner, seed=0).learn(ROLLOUT)
        learning.ent_coef, learning.vf_coef, learning.max_grad_norm, learning.n_epochs = 0.1, 0.7, 0.1, 3
        learning.clip_range = lambda _: 0.05
        learning.lr_schedule = lambda _: 1e-2
        found.append(weights_of(learning.learn(2 * ROLLOUT)))
    th.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-5)
    assert len(traces) == len(compiler.begun) == 1


def test_longer_rollouts_need_the_same_program(traces: list[type[PPO]], compiler: type[FakeBuild]) -> None:
    model("compiled").learn(ROLLOUT)
    assert is_compiled(model("compiled", n_steps=2 * N_STEPS).learn(2 * ROLLOUT))
    assert len(traces) == 2 and len(compiler.begun) == 1


def test_hook_is_respected_as_long_as_it_is_there(
    compiler: type[FakeBuild], capsys: pytest.CaptureFixture[str]
) -> None:
    learning = model("compiled").learn(ROLLOUT)
    lines(capsys, "")
    calls: list[int] = []
    hook = learning.policy.value_net.register_forward_hook(lambda *_: calls.append(learning._n_updates))
    learning.learn(2 * ROLLOUT)
    assert not is_compiled(learning) and len(set(calls)) > 1
    message = "there are hooks on modules or parameters of the policy, or on its optimizer"
    assert lines(capsys, "Updates") == [f"Updates are not compiled: {message}"]
    hook.remove()
    assert is_compiled(learning.learn(ROLLOUT)) and len(compiler.begun) == 1


def test_optimizer_that_is_not_known_is_respected_as_long_as_it_is_there(
    compiler: type[FakeBuild], capsys: pytest.CaptureFixture[str]
) -> None:
    learning = model("compiled").learn(ROLLOUT)
    known = learning.policy.optimizer
    learning.policy.optimizer = th.optim.SGD(learning.policy.parameters(), lr=1e-3)
    learning.learn(2 * ROLLOUT)
    assert not is_compiled(learning)
    assert lines(capsys, "Updates are not") == ["Updates are not compiled: the optimizer is SGD, not Adam or AdamW"]
    learning.policy.optimizer = known
    assert is_compiled(learning.learn(ROLLOUT)) and len(compiler.begun) == 1


def test_build_that_is_no_longer_needed_ends(pays: None, compiler: type[FakeBuild]) -> None:
    learning = model()
    learning.learn(2 * ROLLOUT, callback=AtRollout(1, lambda: change_batch_size(learning)))
    assert [build.is_closed for build in compiler.begun] == [True, False]


# Copies


COPIERS: dict[str, Callable[[AsyncPPO, Path], AsyncPPO]] = {
    "save": lambda learning, path: AsyncPPO.load(learning.save(path) or path),  # type: ignore[func-returns-value]
    "pickle": lambda learning, path: pickle.loads(pickle.dumps(learning)),
    "deepcopy": lambda learning, path: copy.deepcopy(learning),
}


@pytest.mark.parametrize("copier", COPIERS)
@pytest.mark.parametrize("learner", ["compiled", "eager", "auto"])
def test_copy_keeps_the_learner_and_not_the_program(
    learner: str, copier: str, traces: list[type[PPO]], compiler: type[FakeBuild], tmp_path: Path
) -> None:
    learning = model(learner).learn(ROLLOUT)
    twin = COPIERS[copier](learning, tmp_path / "model.zip")
    assert twin.learner == learner and (twin._updater is None or twin._updater is not learning._updater)
    twin.set_env(inline_envs(N_ENVS, cart_pole))
    before, n_traces = weights_of(learning), len(traces)
    twin.learn(ROLLOUT)
    # It has a trace of its own, because the policy is another one. The program is on disk.
    assert is_compiled(twin) == is_compiled(learning) == (learner == "compiled")
    assert len(traces) <= n_traces + 1 and len(compiler.begun) == (learner == "compiled")
    assert same(before, weights_of(learning)) and not same(before, weights_of(twin))


def test_loaded_model_may_have_another_learner(tmp_path: Path) -> None:
    model("eager").learn(ROLLOUT).save(tmp_path / "model")
    learning = AsyncPPO.load(tmp_path / "model", inline_envs(N_ENVS, cart_pole), learner="compiled")
    assert is_compiled(learning.learn(ROLLOUT))
    with pytest.raises(ValueError, match="learner must be one of"):
        AsyncPPO.load(tmp_path / "model", learner="fast")


# The end


@pytest.fixture
def building(pays: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], AsyncPPO]]:
    """Makes a model whose program a real process compiles, which would take for ever."""
    from sb3_walle.updates.native.build import Build

    monkeypatch.setattr(program_compiler, "Build", Build)
    monkeypatch.setenv("CXX", str(slow_compiler(tmp_path)))
    before = compile_processes()

    def build() -> AsyncPPO:
        learning = model().learn(ROLLOUT)
        # For a moment, a new process has no command line that tells what it is.
        wait_until(lambda: len(compile_processes() - before) == 1, "the compiler has been started")
        assert not is_compiled(learning)
        return learning

    yield build
    assert compile_processes() == before


def test_end_of_a_with_block_ends_a_build(building: Callable[[], AsyncPPO]) -> None:
    with building() as learning:
        pass
    assert compile_processes() == set()
    assert learning.num_timesteps == ROLLOUT


def test_deleted_model_ends_a_build(building: Callable[[], AsyncPPO]) -> None:
    learning = building()
    del learning
    gc.collect()
    assert compile_processes() == set()


@pytest.mark.parametrize("seed", [None, 0])
def test_learn_that_ends_early_ends_a_build(seed: int | None, building: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And has not waited for it, seeded or not."""
    monkeypatch.setattr(updater, "NOMINAL_COMPILE_SECONDS", 2 * PPOUpdate.eager_seconds * MINIBATCHES)
    found: list[set[int]] = []
    stop = StopAfter(2, lambda: found.append(compile_processes()))
    learning = model(seed=seed).learn(9 * ROLLOUT, callback=stop)
    assert learning.policy_version == 2 and len(found[0]) == 1
    assert compile_processes() == set()


def test_build_continues_between_two_calls_of_learn(building: Callable[[], AsyncPPO]) -> None:
    with building() as learning:
        begun = compile_processes()
        learning.learn(ROLLOUT)
        assert compile_processes() == begun


def test_model_may_be_used_again_after_a_with_block(compiler: type[FakeBuild]) -> None:
    with model("compiled") as learning:
        learning.learn(ROLLOUT)
    learning.set_env(inline_envs(N_ENVS, cart_pole))
    assert is_compiled(learning.learn(ROLLOUT)) and len(compiler.begun) == 1


def test_too_many_programs_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made_room: list[ProgramStore] = []
    monkeypatch.setattr(ProgramStore, "make_room", lambda store: made_room.append(store))
    model("compiled").learn(ROLLOUT)
    assert len(made_room) == 1
