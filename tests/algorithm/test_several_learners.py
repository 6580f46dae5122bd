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
from sb3_walle.algorithm.several_learners import advice_on_cpus, check_shareable, likely_n_learners

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
    with pytest.raises(TypeError, match='n_learners must be an integer or "auto"'):
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


@pytest.mark.parametrize(
    ("net", "batch_size", "n_threads", "n_cpus", "n_samplers", "expected"),
    [
        (64, 64, 2, 8, 0, 1),
        (256, 64, 2, 8, 0, 2),
        (256, 64, 2, 2, 2, 2),
        (256, 64, 2, 1, 0, 1),
        (256, 1024, 2, 8, 0, 1),
        (256, 1024, 1, 8, 0, 8),
        (256, 1024, 1, 8, 2, 6),
    ],
)
def test_how_many_are_likely_to_be_fastest(
    net: int, batch_size: int, n_threads: int, n_cpus: int, n_samplers: int, expected: int, monkeypatch: Any
) -> None:
    """Arguments, cores and threads alone decide."""
    monkeypatch.setattr(several_learners, "available_cpus", lambda: n_cpus)
    monkeypatch.setattr(th, "get_num_threads", lambda: n_threads)
    policy = made(policy_kwargs={"net_arch": [net, net]}).policy
    assert likely_n_learners(policy, batch_size, 20.0, n_samplers) == expected


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(AsyncPPO, {}), (AsyncA2C, {}), (AsyncPPO, {"learner": "eager"}), (AsyncPPO, {"objective": "kl_penalty"})],
    ids=["PPO", "A2C", "eager", "kl_penalty"],
)
def test_auto_is_one_where_there_is_nothing_to_gain(kind: Any, settings: dict[str, Any]) -> None:
    model = kind("MlpPolicy", RandomWalk, n_learners="auto", **{**SETTINGS, **settings})
    updater = model._get_updater()
    assert updater is None or updater.sharing is None


@pytest.mark.parametrize("seed", [None, 3])
def test_auto_measures_unless_there_is_a_seed(seed: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(several_learners, "available_cpus", lambda: 2)
    wide = {"net_arch": [256, 256]}
    model = AsyncPPO("MlpPolicy", RandomWalk, n_learners="auto", seed=seed, policy_kwargs=wide, **SETTINGS)
    updater = model._get_updater()
    assert updater is not None and updater.sharing is not None
    assert updater.sharing.n_learners == 2 and updater._must_gain == (seed is None)


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
