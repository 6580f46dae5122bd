"""The benchmark of several learners: what it measures beside updates, which need a compiler."""

import pytest

from benchmarks import several_learners
from benchmarks.several_learners import reduce_by_gloo, reduce_in_shared_memory


def test_reductions_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(several_learners, "N_REPEATS", 3)
    for reduce in (reduce_in_shared_memory, reduce_by_gloo):
        assert 0.1 < reduce(4_000) < 1e6
