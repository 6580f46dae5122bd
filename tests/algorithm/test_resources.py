"""Too little memory is found out when an algorithm is made, not first when it learns."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack
from toy_envs import DictEnv, RandomWalk, StampedEnv

from sb3_walle import AsyncA2C, AsyncPPO, SamplerVecEnv
from sb3_walle.collection import queues
from sb3_walle.collection.queues import QueueCapacity, plan_queues
from sb3_walle.collection.task import CollectionTask
from sb3_walle.samplers.actors.torch_actor import TorchActorSpec
from sb3_walle.transport import shared_memory
from sb3_walle.transport.memory_queues import MemorySamplerEnd
from sb3_walle.transport.shared_memory import SharedMemory

SETTINGS: dict[str, Any] = {"n_steps": 40, "batch_size": 40, "n_epochs": 1, "device": "cpu", "backend": "inline"}
MIB = 2**20


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects the sizes of the queues that it was checked whether there is memory for."""
    sizes: list[int] = []
    check = queues.CollectionPlan.check_memory

    def check_and_note(plan: queues.CollectionPlan) -> None:
        sizes.append(plan.queues.nbytes)
        check(plan)

    monkeypatch.setattr(queues.CollectionPlan, "check_memory", check_and_note)
    return sizes


def leave(nbytes: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine have that many bytes left."""
    monkeypatch.setattr(queues, "available_memory", lambda: nbytes)


def taken_by_queues(model: AsyncPPO) -> int:
    collector = model._experience.collector
    assert collector is not None
    end = collector.queues.sampler_end
    assert isinstance(end, MemorySamplerEnd)
    return end.policy.nbytes + end.control.nbytes + end.chunks.nbytes


@pytest.mark.parametrize("backend", ["inline", "process"])
@pytest.mark.parametrize("mode", ["sync", "pipelined", "free"])
def test_too_little_memory_is_an_error_of_the_constructor(
    mode: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(1_000, monkeypatch)
    with pytest.raises(MemoryError) as caught:
        AsyncPPO("MlpPolicy", StampedEnv, n_samplers=2, mode=mode, **{**SETTINGS, "backend": backend})
    message = str(caught.value)
    assert re.match(r"Collecting with 2 samplers and n_steps=40 takes \d+\.\d MiB of memory, but only", message)
    for remedy in ("smaller n_steps", "fewer samplers", "fewer environments"):
        assert remedy in message


def test_the_error_says_how_much_is_needed_and_how_much_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    leave(3.25 * MIB, monkeypatch)
    # An observation of 3 numbers of 8 bytes, for 2 rollouts of 100,000 steps of 2 environments: 9.6 MB, and some more.
    with pytest.raises(MemoryError) as caught:
        AsyncPPO("MlpPolicy", StampedEnv, n_samplers=2, **{**SETTINGS, "n_steps": 100_000, "batch_size": 100_000})
    needed, left = map(float, re.findall(r"(\d+\.\d) MiB", str(caught.value)))
    assert left == 3.2
    assert 9.6e6 / MIB < needed < 25


def test_exactly_enough_memory_is_enough(planned: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    AsyncPPO("MlpPolicy", StampedEnv, n_samplers=2, **SETTINGS)
    leave(planned[0], monkeypatch)
    AsyncPPO("MlpPolicy", StampedEnv, n_samplers=2, **SETTINGS).learn(160)
    leave(planned[0] - 1, monkeypatch)
    with pytest.raises(MemoryError):
        AsyncPPO("MlpPolicy", StampedEnv, n_samplers=2, **SETTINGS)


def test_the_constructor_takes_no_memory_and_moves_no_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    env = SamplerVecEnv([StampedEnv] * 2, backend="inline")
    with monkeypatch.context() as patch:
        patch.setattr(SharedMemory, "__init__", lambda *_: pytest.fail("memory was taken"))
        patch.setattr("sb3_walle.samplers.actors.choice.dump_policy", lambda _: pytest.fail("the policy was pickled"))
        for actor in ("numpy", "torch"):
            AsyncPPO("MlpPolicy", env, actor=actor, **without_backend())


def without_backend() -> dict[str, Any]:
    return {name: value for name, value in SETTINGS.items() if name != "backend"}


MODELS: dict[str, dict[str, Any]] = {
    "numpy": {"actor": "numpy"},
    "torch": {"actor": "torch"},
    "shared random state": {"actor": "torch", "mode": "sync", "n_samplers": 1},
    "sync": {"mode": "sync"},
    "free": {"mode": "free"},
    "free with a lag": {"mode": "free", "max_policy_lag": 3},
    "gSDE": {"use_sde": True},
    "several environments each": {"envs_per_sampler": 3},
    "all infos": {"info_keys": "all"},
    "some infos": {"info_keys": ("stamp",)},
    "normalised": {"normalize": True},
    "only rewards normalised": {"normalize": {"norm_obs": False}},
    "many chunks": {"n_steps": 300, "batch_size": 300},
}


@pytest.mark.parametrize(
    # gSDE is for continuous actions.
    ("name", "env"),
    [(name, env) for name in MODELS for env in (RandomWalk, DictEnv) if (name, env) != ("gSDE", DictEnv)],
)
def test_what_is_checked_is_what_is_taken(name: str, env: Any, planned: list[int]) -> None:
    policy, choices = "MultiInputPolicy" if env is DictEnv else "MlpPolicy", dict(MODELS[name])
    if choices.get("normalize") is True and env is DictEnv:
        choices["normalize"] = {"norm_obs_keys": ["vector"]}
    model = AsyncPPO(policy, env, **{"n_samplers": 2, **SETTINGS, **choices})
    model.learn(1)
    assert planned == [taken_by_queues(model)]


def test_wrappers_are_part_of_what_is_checked(planned: list[int]) -> None:
    env = VecFrameStack(SamplerVecEnv([RandomWalk] * 2, backend="inline"), 4)
    model = AsyncPPO("MlpPolicy", env, **without_backend()).learn(1)
    assert planned == [taken_by_queues(model)]


def test_a2c_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    leave(100, monkeypatch)
    with pytest.raises(MemoryError, match="n_steps=5"):
        AsyncA2C("MlpPolicy", StampedEnv, n_samplers=2, backend="inline", device="cpu")


def test_loading_with_environments_is_checked(
    tmp_path: Path, planned: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    AsyncPPO("MlpPolicy", StampedEnv, n_samplers=2, info_keys="all", **SETTINGS).save(tmp_path / "model")
    leave(1_000, monkeypatch)
    with pytest.raises(MemoryError, match=r"Collecting with 3 samplers and n_steps=40"):
        AsyncPPO.load(tmp_path / "model", env=StampedEnv, n_samplers=3, backend="inline")
    AsyncPPO.load(tmp_path / "model")
    leave(100 * MIB, monkeypatch)
    planned.clear()
    model = AsyncPPO.load(tmp_path / "model", env=StampedEnv, n_samplers=3, backend="inline").learn(1)
    assert planned == [taken_by_queues(model)]


def test_a_model_of_sb3_is_checked_when_it_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PPO("MlpPolicy", DummyVecEnv([StampedEnv]), n_steps=30, batch_size=30, device="cpu").save(tmp_path / "model")
    leave(1_000, monkeypatch)
    with pytest.raises(MemoryError, match=r"Collecting with 2 samplers and n_steps=30"):
        AsyncPPO.load(tmp_path / "model", env=StampedEnv, n_samplers=2, backend="inline")


def test_what_is_wrong_with_other_arguments_of_load_is_said_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    AsyncPPO("MlpPolicy", StampedEnv, n_samplers=2, **SETTINGS).save(tmp_path / "model")
    leave(1_000, monkeypatch)
    for wrong in ({"mode": "fast"}, {"actor": "jax"}, {"info_keys": "some"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            AsyncPPO.load(tmp_path / "model", env=StampedEnv, n_samplers=2, backend="inline", **wrong)


class Lockstep(DummyVecEnv):
    """One that cannot be divided among samplers."""


def test_environments_outside_of_samplers_need_no_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    leave(0, monkeypatch)
    with pytest.warns(UserWarning, match="in lockstep"):
        AsyncPPO("MlpPolicy", Lockstep([StampedEnv]), **SETTINGS).learn(1)


def test_memory_that_is_gone_by_the_time_of_learning_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with AsyncPPO("MlpPolicy", StampedEnv, n_samplers=2, **{**SETTINGS, "backend": "process"}) as model:
        with monkeypatch.context() as patch:
            patch.setattr(shared_memory, "SMALL", 0)
            patch.setattr(shared_memory, "available_memory", lambda: 100)
            with pytest.raises(MemoryError, match=r"Could not reserve .* fewer samplers"):
                model.learn(1)
        assert model.learn(80).num_timesteps == 80


def test_what_sb3_has_no_memory_for_comes_with_the_same_advice() -> None:
    with pytest.raises(
        MemoryError, match=r"Unable to allocate .*float64\. Use a smaller n_steps or target_steps, fewer samplers"
    ):
        AsyncPPO("MlpPolicy", StampedEnv, n_samplers=1, **{**SETTINGS, "n_steps": 10**13, "batch_size": 10**13})


def test_samplers_end_where_the_constructor_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    leave(0, monkeypatch)
    env = make_vec_env(StampedEnv, 2, vec_env_cls=SamplerVecEnv)
    with pytest.raises(MemoryError):
        AsyncPPO("MlpPolicy", env, **without_backend())
    # They were the caller's, and still are.
    assert isinstance(env, VecEnv)
    env.reset()
    env.close()


# The plan


@settings(deadline=None)
@given(
    st.integers(1, 5_000),
    st.integers(1, 64),
    st.integers(1, 8),
    st.builds(QueueCapacity, st.integers(1, 5), st.sampled_from([1, 8])),
)
def test_slots_hold_the_rollouts_that_the_mode_asks_for(
    n_steps: int, n_samplers: int, n_envs: int, capacity: QueueCapacity
) -> None:
    task = CollectionTask(StampedEnv.observation_space, n_envs, n_steps, squash_output=False)
    actor = TorchActorSpec(b"", ("a",), StampedEnv.action_space, seed=())
    plan = plan_queues(task, n_samplers, capacity, actor, {"a": np.zeros(5)})
    geometry = plan.queues.geometry
    assert sum(plan.chunk_steps) == n_steps
    assert geometry.n_samplers == n_samplers
    assert geometry.n_slots == capacity.n_rollouts * len(plan.chunk_steps)
    assert all(field.shape[1] == n_envs for field in geometry.layout.fields if len(field.shape) > 1)
    observations = geometry.layout.fields[0]
    assert observations.shape == (max(plan.chunk_steps) + 1, n_envs, 3)
    assert plan.queues.nbytes > n_samplers * n_envs * n_steps * capacity.n_rollouts * 3 * 8
