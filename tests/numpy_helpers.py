"""Policies, observations and chunks for the tests of the NumPy actor."""

import pickle
from functools import partial
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from hypothesis import strategies as st
from stable_baselines3.common.policies import ActorCriticPolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.utils import obs_as_tensor
from torch import nn

from sb3_walle.samplers.actors.numpy_actor import NumPyActor, NumPyActorSpec
from sb3_walle.samplers.actors.numpy_export import export_numpy_actor
from sb3_walle.transport.chunk import Chunk, Observations, chunk_layout, row

BOX = spaces.Box(-np.inf, np.inf, (4,), np.float64)
CONTINUOUS = spaces.Box(-1.0, 1.0, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (3, 2, 4), np.uint8)

BOXES = [
    BOX,
    IMAGE,
    spaces.Box(-2.0, 2.0, (2, 3), np.float32),
    spaces.Box(-9, 9, (1, 2, 2), np.int64),
    spaces.Box(0, 255, (5,), np.uint8),
]
OTHER_SPACES = [
    spaces.Discrete(2),
    spaces.Discrete(7),
    spaces.MultiDiscrete([3, 1, 4]),
    spaces.MultiDiscrete([2, 300], dtype=np.int32),
    spaces.MultiBinary(3),
    spaces.MultiBinary([2, 3]),
]
ACTION_SPACES = [
    CONTINUOUS,
    spaces.Box(-1.0, 1.0, (1,), np.float64),
    spaces.Box(-1.0, 1.0, (2, 3), np.float32),
    spaces.Discrete(2),
    spaces.Discrete(5),
    spaces.MultiDiscrete([3, 2, 4]),
    spaces.MultiDiscrete([6]),
    spaces.MultiBinary(3),
]
ACTIVATION_MODULES = [
    nn.ELU,
    partial(nn.ELU, alpha=1.7),
    nn.GELU,
    partial(nn.GELU, approximate="tanh"),
    nn.Identity,
    nn.LeakyReLU,
    partial(nn.LeakyReLU, 1.5),
    nn.ReLU,
    partial(nn.ReLU, inplace=True),
    nn.SiLU,
    nn.Tanh,
]

# Images are left out: in a dictionary, SB3 gives them a convolutional network.
dictionaries = st.lists(st.sampled_from([*BOXES[2:], *OTHER_SPACES]), min_size=1, max_size=4).map(
    # Gymnasium sorts keys that it gets in a dict, but not those of a list of pairs.
    lambda subspaces: spaces.Dict([(f"{9 - index}", space) for index, space in enumerate(subspaces)])
)
observation_spaces = st.sampled_from([*BOXES, *OTHER_SPACES]) | dictionaries
layer_sizes = st.lists(st.integers(1, 9), max_size=3)
n_envs_of_sampler = st.integers(1, 5)
seeds = st.integers(0, 2**32 - 1)


def build_policy(
    observation_space: spaces.Space = BOX, action_space: spaces.Space = CONTINUOUS, seed: int = 0, **kwargs: Any
) -> ActorCriticPolicy:
    """A policy none of whose weights are zero, as biases are at first, or tiny."""
    is_dict = isinstance(observation_space, spaces.Dict)
    policy_class = MultiInputActorCriticPolicy if is_dict else ActorCriticPolicy
    with th.random.fork_rng(), th.no_grad():
        th.manual_seed(seed)
        policy = policy_class(observation_space, action_space, lambda _: 1e-3, **kwargs)
        for parameter in policy.parameters():
            parameter += 0.5 * th.randn(parameter.shape)
    return policy


def sample(space: spaces.Space, n_steps: int, n_envs: int, seed: int = 0) -> Observations:
    """Observations of a space, ``[T, B, ...]``."""
    if isinstance(space, spaces.Dict):
        return {key: sample(subspace, n_steps, n_envs, seed) for key, subspace in space.spaces.items()}  # type: ignore
    space.seed(seed)
    return np.stack([np.stack([space.sample() for _ in range(n_envs)]) for _ in range(n_steps)])


def load(actor: NumPyActor, spec: NumPyActorSpec, policy: ActorCriticPolicy) -> None:
    """Load weights from arrays that are only valid during the call."""
    state = policy.state_dict()
    weights = {name: state[name].numpy().copy() for name in spec.weight_names}
    actor.load_weights(weights)
    for array in weights.values():
        array.fill(np.nan)


def build_actor(policy: ActorCriticPolicy, n_envs: int, seed: int | tuple[int, ...] = 0) -> NumPyActor:
    spec = pickle.loads(pickle.dumps(export_numpy_actor(policy, seed)))
    actor = spec.build(n_envs)
    load(actor, spec, policy)
    return actor


def empty_chunk(policy: ActorCriticPolicy, n_steps: int, n_envs: int) -> Chunk:
    fields = export_numpy_actor(policy, seed=0).fields(n_steps, n_envs)
    layout = chunk_layout(n_steps, n_envs, policy.observation_space, fields)
    return Chunk(layout.views(memoryview(bytearray(layout.nbytes))))


def fill(actor: NumPyActor, chunk: Chunk, observations: Observations, n_steps: int | None = None) -> Chunk:
    """Act on the observations ``[T, B, ...]``, in as many steps as they or ``n_steps`` are."""
    actor.begin_chunk(chunk)
    n_steps = chunk.capacity if n_steps is None else n_steps
    for step in range(n_steps):
        actions = actor.act(row(observations, step), step)
        assert np.shares_memory(actions, chunk.actions)
        np.testing.assert_array_equal(actions, chunk.actions[step])
    actor.end_chunk(row(observations, -1), n_steps)
    return chunk


def flat(observations: Observations) -> Any:
    """``[T, B, ...]`` as the tensors of a batch ``[T * B, ...]``."""
    if isinstance(observations, dict):
        return {key: flat(array) for key, array in observations.items()}
    return obs_as_tensor(observations.reshape(-1, *observations.shape[2:]), th.device("cpu"))


def evaluate(policy: ActorCriticPolicy, observations: Observations, actions: np.ndarray) -> np.ndarray:
    """The policy's own log-probabilities of actions ``[T, B, ...]``, ``[T, B]``."""
    n_actions = actions.shape[0] * actions.shape[1]
    flat_actions = th.as_tensor(actions).reshape((n_actions, -1) if actions.ndim > 2 else (n_actions,))
    with th.no_grad():
        _, log_probs, _ = policy.evaluate_actions(flat(observations), flat_actions)
    return log_probs.numpy().reshape(actions.shape[:2])


def tolerance(policy: ActorCriticPolicy, observations: Observations) -> float:
    """How far log-probabilities may be apart if outputs of the last layer are a few units of float32 apart."""
    with th.no_grad():
        distribution = policy.get_distribution(flat(observations)).distribution
        if isinstance(distribution, th.distributions.Normal):
            units = distribution.mean.abs().max() + 10.0
            return float(1e-5 + 1e-6 * units * (1.0 / distribution.stddev).sum(dim=1).max() * 5.0)
        return 1e-4
