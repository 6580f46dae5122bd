"""The comparison of a fixed and an adaptive trust region."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import sb3_walle
from benchmarks.returns import adaptive
from benchmarks.returns.adaptive_returns import AdaptiveReturns
from benchmarks.returns.comparison import ReturnsOutcome, compare_returns
from benchmarks.returns.recorded_training import train_once
from sb3_walle import AdaptiveTrustRegion
from sb3_walle.cli.arguments import UsageError, run_command_line

TINY = AdaptiveReturns(
    "CartPole-v1",
    total_timesteps=400,
    n_seeds=2,
    n_samplers=2,
    modes=("sync",),
    n_bins=5,
    algorithm="AsyncPPO",
    arguments={"backend": "inline", "learner": "eager", "target_steps": 80, "n_epochs": 1},
)


def test_contenders_differ_by_the_callback_alone() -> None:
    fixed, follows = TINY.trainees()
    assert fixed.make_callback is None and fixed.arguments == follows.arguments
    assert fixed.arguments["target_kl"] == 0.001 and fixed.arguments["rollout"] == "episodes"
    assert follows.make_callback is not None
    callback = follows.make_callback()
    assert isinstance(callback, AdaptiveTrustRegion) and callback.adapts_kl and not callback.adapts_steps


def test_the_trust_region_follows_the_returns_of_a_run() -> None:
    seen: list[float] = []

    class Seen(AdaptiveTrustRegion):
        def _on_rollout_end(self) -> None:
            super()._on_rollout_end()
            seen.append(self.model.target_kl)

    trainee = replace(TINY.trainees()[1], make_callback=partial(Seen, "kl", every=2))
    rows = train_once(trainee, TINY, 0, lambda row: None)
    assert [row.timesteps for row in rows] == [80, 160, 240, 320, 400]
    assert sum(row.n_episodes for row in rows) > 5
    assert seen[0] == 0.001 < max(seen)


def test_command_asks_for_the_papers_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def compare(settings: AdaptiveReturns, out: Path | None) -> ReturnsOutcome:
        asked.append(settings)
        return ReturnsOutcome(Path("runs"), "the report", False)

    monkeypatch.setattr(adaptive, "compare_returns", compare)
    assert run_command_line(adaptive.build_parser(), ["HalfCheetah-v4"]) == 0
    (settings,) = asked
    assert (settings.total_timesteps, settings.n_seeds, settings.algorithm) == (5_000_000, 3, "AsyncTRPO")
    assert settings.describe_algorithm() == {
        "algorithm": "AsyncTRPO",
        "adapt": "kl",
        "rollout": "episodes",
        "target_steps": 20_000,
        "target_kl": 0.001,
    }


def test_an_algorithm_that_is_not_installed_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"{name} needs sb3-contrib")

    monkeypatch.setattr(sb3_walle, "__getattr__", missing)
    settings = AdaptiveReturns("CartPole-v1", 400, 2, 2, modes=("sync",), n_bins=5)
    with pytest.raises(UsageError, match="AsyncTRPO needs sb3-contrib"):
        compare_returns(settings, tmp_path / "out")
