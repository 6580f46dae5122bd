"""What a sampler's step takes besides the environment's own."""

import time
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from sb3_walle import AsyncPPO
from sb3_walle.experiments.environments import quiet_factory

N_STEPS = 4096


@dataclass(frozen=True)
class SamplerStep:
    """
    Microseconds, for one environment.

    :param total: of a step
    :param environment: of which the environment took so many, whatever Gymnasium puts around it included
    """

    total: float
    environment: float


class Stopwatch(gym.Wrapper):
    """Adds up the seconds that an environment works for."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.seconds = 0.0

    def step(self, action: Any) -> Any:
        """:return: as Gymnasium has it"""
        started = time.perf_counter()
        result = self.env.step(action)
        self.seconds += time.perf_counter() - started
        return result

    def reset(self, **kwargs: Any) -> Any:
        """:return: as Gymnasium has it"""
        started = time.perf_counter()
        result = self.env.reset(**kwargs)
        self.seconds += time.perf_counter() - started
        return result


def measure_sampler_step(env_id: str, n_envs: int) -> SamplerStep:
    """
    Collect a rollout with one sampler in this process.

    :param env_id: Gymnasium id of the environment
    :param n_envs: environments of the sampler
    :return: what its steps took
    """
    build, watches = quiet_factory(env_id), []

    def watched() -> gym.Env:
        watches.append(Stopwatch(build()))
        return watches[-1]

    n_steps = max(2, N_STEPS // n_envs)
    arguments: dict[str, Any] = {"n_steps": n_steps, "batch_size": n_steps * n_envs, "device": "cpu"}
    samplers: dict[str, Any] = {"envs_per_sampler": n_envs, "backend": "inline", "mode": "sync", "learner": "eager"}
    with AsyncPPO("MlpPolicy", watched, n_samplers=1, **samplers, **arguments) as model:
        assert model.env is not None
        _, callback = model._setup_learn(total_timesteps=2 * n_steps * n_envs)
        callback.on_training_start({}, {})
        for _ in range(2):
            # The first one is to warm up.
            for watch in watches:
                watch.seconds = 0.0
            model.collect_rollouts(model.env, callback, model.rollout_buffer, n_rollout_steps=n_steps)
        assert model._experience.collector is not None
        total = 1 / model._experience.collector.statistics.sampler_steps_per_second
        environment = sum(watch.seconds for watch in watches) / (n_steps * n_envs)
    return SamplerStep(1e6 * total, 1e6 * environment)
