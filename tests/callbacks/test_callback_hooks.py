"""Callbacks of one's own, of any shape, are called, and can do, what they are and can with SB3's PPO."""

from collections import deque
from copy import deepcopy
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import assert_same, assert_same_weights
from stable_baselines3 import PPO
from stable_baselines3.common import on_policy_algorithm
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    ConvertCallback,
    EventCallback,
    EveryNTimesteps,
)
from task_envs import Scaled
from training_pairs import MODES, N_ENVS, ROLLOUT, SETTINGS, Trace, assert_same_calls, logged_by, ours, sb3

from sb3_walle.backends.inline import InlineSamplers

HOOKS = ("_on_training_start", "_on_rollout_start", "_on_step", "_on_rollout_end", "_on_training_end")


class Passes(EventCallback):
    """Every other step is an event."""

    def _on_step(self) -> bool:
        return self._on_event() if self.n_calls % 2 else True


@pytest.mark.parametrize("mode", MODES)
def test_nested_callbacks_are_called_when_sb3_calls_them(mode: str) -> None:
    def nested(events: list[tuple]) -> list[BaseCallback]:
        inner = CallbackList([Trace("first", events), Passes(Trace("every other", events))])
        return [Trace("a", events), CallbackList([Trace("b", events), EveryNTimesteps(50, inner)]), Passes()]

    events = assert_same_calls(nested, mode)
    assert {event[0] for event in events} == {"a", "b", "first", "every other"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("stop_at", "depth"), [(1, 0), (19, 1), (20, 0), (21, 1), (40, 0)])
def test_returning_false_stops_where_it_stops_sb3(mode: str, stop_at: int, depth: int) -> None:
    def stopping(events: list[tuple]) -> list[BaseCallback]:
        stops: BaseCallback = Trace("stops", events, stop_at)
        for _ in range(depth):
            stops = CallbackList([Passes(CallbackList([Trace("before", events), stops])), Trace("after", events)])
        return [stops, Trace("last", events)]

    events = assert_same_calls(stopping, mode, total=10 * ROLLOUT)
    # A nested one is called at every other step.
    n_steps = stop_at if depth == 0 else 2 * stop_at - 1
    assert events[-1] == ("last", "training_end", n_steps, n_steps * N_ENVS, n_steps * N_ENVS)


@pytest.mark.parametrize("mode", MODES)
def test_what_other_hooks_return_is_ignored(mode: str) -> None:
    class ReturnsFalse(Trace):
        def _note(self, event: str) -> bool:  # type: ignore[override]
            super()._note(event)
            return False

        on_rollout_start = _on_rollout_start = lambda self: self._note("rollout_start")
        on_rollout_end = _on_rollout_end = lambda self: self._note("rollout_end")

    events = assert_same_calls(lambda events: ReturnsFalse("", events), mode)
    assert [event[3] for event in events if event[1] == "rollout_end"] == [60, 120, 180, 240]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("returned", "n_calls", "is_wrapped"),
    [(None, 1, True), (False, 1, False), (True, 40, True), (0, 1, True), ("yes", 40, False)],
)
def test_functions_are_callbacks(mode: str, returned: Any, n_calls: int, is_wrapped: bool) -> None:
    def make(events: list[tuple]) -> Any:
        def function(local_variables: dict[str, Any], global_variables: dict[str, Any]) -> Any:
            assert global_variables is vars(on_policy_algorithm)
            events.append((local_variables["n_steps"], local_variables["self"].num_timesteps))
            return returned

        return [Passes(), ConvertCallback(function)] if is_wrapped else function

    assert len(assert_same_calls(make, mode, total=2 * ROLLOUT)) == n_calls


class KeepsLocals(BaseCallback):
    """Keeps the local variables at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[dict[str, Any]] = []

    def _keep(self) -> bool:
        assert self.globals is vars(on_policy_algorithm)
        assert self.locals["self"] is self.model and self.training_env is self.model.get_env()
        assert self.locals.get("env", self.training_env) is self.training_env
        assert self.locals.get("rollout_buffer", self.model.rollout_buffer) is self.model.rollout_buffer
        assert self.logger is self.model.logger and self.training_env.num_envs == N_ENVS
        objects = ("self", "env", "rollout_buffer", "callback", "tb_log_name")
        # SB3 changes the rewards afterwards, when it bootstraps.
        self.kept.append(deepcopy({name: value for name, value in self.locals.items() if name not in objects}))
        return True

    _on_training_start = _on_rollout_start = _on_rollout_end = _on_training_end = _keep  # type: ignore[assignment]
    _on_step = _keep


def test_local_variables_are_sb3s_in_every_hook() -> None:
    """Except for what SB3's own loops leave behind: it depends on how they are written."""
    expected, found = KeepsLocals(), KeepsLocals()
    sb3().learn(4 * ROLLOUT, callback=expected)
    ours().learn(4 * ROLLOUT, callback=found)
    left_behind = ("idx", "done", "terminal_obs", "terminal_value")
    for hook, (theirs, mine) in enumerate(zip(expected.kept, found.kept, strict=True)):
        theirs = {name: value for name, value in theirs.items() if name not in left_behind}
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            if name != "rewards" or theirs["n_steps"] < SETTINGS["n_steps"]:
                assert_same(value, mine[name], f"{name} in call {hook}")
    assert len(found.kept) == 2 + 4 * 22


@pytest.mark.parametrize("mode", MODES)
def test_a_callback_sees_the_step_that_the_model_is_at(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a column continues with the steps of another environment, because one sampler lags behind."""

    class Compare(BaseCallback):
        n_jumps = 0

        def _on_step(self) -> bool:
            np.testing.assert_array_equal(self.model._last_obs, self.locals["obs_tensor"])
            if "last" in vars(self):
                self.n_jumps += int((self.last != self.model._last_obs).any())
            self.last = self.locals["new_obs"]
            return True

    receive = InlineSamplers.receive

    def sampler_0_last(backend: InlineSamplers, timeout: float | None = None) -> Any:
        backend._requests = deque(sorted(backend._requests, key=lambda request: request[0] == 0))
        return receive(backend, timeout)

    monkeypatch.setattr(InlineSamplers, "receive", sampler_0_last)
    compare = Compare()
    model = ours(mode).learn(4 * ROLLOUT, callback=compare)
    assert (compare.n_jumps > 0) == (mode == "free")
    np.testing.assert_array_equal(model._last_obs, compare.last)


class RaisesIn(BaseCallback):
    """
    Raises in the second call of a hook, or in the first of one that is called only once.

    :param hook: name of the hook
    :param error: what to raise
    """

    def __init__(self, hook: str, error: BaseException) -> None:
        super().__init__()
        self.calls_left = 1 if "training" in hook else 2
        self.error = error
        setattr(self, hook, self._count)

    def _count(self) -> bool:
        self.calls_left -= 1
        if self.calls_left == 0:
            raise self.error
        return True

    def _on_step(self) -> bool:
        return True


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("hook", HOOKS)
def test_an_exception_arrives_as_it_was_raised(mode: str, hook: str) -> None:
    model = ours(mode)
    for nest in (lambda callback: callback, lambda callback: CallbackList([CallbackList([callback])])):
        for error in (StopIteration("enough"), GeneratorExit("enough"), KeyboardInterrupt()):
            with pytest.raises(type(error)) as caught:
                model.learn(4 * ROLLOUT, callback=nest(RaisesIn(hook, error)))
            assert caught.value is error and error.__cause__ is None and error.__context__ is None
        trace: list[tuple] = []
        model.learn(2 * ROLLOUT, callback=Trace("", trace))
        assert len(trace) == 2 + 2 * 22 and model.num_timesteps == 2 * ROLLOUT


@pytest.mark.parametrize("mode", MODES)
def test_what_callbacks_record_is_logged_where_sb3_logs_it(mode: str) -> None:
    class Records(BaseCallback):
        def _on_step(self) -> bool:
            self.logger.record("mine/step", self.n_calls)
            self.logger.record_mean("mine/mean", self.n_calls)
            if self.n_calls == 30:
                self.logger.dump(self.num_timesteps)
            return True

        def _on_rollout_end(self) -> None:
            self.logger.record("mine/rollout_end", self.n_calls)

    logs = []
    for make in (sb3, lambda: ours(mode)):
        model = make()
        logs.append(logged_by(model))
        model.learn(4 * ROLLOUT, callback=Records(), log_interval=2)
    names = ("step", "mine/step", "mine/mean", "mine/rollout_end")
    values = [[[line.get(name) for name in names] for line in log] for log in logs]
    assert values[0] == values[1] and values[1][0] == [90, 30, 15.5, 20]


@pytest.mark.parametrize("mode", MODES)
def test_a_callback_can_save_the_model(mode: str, tmp_path: Path) -> None:
    class Saves(BaseCallback):
        def _on_step(self) -> bool:
            if self.n_calls % 25 == 0:
                self.model.save(folder / str(self.num_timesteps))
            return True

    for folder, make in ((tmp_path / "sb3", sb3), (tmp_path / "ours", lambda: ours(mode))):
        folder.mkdir()
        make().learn(4 * ROLLOUT, callback=Saves())
    for name in ("75", "150", "225"):
        saved = PPO.load(tmp_path / "ours" / name)
        assert saved.num_timesteps == int(name)
        if mode == "sync":
            assert_same_weights(PPO.load(tmp_path / "sb3" / name), saved)


class ChangesTheTask(BaseCallback):
    """
    Makes the task harder with every rollout.

    :param through: name of the method of ``VecEnv`` to do it with
    """

    def __init__(self, through: str) -> None:
        super().__init__()
        self.through = through
        self.rewards: list[np.ndarray] = []

    def _on_step(self) -> bool:
        self.rewards.append(self.locals["rewards"])
        return True

    def _on_rollout_end(self) -> None:
        env, scale = self.training_env, self.n_calls // self.model.n_steps
        if self.through == "set_attr":
            env.set_attr("scale", scale)
        else:
            assert env.env_method("set_scale", scale) == [scale - 1] * N_ENVS
        assert env.get_attr("scale") == [scale] * N_ENVS


@pytest.mark.parametrize(
    ("mode", "through", "backend"),
    [*product(MODES, ("set_attr", "env_method"), ("inline",)), ("free", "set_attr", "process")],
)
def test_a_callback_can_change_the_environments(mode: str, through: str, backend: str) -> None:
    changes = ChangesTheTask(through)
    model = ours(mode, Scaled, backend=backend, actor="numpy").learn(5 * ROLLOUT, callback=changes)
    model.get_env().close()
    scales = np.stack(changes.rewards).reshape(5, -1)
    rollouts = np.arange(5)[:, None]
    assert (scales <= rollouts).all()
    # A sampler may have collected a rollout more before it heard of the change.
    longest_delay = 0 if mode == "sync" else 1
    assert (scales >= rollouts - longest_delay).all()


def test_what_a_callback_keeps_stays_as_it_was() -> None:
    class Keeps(BaseCallback):
        def _on_step(self) -> bool:
            now = {name: self.locals[name] for name in ("new_obs", "rewards", "dones", "actions", "clipped_actions")}
            kept.append(now)
            copies.append({name: array.copy() for name, array in now.items()})
            return True

    kept: list[dict[str, np.ndarray]] = []
    copies: list[dict[str, np.ndarray]] = []
    model = ours("pipelined").learn(5 * ROLLOUT, callback=Keeps())
    model.learn(ROLLOUT)
    assert_same(copies, kept, "what was kept")
