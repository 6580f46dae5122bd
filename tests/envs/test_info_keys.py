"""Which infos callbacks are shown, and that they are what SB3 would show."""

from typing import Any

import numpy as np
import pytest
from oracle import Recorder, assert_same
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from toy_envs import RandomWalk

from sb3_walle import AsyncPPO, AsyncSAC, SamplerVecEnv

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


@pytest.mark.parametrize(("info_keys", "backend"), [("auto", "inline"), ("all", "process")])
def test_complete_infos_are_those_of_sb3(info_keys: str, backend: str) -> None:
    assert_same(infos_of_sb3(), infos_of(info_keys, backend), "infos")


@pytest.mark.parametrize(
    ("keys", "backend"),
    [(("x_velocity", "nested", "rare", "no such key"), "process"), ((), "inline")],
    ids=["some", "none"],
)
def test_chosen_keys_are_those_of_sb3(keys: tuple[str, ...], backend: str) -> None:
    expected = [
        [{key: value for key, value in info.items() if key in {*keys, *ENDS}} for info in infos]
        for infos in infos_of_sb3()
    ]
    assert_same(expected, infos_of(keys, backend), "infos")


def test_with_callbacks_of_sb3_only_the_ends_of_episodes_travel() -> None:
    model = AsyncPPO("MlpPolicy", Informative, n_samplers=2, backend="inline", **SETTINGS)
    model.learn(240, callback=EvalCallback(make_vec_env(Informative, 1), eval_freq=1000))
    assert not model._experience.collector.infos.every_step
    assert len(model.ep_info_buffer) > 5 and len(model.ep_success_buffer) == len(model.ep_info_buffer)


def noting(algorithm: Any, method: str) -> Any:
    """A subclass of an algorithm that notes what one of its methods is given."""

    def override(self: Any, *args: Any, **kwargs: Any) -> Any:
        infos = kwargs.get("infos", next((arg for arg in args if isinstance(arg, list)), None))
        self.__dict__.setdefault("noted", []).append([dict(info) for info in infos])
        return getattr(super(subclass, self), method)(*args, **kwargs)

    subclass: Any = type("Noting", (algorithm,), {method: override})
    return subclass


OFF_POLICY: dict[str, Any] = {"seed": 3, "device": "cpu", "learning_starts": 1000, "buffer_size": 500}


@pytest.mark.parametrize(
    ("oracle", "algorithm", "method", "settings"),
    [
        (PPO, AsyncPPO, "_update_info_buffer", SETTINGS),
        (SAC, AsyncSAC, "_update_info_buffer", OFF_POLICY),
        (SAC, AsyncSAC, "_store_transition", OFF_POLICY),
    ],
)
def test_overridden_methods_that_are_given_infos_find_those_of_sb3(
    oracle: Any, algorithm: Any, method: str, settings: dict[str, Any]
) -> None:
    """At every step."""
    env = make_vec_env(Informative, N_ENVS)
    expected = noting(oracle, method)("MlpPolicy", env, **settings).learn(120).noted
    alike = {"n_samplers": 1, "envs_per_sampler": N_ENVS, "mode": "sync", "actor": "torch", "backend": "inline"}
    found = noting(algorithm, method)("MlpPolicy", Informative, **alike, **settings).learn(120).noted
    assert_same(expected, found, "infos")
    assert len(found) == 120 // N_ENVS and all("x_velocity" in info for infos in found for info in infos)


class Silent(RandomWalk):
    """Tells nothing."""


def test_an_overridden_method_is_called_at_steps_without_infos() -> None:
    model = noting(AsyncPPO, "_update_info_buffer")("MlpPolicy", Silent, n_samplers=2, backend="inline", **SETTINGS)
    assert len(model.learn(120).noted) == 60
    # The user's choice counts.
    chosen = noting(AsyncPPO, "_update_info_buffer")(
        "MlpPolicy", Informative, n_samplers=2, backend="inline", info_keys=(), **SETTINGS
    ).learn(120)
    assert len(chosen.noted) == 60 and not any("x_velocity" in info for infos in chosen.noted for info in infos)


def test_a_method_that_is_replaced_on_the_object_counts_as_well() -> None:
    model = AsyncPPO("MlpPolicy", Informative, n_samplers=2, backend="inline", **SETTINGS)
    noted: list[Any] = []
    model._update_info_buffer = lambda infos, dones=None: noted.append(infos)  # type: ignore[method-assign]
    model.learn(120)
    assert len(noted) == 60 and all("x_velocity" in info for infos in noted for info in infos)


def test_methods_that_are_given_no_infos_do_not_count() -> None:
    class Own(AsyncPPO):
        def train(self) -> None:
            super().train()

    for algorithm in (AsyncPPO, Own):
        model = algorithm("MlpPolicy", Informative, n_samplers=2, backend="inline", **SETTINGS).learn(120)
        assert not model._experience.collector.infos.every_step


def test_another_kind_of_callback_goes_to_the_samplers_that_are_at_work() -> None:
    model = AsyncPPO("MlpPolicy", Informative, n_samplers=2, mode="sync", backend="inline", **SETTINGS)
    model.learn(120)
    collector = model._experience.collector
    model.learn(120, callback=Recorder(), reset_num_timesteps=False)
    assert model._experience.collector is collector and collector.infos.every_step
    model.learn(120, reset_num_timesteps=False)
    assert model._experience.collector is collector and not collector.infos.every_step


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
