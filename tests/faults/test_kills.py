"""
A sampler is killed at a random instant: training finishes, with every sample exactly once, and nothing is left behind.
`make soak` repeats this for as long as it is told to, in every phase with every kind of model.
"""

import functools
import os
import re
import signal
import warnings
from typing import Any

import numpy as np
import pytest
from danger import PHASES, endangered_task
from fault_models import EPISODES, KINDS, is_ordered, make_model
from follow_samples import FollowEpisodes, FollowSamples, sampler_processes
from killer import killing
from stamped_task import StampedTask

from sb3_walle import SamplerError, SamplerVecEnv
from sb3_walle.samplers.errors import SamplerWarning

N_SAMPLERS, N_STEPS = 3, 64
SETTINGS: dict[str, Any] = {"n_steps": N_STEPS, "batch_size": 192, "n_epochs": 1}


# Every phase, and every kind of model in several of them.
PHASES_OF_KINDS = [(phase, KINDS[i % len(KINDS)]) for i, phase in enumerate(PHASES)]


def check(model: Any, samples: FollowSamples, timesteps: int) -> None:
    """That a model has learned from so many samples, each of them once."""
    samples.check(timesteps)
    assert model.num_timesteps == timesteps
    restarts = model.env.unwrapped.client.n_restarts
    assert samples.n_lives <= model.n_envs + restarts * model.env.unwrapped.envs_per_sampler


@pytest.mark.parametrize(("phase", "kind"), PHASES_OF_KINDS)
def test_sampler_killed_in(phase: str, kind: str) -> None:
    samples = FollowSamples(is_ordered(kind))
    n_rollouts = 20
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        env = endangered_task(phase, has_short_chunks=not is_ordered(kind))
        with make_model(kind, env, n_samplers=N_SAMPLERS, max_restarts=10_000, **SETTINGS) as model:
            model.learn(n_rollouts * N_STEPS * N_SAMPLERS, callback=samples)
            n_restarts = model.env.client.n_restarts
            check(model, samples, n_rollouts * N_STEPS * N_SAMPLERS)
    told = [str(warning.message) for warning in caught if issubclass(warning.category, SamplerWarning)]
    assert len(told) == n_restarts
    assert all(re.match(r"Sampler \d was killed by signal 14 \(SIGALRM\) while ", text) for text in told)
    print(f"{phase}, {kind}: {n_restarts} restarts")


@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
@pytest.mark.parametrize(
    ("kind", "envs_per_sampler", "backend", "n_rollouts"),
    [
        ("MaskablePPO free", 3, "process", 20),
        ("RecurrentPPO pipelined", 1, "process", 12),
        ("sync", 3, "process", 12),
        ("pipelined", 1, "process", 20),
        ("free", 3, "process", 20),
        ("DQN pipelined", 1, "process", 20),
        ("TRPO pipelined", 1, "process", 20),
        ("free", 3, "ray", 12),
    ],
)
def test_samplers_killed_at_any_instant(kind: str, envs_per_sampler: int, backend: str, n_rollouts: int) -> None:
    samples = FollowSamples(is_ordered(kind))
    env = SamplerVecEnv([StampedTask] * 3 * envs_per_sampler, envs_per_sampler, backend, max_restarts=10_000)
    timesteps = n_rollouts * env.num_envs * N_STEPS
    with make_model(kind, env, **SETTINGS) as model, killing(model) as killed:
        model.learn(timesteps, callback=samples)
        check(model, samples, timesteps)
    assert killed


@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
@pytest.mark.parametrize("mode", ["sync", "pipelined"])
def test_whole_episodes_of_samplers_killed_at_any_instant(mode: str) -> None:
    samples = FollowEpisodes()
    env = SamplerVecEnv([StampedTask] * 3, max_restarts=10_000)
    with make_model(f"{EPISODES} {mode}", env, **SETTINGS) as model:
        with killing(model) as killed:
            model.learn(20 * 3 * N_STEPS, callback=samples)
        check(model, samples, model.num_timesteps)
        samples.check_episodes()
    assert killed


@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
def test_large_samples_are_never_torn() -> None:
    samples = FollowSamples()
    env = SamplerVecEnv([functools.partial(StampedTask, 2_000)] * 2, max_restarts=10_000)
    settings = {**SETTINGS, "n_steps": 32, "batch_size": 64}
    with make_model("pipelined", env, policy_kwargs={"net_arch": [2]}, **settings) as model:
        with killing(model) as killed:
            model.learn(25 * 64, callback=samples)
        check(model, samples, 25 * 64)
    assert killed


@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
@pytest.mark.parametrize("backend", ["process", "ray"])
def test_lockstep_continues_after_a_kill(backend: str) -> None:
    env = SamplerVecEnv([StampedTask] * 2, backend=backend)
    with env:
        env.set_attr("mark", 5)
        env.reset()
        os.kill(sampler_processes()[1], signal.SIGKILL)
        with pytest.raises(SamplerError, match=r"Sampler \d was killed by signal 9 \(SIGKILL.* while stepping"):
            for _ in range(100):
                env.step(np.zeros(2, int))
        # What can be asked of a new sampler is.
        assert env.get_attr("mark") == [5, 5]
        assert (env.reset()[:, 0, 3] == 0).all()
        env.step(np.zeros(2, int))
        assert env.client.n_restarts == 1
