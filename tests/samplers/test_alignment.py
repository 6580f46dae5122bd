"""
Where in memory the inputs of matrix products begin. On some processors the products round otherwise where they begin
elsewhere; on others, values tell nothing. So the tests look at addresses, too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from numpy_helpers import build_policy, export_numpy_actor, fill, load, sample
from oracle import assert_same_training
from space_env import SpaceEnv
from stable_baselines3 import SAC
from stable_baselines3.common.policies import BasePolicy

from sb3_walle.samplers.actors.choice import actor_specs
from sb3_walle.samplers.actors.exploration import IS_RANDOM, RATE, TRAINING
from sb3_walle.samplers.actors.exploring_actor import ExploringActorSpec
from sb3_walle.samplers.actors.protocol import ActorSpec
from sb3_walle.samplers.actors.torch_policy import dump_policy, load_policy
from sb3_walle.transport.chunk import Chunk, chunk_layout, row, rows
from sb3_walle.transport.layout import ALIGNMENT
from sb3_walle.updates.flat import FlatLayout

SIZES = range(1, 41)
ACTIONS = spaces.Box(-1.0, 1.0, (2,), np.float32)
N_STEPS = 5


def box(size: int) -> spaces.Box:
    return spaces.Box(-1.0, 1.0, (size,), np.float32)


DICTIONARY = spaces.Dict({"a": box(3), "b": box(17), "c": spaces.Box(-1.0, 1.0, (2, 5), np.float32), "d": box(1)})


def chunk_at(offset: int, space: spaces.Space, spec: ActorSpec, n_envs: int) -> Chunk:
    """A chunk of random observations whose memory begins so many bytes after a multiple of ``ALIGNMENT``."""
    layout = chunk_layout(N_STEPS, n_envs, space, spec.fields(N_STEPS, n_envs))
    memory = np.zeros(layout.nbytes + 2 * ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT + offset
    chunk = Chunk(layout.views(memoryview(memory)[start:]))
    samples = sample(space, N_STEPS + 1, n_envs)
    for name, array in samples.items() if isinstance(samples, dict) else [("", samples)]:
        (chunk.observations[name] if name else chunk.observations)[...] = array  # type: ignore[index]
    return chunk


def addresses_of_inputs(policy: BasePolicy, act: Callable[[], Any]) -> list[int]:
    """Where the observations begin that a policy's features extractor is given."""
    found: list[int] = []

    def note(_: th.nn.Module, inputs: tuple[Any, ...]) -> None:
        tensors = inputs[0].values() if isinstance(inputs[0], dict) else inputs
        found.extend(tensor.data_ptr() for tensor in tensors)

    handles = [
        module.register_forward_pre_hook(note)
        for name, module in policy.named_modules()
        if name.endswith("features_extractor")
    ]
    act()
    for handle in handles:
        handle.remove()
    return found


def begin_anywhere(chunk: Chunk) -> bool:
    """Whether rows of the chunk begin where no array of NumPy's would."""
    arrays = chunk.observations.values() if isinstance(chunk.observations, dict) else [chunk.observations]
    return any(array[1].ctypes.data % 16 for array in arrays)


@pytest.mark.parametrize("n_envs", [1, 3])
def test_policies_in_torch_are_given_aligned_observations(n_envs: int) -> None:
    began_anywhere = 0
    for space in (*map(box, SIZES), DICTIONARY):
        policy = build_policy(space, ACTIONS, net_arch=[4])
        spec = actor_specs("torch", policy, seed=0)(0)
        actor: Any = spec.build(n_envs)
        chunk = chunk_at(0, space, spec, n_envs)
        began_anywhere += begin_anywhere(chunk)

        def act(actor: Any = actor, chunk: Chunk = chunk) -> None:
            actor.begin_chunk(chunk)
            for step, observations in enumerate(rows(chunk.observations, N_STEPS)):
                actor.act(observations, step)
            actor.end_chunk(row(chunk.observations, N_STEPS), N_STEPS)

        found = addresses_of_inputs(actor.policy, act)
        assert len(found) == (N_STEPS + 1) * (len(space) if isinstance(space, spaces.Dict) else 1)
        assert not any(address % ALIGNMENT for address in found), space
    assert began_anywhere > 20


def test_off_policy_algorithms_policies_are_given_observations_where_sb3_has_them() -> None:
    """SB3's ``predict()`` copies them to memory of NumPy's."""
    for size in SIZES:
        policy = SAC("MlpPolicy", SpaceEnv(box(size), ACTIONS), policy_kwargs={"net_arch": [4]}, device="cpu").policy
        spec = ExploringActorSpec(dump_policy(policy), (), ACTIONS, (0,))
        actor = spec.build(1)
        actor.load_weights({IS_RANDOM: np.zeros(1, bool), RATE: np.zeros(1), TRAINING: np.array(1)})
        chunk = chunk_at(0, box(size), spec, 1)

        def act(actor: Any = actor, chunk: Chunk = chunk) -> None:
            actor.begin_chunk(chunk)
            for step, observations in enumerate(rows(chunk.observations, N_STEPS)):
                actor.act(observations, step)

        found = addresses_of_inputs(actor.policy, act)
        assert len(found) == N_STEPS and not any(address % 16 for address in found), size


def test_weights_are_aligned_wherever_those_of_the_learner_begin() -> None:
    policy = build_policy(box(3), ACTIONS, net_arch=[5, 3])
    expected = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    parameters = list(policy.parameters())
    # As compiled updates leave them.
    vector = FlatLayout.flatten(parameters)
    for parameter, view in zip(parameters, FlatLayout(parameters).views(vector), strict=True):
        parameter.data = view
    assert any(parameter.data_ptr() % ALIGNMENT for parameter in parameters)
    moved = load_policy(dump_policy(policy))
    assert not any(tensor.data_ptr() % ALIGNMENT for tensor in moved.state_dict().values())
    assert all(th.equal(tensor, expected[name]) for name, tensor in moved.state_dict().items())

    spec = actor_specs("torch", policy, seed=0)(0)
    actor: Any = spec.build(1)
    published = {
        name: np.frombuffer(bytearray(b"...." + (2 * tensor.numpy()).tobytes()), np.uint8)
        for name, tensor in expected.items()
    }
    actor.load_weights(
        {name: array[4:].view(np.float32).reshape(expected[name].shape) for name, array in published.items()}
    )
    found = actor.policy.state_dict()
    assert not any(tensor.data_ptr() % ALIGNMENT for tensor in found.values())
    assert all(th.equal(tensor, 2 * expected[name]) for name, tensor in found.items())


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 17, 31])
def test_policies_in_numpy_choose_the_same_wherever_a_chunk_begins(size: int, n_envs: int) -> None:
    policy = build_policy(box(size), ACTIONS, net_arch=[9, 5])
    spec = export_numpy_actor(policy, seed=1)
    found = set()
    for offset in range(0, ALIGNMENT, 4):
        actor = spec.build(n_envs)
        load(actor, spec, policy)
        chunk = chunk_at(offset, box(size), spec, n_envs)
        fill(actor, chunk, chunk.observations)
        found.add((chunk.actions.tobytes(), chunk.arrays["log_probs"].tobytes()))
    assert len(found) == 1


@pytest.mark.parametrize("space", [*map(box, range(1, 17)), DICTIONARY], ids=[*map(str, range(1, 17)), "dictionary"])
def test_training_equals_sb3_with_rows_that_begin_anywhere(space: spaces.Space) -> None:
    policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
    assert_same_training(policy, partial(SpaceEnv, space, ACTIONS), n_envs=1, batch_size=12)
