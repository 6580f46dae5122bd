"""Training with two learners, all of it real: compiled halves, a gradient worker, and its death."""

import warnings
from typing import Any

import numpy as np
import pytest
from native_helpers import skip_without_compiler
from process_helpers import children_with_state, is_alive, kill
from stable_baselines3.common.callbacks import BaseCallback
from toy_envs import RandomWalk

from sb3_walle import AsyncPPO

SETTINGS: dict[str, Any] = {
    "n_samplers": 1,
    "backend": "inline",
    "mode": "sync",
    "n_steps": 64,
    "batch_size": 16,
    "n_epochs": 2,
    "seed": 3,
    "policy_kwargs": {"net_arch": [8]},
    "device": "cpu",
}
N_UPDATES = 4


class WorkersAtWork(BaseCallback):
    """
    Sees to it that the worker is ready before each update but the first, and kills it before one of them.

    :param kill_before: number of that update, from 0; ``None`` for none
    """

    def __init__(self, kill_before: int | None) -> None:
        super().__init__()
        self.kill_before = kill_before
        self.n_updates = 0
        self.restarts: list[int] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        workers = self.model._updater.sharing.workers
        workers.wait_until_ready()
        if self.n_updates == self.kill_before:
            for process in children_with_state(workers._server._process.pid):
                if is_alive(process):
                    kill(process)
        self.restarts.append(workers.n_restarts)
        self.n_updates += 1


def trained(n_learners: int, learner: str, callback: BaseCallback | None = None) -> tuple[list[np.ndarray], Any]:
    """Parameters after some updates, and the log."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_learners=2 on 1 CPUs")
        model = AsyncPPO("MlpPolicy", RandomWalk, n_learners=n_learners, learner=learner, **SETTINGS)
    with model:
        model.learn(N_UPDATES * SETTINGS["n_steps"], callback=callback, log_interval=None)
        model._record_collection()
        logged = dict(model.logger.name_to_value)
        if learner == "compiled":
            assert model._updater._not_shared is None and model._updater.is_compiled
        return [parameter.detach().numpy().copy() for parameter in model.policy.parameters()], logged


def test_two_learners_train_as_one_does_and_death_changes_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without_compiler()
    # What calls the kernels need not be fast.
    monkeypatch.setenv("AOT_INDUCTOR_COMPILE_WRAPPER_OPT_LEVEL", "O0")
    one, _ = trained(1, "eager")
    two, logged = trained(2, "compiled", WorkersAtWork(None))
    for expected, found in zip(one, two, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert logged["async/learner_restarts"] == 0 and logged["async/compiled_update"] == 1
    with pytest.warns(UserWarning, match=r"Gradient worker 1 was killed by signal 9 \(SIGKILL"):
        again, logged = trained(2, "compiled", callback := WorkersAtWork(1))
    assert callback.restarts == [0, 0, 1, 1] and logged["async/learner_restarts"] == 1
    for expected, found in zip(two, again, strict=True):
        np.testing.assert_array_equal(found, expected)
