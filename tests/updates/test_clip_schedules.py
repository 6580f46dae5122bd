"""A clip range that a schedule leads to 0, as many of the RL Zoo's do, leaves it to rounding what is clipped."""

import pytest
import torch as th
from native_helpers import FakeProgram
from stable_baselines3.common.utils import LinearSchedule

# With the compiler, which takes the place of the real one in every test here.
from test_ppo_updates import ROLLOUT, compiler, is_compiled, lines, model  # noqa: F401


def rounding(program: FakeProgram, inputs: list[th.Tensor]) -> th.Tensor:
    """A program that computes the same, but with other roundings."""
    rounded = 1e-6 * inputs[0]
    inputs[0].add_(rounded)
    statistics = program._graph(*inputs)[0]
    inputs[0].sub_(rounded)
    return statistics


@pytest.mark.parametrize("scheduled", ["clip_range", "clip_range_vf"])
def test_rounding_is_no_other_policy(
    scheduled: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FakeProgram, "__call__", rounding)
    monkeypatch.setattr("sb3_walle.updates.ppo_update.PPOUpdate.minibatches_per_comparison", 0)
    learning = model("compiled", seed=0, **{scheduled: LinearSchedule(0.2, 0, 1)}).learn(4 * ROLLOUT)
    assert is_compiled(learning)
    assert [line for line in lines(capsys, "Updates") if "not compiled" in line] == []
