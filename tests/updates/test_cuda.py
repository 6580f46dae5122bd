"""Updates on a GPU, where there is one: the same graph, recorded as a CUDA graph."""

from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from update_pairs import VECTOR, made

from sb3_walle.updates.ppo_update import PPOUpdate
from sb3_walle.updates.updater import Updater

pytestmark = pytest.mark.skipif(not th.cuda.is_available(), reason="needs a GPU")

# Convolutions and matrix products on a GPU round more coarsely than those on a CPU.
TOLERANCE: dict[str, float] = {"rtol": 1e-3, "atol": 1e-4}


@pytest.mark.parametrize("settings", [{}, {"target_kl": 0.001}, {"action_space": spaces.Discrete(3)}])
def test_recorded_updates_are_sb3s(settings: dict[str, Any]) -> None:
    by_sb3, by_us = (made(observation_space=VECTOR, device="cuda", **settings) for _ in range(2))
    updater = Updater(PPOUpdate(by_us), "compiled")
    updater.require()
    updater.plan(3)
    for number in range(1, 4):
        by_sb3.train()
        updater.train(number, lambda: pytest.fail("it is not compiled"))
        for expected, found in zip(by_sb3.policy.parameters(), by_us.policy.parameters(), strict=True):
            th.testing.assert_close(found, expected, **TOLERANCE)
