"""The command that has parts of a cluster fail: what counts as a loss. It takes root and minutes to run."""

from dataclasses import replace

import pytest

from benchmarks.cluster import faults
from benchmarks.cluster.faults import COUNTS, FAULTS, HEADER, Row, build_parser, merged

CLEAN = Row("a machine vanishes", "sync", n_faults=8, n_restarts=14, n_samples=15_360, recovery=1.2)


def test_a_clean_training_has_lost_nothing() -> None:
    assert CLEAN.is_clean
    assert dict(zip(HEADER, CLEAN.cells(), strict=True))["longest recovery, s"] == "1.2"


@pytest.mark.parametrize("name", ["n_lost", "n_duplicated", "n_torn", "n_wrong_rollouts"])
def test_whatever_is_wrong_with_samples_is_a_loss(name: str) -> None:
    row = replace(CLEAN, **{name: 1})
    assert not row.is_clean
    assert row.cells() != CLEAN.cells()


def test_rows_of_all_modes_are_one() -> None:
    other = replace(CLEAN, kind="free", n_lost=1, recovery=None)
    (row,) = merged([CLEAN, other])
    assert (row.kind, row.recovery) == ("sync, free", 1.2)
    for name in COUNTS:
        assert getattr(row, name) == getattr(CLEAN, name) + getattr(other, name)


def test_a_training_that_failed_is_a_loss() -> None:
    assert not replace(CLEAN, failure="SamplerError: ...").is_clean


def test_all_faults_happen_unless_the_user_chooses() -> None:
    assert {*FAULTS, "learner", "CartPole"} == set(build_parser().parse_args([]).faults)


def test_what_a_machine_lacks_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(faults, "what_is_missing", lambda: "a thing")
    assert faults.run_command_line(build_parser(), []) == 2
    assert "this needs a thing" in capsys.readouterr().err
