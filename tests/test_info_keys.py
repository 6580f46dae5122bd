"""Which infos callbacks are shown, and that they are what SB3 would show."""

from typing import Any

import numpy as np
import pytest
from oracle import Recorder, assert_same
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from toy_envs import RandomWalk

from sb3_walle import AsyncPPO, SamplerVecEnv

SETTINGS: dict[str, Any] = {"n_steps": 60, "batch_size": 30, "n_epochs": 1, "seed": 3, "device": "cpu"}
N_ENVS = 2
ENDS = {"episode", "terminal_observation", "TimeLimit.truncated", "is_success"}


class Informative(RandomWalk):
    """Tells everything that an info may hold, with the same object at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.info: dict[str, Any] = {"array": np.zeros(2)}

    def step(self, action: np.ndarray) -> Any:
        observation, reward, terminated, truncated, _ = super().step(action)
        self.info["array"] += 1
        self.info.update(
            x_velocity=np.float64(self.position[0]),
            single=np.float32(self.position[1]),
            steps=self.steps,
            moving=bool(action[0] > 0),
            name=f"step {self.steps}",
            nested={"steps": [self.steps]},
        )
        self.info.pop("rare", None)
        if self.steps % 7 == 0:
            self.info["rare"] = None
        self.info.pop("is_success", None)
        if terminated or truncated:
            self.info["is_success"] = truncated
        return observation, reward, terminated, truncated, dict(self.info)


def shown(model: PPO) -> list[list[dict[str, Any]]]:
    """The infos of every step of two rollouts."""
    recorder = Recorder()
    model.learn(2 * 60 * N_ENVS, callback=recorder)
    return [step["infos"] for step in recorder.steps]


def infos_of_sb3() -> list[list[dict[str, Any]]]:
    return shown(PPO("MlpPolicy", make_vec_env(Informative, N_ENVS), **SETTINGS))


def infos_of(info_keys: Any, backend: str = "inline") -> list[list[dict[str, Any]]]:
    arguments = {"mode": "sync", "actor": "torch", "n_samplers": 1, "envs_per_sampler": N_ENVS, "backend": backend}
    model = AsyncPPO("MlpPolicy", Informative, info_keys=info_keys, **arguments, **SETTINGS)
    infos = shown(model)
    model.env.close()
    return infos


@pytest.mark.parametrize("backend", ["inline", "process"])
@pytest.mark.parametrize("info_keys", ["auto", "all"])
def test_complete_infos_are_those_of_sb3(info_keys: str, backend: str) -> None:
    assert_same(infos_of_sb3(), infos_of(info_keys, backend), "infos")


@pytest.mark.parametrize("backend", ["inline", "process"])
@pytest.mark.parametrize("keys", [("x_velocity", "nested", "rare", "no such key"), ()], ids=["some", "none"])
def test_chosen_keys_are_those_of_sb3(keys: tuple[str, ...], backend: str) -> None:
    expected = [
        [{key: value for key, value in info.items() if key in {*keys, *ENDS}} for info in infos]
        for infos in infos_of_sb3()
    ]
    assert_same(expected, infos_of(keys, backend), "infos")


def test_with_callbacks_of_sb3_only_the_ends_of_episodes_travel() -> None:
    model = AsyncPPO("MlpPolicy", Informative, n_samplers=2, backend="inline", **SETTINGS)
    model.learn(240, callback=EvalCallback(make_vec_env(Informative, 1), eval_freq=1000))
    assert not model._collector.infos.every_step
    assert len(model.ep_info_buffer) > 5 and len(model.ep_success_buffer) == len(model.ep_info_buffer)


def test_another_kind_of_callback_does_not_make_random_streams_begin_again() -> None:
    """Room for more infos takes new memory, and with it the samplers' actors are built anew."""
    model = AsyncPPO("MlpPolicy", Informative, n_samplers=2, mode="sync", backend="inline", **SETTINGS)
    model.learn(120)
    before, actions = model._collector, model.rollout_buffer.actions.copy()
    recorder = Recorder()
    model.learn(120, callback=recorder, reset_num_timesteps=False)
    assert model._collector is not before
    noise = recorder.buffers[0]["actions"]
    # The networks have hardly changed, so equal draws would give nearly equal actions.
    assert np.abs(np.corrcoef(noise.ravel(), actions.reshape(2, 60).T.ravel())[0, 1]) < 0.5
    kept = model._collector
    model.learn(120, reset_num_timesteps=False)
    assert model._collector is kept


@pytest.mark.parametrize(
    ("info_keys", "error", "message"),
    [
        ("x_velocity", ValueError, r"\('x_velocity',\)"),
        (("x_velocity", 3), TypeError, "3 is of <class 'int'>"),
        (None, TypeError, "a sequence of keys"),
    ],
)
def test_wrong_keys_fail_in_the_constructor(info_keys: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        AsyncPPO("MlpPolicy", SamplerVecEnv([Informative], backend="inline"), info_keys=info_keys, **SETTINGS)
