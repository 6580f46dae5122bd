"""The argument n_learners: what it makes, and what it refuses."""

import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch as th
from toy_envs import RandomWalk

from sb3_walle import AsyncA2C, AsyncPPO, AsyncSAC
from sb3_walle.algorithm import several_learners
from sb3_walle.algorithm.several_learners import advice_on_cpus, check_shareable

SETTINGS: dict[str, Any] = {"n_samplers": 1, "device": "cpu", "backend": "inline", "mode": "sync"}


def made(kind: Any = AsyncPPO, **settings: Any) -> Any:
    with warnings.catch_warnings():
        # More learners than this machine has CPUs.
        warnings.filterwarnings("ignore", "n_learners=.* CPUs")
        return kind("MlpPolicy", RandomWalk, **{**SETTINGS, **settings})


@pytest.mark.parametrize("n_learners", [0, -1])
def test_there_is_at_least_one(n_learners: int) -> None:
    with pytest.raises(ValueError, match="n_learners must be at least 1"):
        made(n_learners=n_learners)


@pytest.mark.parametrize("n_learners", [2.0, True, "2", None])
def test_it_is_a_number(n_learners: Any) -> None:
    with pytest.raises(TypeError, match="n_learners must be an integer"):
        made(n_learners=n_learners)


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        (AsyncPPO, {"learner": "eager"}, "learner='eager' makes none"),
        (AsyncA2C, {}, "AsyncA2C has none"),
        (AsyncPPO, {"objective": "kl_penalty"}, "objective='kl_penalty' has no compiled update"),
    ],
    ids=["eager", "A2C", "kl_penalty"],
)
def test_what_has_nothing_to_share_refuses_several(kind: Any, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=rf"{reason}.*n_learners=1"):
        made(kind, n_learners=2, **settings)
    made(kind, n_learners=1, **settings)


def test_a_policy_on_another_device_refuses_several() -> None:
    model = made(AsyncSAC)
    model.device = th.device("cuda:1")
    with pytest.raises(ValueError, match=r"the policy is on 'cuda:1'.*n_learners=1, or device='cpu'"):
        check_shareable(model, 2, "auto", has_compiled_update=True)


def test_it_is_saved(tmp_path: Any) -> None:
    made(n_learners=2).save(tmp_path / "model")
    assert AsyncPPO.load(tmp_path / "model").n_learners == 2
    with pytest.raises(ValueError, match="learner='eager'"):
        AsyncPPO.load(tmp_path / "model", learner="eager")


@pytest.mark.parametrize(
    ("n_learners", "n_samplers", "mode", "told"),
    [
        (2, 2, "pipelined", None),
        (3, 2, "pipelined", r"2 samplers and 3 learners.*n_samplers=1 is likely"),
        (4, 2, "free", r"mode='sync', or n_learners=1, is likely"),
        (4, 8, "sync", None),
        (5, 1, "sync", r"n_learners=5 on 4 CPUs.*n_learners=4"),
    ],
)
def test_advice_where_there_are_too_few_cpus(
    n_learners: int, n_samplers: int, mode: str, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(several_learners, "available_cpus", lambda: 4)
    advice = advice_on_cpus(n_learners, n_samplers, mode)
    assert advice is None if told is None else re.search(told, str(advice))


def test_advice_is_given_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(several_learners, "available_cpus", lambda: 1)
    with pytest.warns(UserWarning, match="n_learners=2 on 1 CPUs") as warned:
        AsyncPPO("MlpPolicy", RandomWalk, n_learners=2, **SETTINGS)
    assert len(warned) == 1
    AsyncPPO("MlpPolicy", RandomWalk, n_learners=2, verbose=1, **SETTINGS)
    assert "n_learners=2 on 1 CPUs" in capsys.readouterr().out


def test_a_policy_that_cannot_be_divided_has_one_learner() -> None:
    """And a line says why. Its update can still be compiled."""
    with pytest.warns(UserWarning, match="n_learners=2 has no effect.*batch normalization"):
        model = made(n_learners=2, policy_kwargs={"features_extractor_class": Normalized}, learner="compiled")
    with model:
        assert str(model._updater._not_shared).startswith("the policy has buffers")
        assert model._updater._compiler.division is None
        assert model._updater.sharing.workers._server is None


class Normalized(th.nn.Module):
    """A features extractor with batch normalization."""

    def __init__(self, observation_space: Any) -> None:
        super().__init__()
        self.features_dim = int(np.prod(observation_space.shape))
        self.layer = th.nn.BatchNorm1d(self.features_dim)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        found: th.Tensor = self.layer(observations)
        return found
