"""An episode that breaks off with its sampler is learned from as if a time limit had cut it off, and counts nowhere."""

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from toy_envs import StampedEnv

from sb3_walle import AsyncPPO, SamplerVecEnv

N_STEPS, CHUNK, EPISODE_LENGTH = 384, 128, 50


class BreaksOnce(StampedEnv):
    """Its simulation diverges in one step of the first environment that is built."""

    n_built = 0

    def __init__(self, at: int) -> None:
        super().__init__(episode_length=EPISODE_LENGTH)
        BreaksOnce.n_built += 1
        self.at = at if BreaksOnce.n_built == 1 else -1
        self.n_steps = 0

    def step(self, action: int) -> Any:
        self.n_steps += 1
        if self.n_steps == self.at:
            raise ArithmeticError
        observation, reward, *rest = super().step(action)
        return observation, reward + 1.0, *rest


class Record(BaseCallback):
    """Keeps what callbacks see, what the buffer holds at the end, and how the values of the last row were estimated."""

    def __init__(self) -> None:
        super().__init__()
        self.rewards: list[np.ndarray] = []
        self.new_obs: list[np.ndarray] = []
        self.dones: list[np.ndarray] = []
        self.episodes: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        self.rewards.append(self.locals["rewards"].copy())
        self.new_obs.append(self.locals["new_obs"].copy())
        self.dones.append(self.locals["dones"].copy())
        self.episodes += [info["episode"] for info in self.locals["infos"] if "episode" in info]
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.model.rollout_buffer
        self.buffer = {
            name: getattr(buffer, name).copy() for name in ("rewards", "episode_starts", "values", "returns")
        }
        self.last_values, self.last_dones = self.locals["values"].clone(), self.locals["dones"].copy()


def recorded(at: int, actor: str, mode: str) -> tuple[AsyncPPO, Record]:
    BreaksOnce.n_built, record = 0, Record()
    env = SamplerVecEnv([lambda: BreaksOnce(at)] * 2, backend="inline")
    model = AsyncPPO(
        "MlpPolicy",
        env,
        mode=mode,
        actor=actor,
        n_steps=N_STEPS,
        batch_size=2 * N_STEPS,
        n_epochs=1,
        seed=0,
        device="cpu",
    )
    with pytest.warns(match=r"Sampler 0 failed while collecting experience"):
        model.learn(2 * N_STEPS, callback=record)
    return model, record


@pytest.mark.parametrize("mode", ["sync", "pipelined"])
@pytest.mark.parametrize("actor", ["numpy", "torch"])
@pytest.mark.parametrize("at", [200, 300])
def test_value_of_what_would_have_come_next_is_added_where_the_episode_breaks_off(
    at: int, actor: str, mode: str
) -> None:
    model, record = recorded(at, actor, mode)
    # The chunk that was under way is collected anew.
    broken = at // CHUNK * CHUNK - 1
    starts, rewards = record.buffer["episode_starts"], record.buffer["rewards"]
    assert starts[broken + 1, 0] and not record.dones[broken][0]
    expected = np.stack(record.rewards)
    # The values of the policy that learned, which has been updated since: they are in the buffer of a run without it.
    initial = AsyncPPO("MlpPolicy", model.get_env(), actor=actor, n_steps=N_STEPS, seed=0, device="cpu")
    with th.no_grad():
        value = initial.policy.predict_values(th.as_tensor(record.new_obs[broken][:1], dtype=th.float32)).item()
    expected[broken, 0] += np.float32(model.gamma) * np.float32(value)
    np.testing.assert_allclose(rewards, expected, rtol=1e-5)
    # Everything else is SB3's own estimate.
    reference = RolloutBuffer(
        N_STEPS, model.observation_space, model.action_space, gamma=0.99, gae_lambda=0.95, n_envs=2
    )
    reference.rewards, reference.values, reference.episode_starts = rewards, record.buffer["values"], starts
    reference.compute_returns_and_advantage(record.last_values, record.last_dones)
    np.testing.assert_array_equal(record.buffer["returns"], reference.returns)


def test_broken_episode_is_in_no_statistics() -> None:
    model, record = recorded(200, "numpy", "sync")
    # The first environment makes 128 steps, two episodes and a half, and then 256 more.
    n_episodes = 128 // EPISODE_LENGTH + 256 // EPISODE_LENGTH + N_STEPS // EPISODE_LENGTH
    assert len(record.episodes) == len(model.ep_info_buffer or []) == n_episodes
    assert {episode["l"] for episode in record.episodes} == {EPISODE_LENGTH}
    assert model.num_timesteps == 2 * N_STEPS


def test_episode_that_breaks_off_at_the_end_of_a_rollout_is_bootstrapped_as_ever() -> None:
    BreaksOnce.n_built, record = 0, Record()
    env = SamplerVecEnv([lambda: BreaksOnce(N_STEPS + 60)], backend="inline")
    model = AsyncPPO("MlpPolicy", env, mode="sync", n_steps=N_STEPS, batch_size=N_STEPS, n_epochs=1, device="cpu")
    with pytest.warns(match="Sampler 0 failed"):
        model.learn(2 * N_STEPS, callback=record)
    assert record.buffer["episode_starts"][0, 0], "the rollout begins with a new episode"
    assert record.new_obs[N_STEPS - 1][0, 2] == N_STEPS % EPISODE_LENGTH, "which the one before did not end with"
    assert not record.dones[N_STEPS - 1][0]
