"""How much memory a rollout of images takes in the learner: the observations are there once."""

import tracemalloc
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import FlattenExtractor

from sb3_walle import AsyncPPO

N_ENVS, N_STEPS, SHAPE = 8, 64, (84, 84, 4)
OBSERVATIONS_NBYTES = N_ENVS * N_STEPS * int(np.prod(SHAPE))


class Images(gym.Env):
    """Each image says which step of which episode it belongs to."""

    observation_space = spaces.Box(0, 255, SHAPE, np.uint8)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.episode = self.at = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.episode, self.at = self.episode + 1, 0
        return self.image(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.at += 1
        return self.image(), 1.0, self.at == 50, False, {}

    def image(self) -> np.ndarray:
        image = np.zeros(SHAPE, np.uint8)
        image[0, 0, :2] = self.episode, self.at
        return image


class Accountant(BaseCallback):
    """Notes the memory of arrays when a rollout is complete."""

    def __init__(self) -> None:
        super().__init__()
        self.nbytes: list[int] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.nbytes.append(tracemalloc.get_traced_memory()[0])


@pytest.mark.parametrize("mode", ["pipelined", "free"])
def test_observations_of_a_rollout_are_there_once(mode: str) -> None:
    model = AsyncPPO(
        "MlpPolicy",
        Images,
        n_samplers=N_ENVS,
        n_steps=N_STEPS,
        n_epochs=1,
        batch_size=512,
        mode=mode,
        backend="inline",
        learner="eager",
        policy_kwargs={"net_arch": [], "features_extractor_class": FlattenExtractor},
    )
    # Imports modules, which takes memory, too.
    model.learn(N_ENVS * N_STEPS)
    accountant = Accountant()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        model.learn(2 * N_ENVS * N_STEPS, callback=accountant)
    finally:
        tracemalloc.stop()
        model.get_env().close()
    # SB3's buffer alone takes that much. The rest are the rows after chunks, and everything that is small.
    assert len(accountant.nbytes) == 2
    assert max(accountant.nbytes) - before < 1.25 * OBSERVATIONS_NBYTES
