"""Small models for tests of what happens to a model apart from training."""

from typing import Any

import torch as th
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn, VecEnvWrapper
from toy_envs import StampedEnv

from sb3_walle import AsyncPPO, SamplerVecEnv

SETTINGS: dict[str, Any] = {"n_steps": 32, "batch_size": 32, "n_epochs": 1, "seed": 0, "device": "cpu"}
MODES = ("sync", "pipelined", "free")


def inline_model(env: Any = StampedEnv, policy: str = "MlpPolicy", **kwargs: Any) -> AsyncPPO:
    return AsyncPPO(policy, env, **{"n_samplers": 2, "backend": "inline", **SETTINGS, **kwargs})


def inline_envs(n_envs: int, env: Any = StampedEnv) -> SamplerVecEnv:
    return SamplerVecEnv([env] * n_envs, backend="inline")


def weights_of(model: Any) -> dict[str, th.Tensor]:
    return {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}


def same(first: dict[str, th.Tensor], second: dict[str, th.Tensor]) -> bool:
    return first.keys() == second.keys() and all(th.equal(tensor, second[name]) for name, tensor in first.items())


class UnknownWrapper(VecEnvWrapper):
    """Cannot be run by samplers, so that what is in it is stepped in lockstep."""

    def reset(self) -> VecEnvObs:
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        return self.venv.step_wait()
