"""What the tests of the comparison of returns have in common."""

from pathlib import Path

import numpy as np
from matplotlib.image import imread

from benchmarks.machine import Machine
from benchmarks.returns.ppo_returns import PPOReturns

TINY = PPOReturns(
    "CartPole-v1",
    total_timesteps=320,
    n_seeds=2,
    n_samplers=2,
    n_bins=5,
    ppo={"n_steps": 32, "batch_size": 32, "n_epochs": 1},
    async_ppo={"backend": "inline"},
)
PPO_NAME, ASYNC_NAME = "PPO, DummyVecEnv(2)", "AsyncPPO, 2 x 1, pipelined"
MACHINE = Machine("Abacus", 2, "Linux", {"Python": "3.11"}, "2020-01-02", 0.0)


def cells_of(report: str, name: str) -> list[str]:
    # The first table is that of returns.
    line = next(line for line in report.splitlines() if line.startswith(f"| {name} "))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def is_picture(path: Path) -> bool:
    image = imread(path)
    return image.shape[0] > 100 and image.shape[1] > 100 and float(np.std(image)) > 0
