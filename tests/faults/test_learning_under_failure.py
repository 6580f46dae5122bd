"""CartPole is learned although one chunk in a hundred kills its sampler."""

from collections.abc import Callable

import gymnasium as gym
import pytest
from danger import killed_while_collecting
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import LinearSchedule

from sb3_walle import AsyncPPO, SamplerVecEnv

SOLVED = 475


class StopWhenSolved(BaseCallback):
    """Stops when the mean return of the last hundred episodes is what the task calls solved."""

    is_solved = False

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        episodes = self.model.ep_info_buffer or []
        self.is_solved = len(episodes) == 100 and sum(episode["r"] for episode in episodes) / 100 >= SOLVED
        if self.is_solved:
            raise StopIteration


def fragile_cart_pole() -> gym.Env:
    killed_while_collecting(probability=0.01)
    return gym.make("CartPole-v1")


@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
@pytest.mark.parametrize("mode", ["pipelined", "free"])
def test_cart_pole_is_solved(mode: str) -> None:
    env = SamplerVecEnv([fragile_cart_pole] * 8, envs_per_sampler=2, max_restarts=1000)
    schedules: dict[str, Callable[[float], float]] = {
        "learning_rate": LinearSchedule(1e-3, 1e-4, 1.0),
        "clip_range": LinearSchedule(0.2, 0.02, 1.0),
    }
    stop = StopWhenSolved()
    with AsyncPPO(
        "MlpPolicy",
        env,
        mode=mode,
        n_steps=32,
        batch_size=256,
        n_epochs=20,
        gae_lambda=0.8,
        gamma=0.98,
        seed=0,
        device="cpu",
        **schedules,
    ) as model:
        try:
            model.learn(200_000, callback=stop)
        except StopIteration:
            assert stop.is_solved
        n_restarts = env.samplers.n_restarts
    print(f"{mode}: solved after {model.num_timesteps} timesteps and {n_restarts} kills")
    assert stop.is_solved
    assert n_restarts > 0
