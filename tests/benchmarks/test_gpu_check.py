"""The check of a GPU: what it says where there is none, and that it compares the same updates."""

import pytest
import torch as th
from stable_baselines3 import DQN, SAC

from benchmarks import gpu_check
from benchmarks.gpu_check import NO_DEVICE, Case, Contender, build_parser, off_policy, on_policy, run_command
from sb3_walle.updates.dqn_update import DQNUpdate
from sb3_walle.updates.ppo_update import PPOUpdate
from sb3_walle.updates.sac_update import SACUpdate


def test_without_a_device_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(th.cuda, "is_available", lambda: False)
    assert run_command(build_parser().parse_args([])) == 0
    assert capsys.readouterr().out == f"{NO_DEVICE}\n"


@pytest.mark.parametrize(
    "case",
    [
        Case("PPO", on_policy("64x64", 1024), PPOUpdate),
        Case("SAC", off_policy(SAC, "64x64"), SACUpdate),
        Case("DQN", off_policy(DQN, "CNN", batch_size=4), DQNUpdate),
    ],
    ids=["PPO", "SAC", "DQN"],
)
def test_contenders_make_the_same_updates(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "GRADIENT_STEPS", 2)
    by_sb3, eagerly = (Contender(case, "cpu", who) for who in ("SB3", "eager"))
    before = by_sb3.parameters()
    assert by_sb3.update() > 0 and eagerly.update() > 0
    assert not th.equal(by_sb3.parameters(), before)
    th.testing.assert_close(by_sb3.parameters(), eagerly.parameters(), rtol=1e-3, atol=1e-4)
