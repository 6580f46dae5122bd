"""Two equal PPO models, one that SB3 updates and one that a traced step updates, and what has to agree in the end."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from space_env import SpaceEnv
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_walle.updates.compiled_update import make_update
from sb3_walle.updates.ppo_update import PPOUpdate
from sb3_walle.updates.program_compiler import Program
from sb3_walle.updates.traced_step import trace_update

VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)
BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)
# A rollout of three minibatches.
SETTINGS: dict[str, Any] = {"n_steps": 24, "batch_size": 16, "n_epochs": 2, "seed": 3, "device": "cpu"}
N_ENVS = 2
N_UPDATES = 2

# Relative to the largest number of a tensor: what rounding in another order leaves of float32 after some steps of Adam,
# which divides by gradients that may be small.
TOLERANCE = 2e-5


class LinearExtractor(BaseFeaturesExtractor):
    """
    A features extractor of a user's own.

    :param observation_space: the observations
    :param layer: what follows the linear layer
    """

    def __init__(self, observation_space: spaces.Box, layer: type[nn.Module] = nn.Identity, **kwargs: Any) -> None:
        super().__init__(observation_space, features_dim=5)
        # Before a batch normalization, the gradient of a bias is nothing but rounding.
        self.network = nn.Sequential(nn.Linear(3, 5, bias=layer is not nn.BatchNorm1d), layer(**kwargs))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.network(observations)


def extractor(layer: type[nn.Module], **kwargs: Any) -> dict[str, Any]:
    """``policy_kwargs`` of a features extractor that ends with a layer."""
    return {"features_extractor_class": LinearExtractor, "features_extractor_kwargs": {"layer": layer, **kwargs}}


BATCH_NORM = extractor(nn.BatchNorm1d, num_features=5)


def made(
    policy: Any = "MlpPolicy",
    observation_space: spaces.Space = VECTOR,
    action_space: spaces.Space = BOX,
    **settings: Any,
) -> PPO:
    """
    :param policy: the policy
    :param observation_space: what it observes
    :param action_space: what it does
    :param settings: arguments of PPO in addition to :data:`SETTINGS`
    :return: a model of SB3's, with a rollout in its buffer; the same one whenever it is called with the same arguments
    """
    with warnings.catch_warnings():
        # That a last minibatch is smaller is intended.
        warnings.filterwarnings("ignore", "You have specified a mini-batch size")
        env = DummyVecEnv([lambda: SpaceEnv(observation_space, action_space)] * N_ENVS)
        model = PPO(policy, env, **{**SETTINGS, **copy.deepcopy(settings)})
    model.set_logger(Logger(None, []))
    collect(model)
    return model


def collect(model: PPO) -> None:
    """Fill the rollout buffer."""
    if model._last_obs is None:
        model.env.seed(5)
        _, model.collecting = model._setup_learn(10**6)
        model.set_logger(Logger(None, []))
    model.collect_rollouts(model.env, model.collecting, model.rollout_buffer, model.n_steps)


class TracedUpdates:
    """
    Updates a model as a compiled update does, with the traced graph itself for a program.

    :param model: the model
    :param check_nan: whether a loss or gradient that is not finite is an error
    :param around: makes another program of the graph
    """

    def __init__(
        self, model: PPO, check_nan: bool = False, around: Callable[[Program], Program] = lambda program: program
    ) -> None:
        model.check_nan = check_nan
        self.model, self.update = model, PPOUpdate(model)
        self._groups = self.update.make_groups()
        self.steps = trace_update(self.update, self._groups)
        self.programs = {"update": around(self._program)}
        #: number of calls of the program
        self.n_calls = 0
        #: number of minibatches of the last update
        self.n_minibatches = 0

    def _program(self, inputs: list[th.Tensor]) -> th.Tensor:
        self.n_calls += 1
        return self.steps["update"].graph(*inputs)[0]

    def train(self, number: int = 1) -> None:
        """Make an update."""
        arguments = (self.update, self._groups, self.steps, self.programs)
        self.n_minibatches, _ = make_update(*arguments, number, is_compared=True)


def share_rollout(source: PPO, target: PPO) -> None:
    """Give one model a copy of another's rollout buffer."""
    target.rollout_buffer.__dict__.update(copy.deepcopy(source.rollout_buffer.__dict__))


class Pair:
    """
    A model that SB3 updates, and one that a traced step updates.

    :param arguments: what both are made with
    :param prepare: done to both before the first update
    :param settings: what both are made with
    """

    def __init__(self, *arguments: Any, prepare: Callable[[PPO], Any] = lambda model: None, **settings: Any) -> None:
        self.oracle, self.model = made(*arguments, **settings), made(*arguments, **settings)
        for model in (self.oracle, self.model):
            prepare(model)
        self.updates = TracedUpdates(self.model)

    def train(self, n_updates: int = N_UPDATES, tolerance: float = TOLERANCE) -> "Pair":
        """
        Update both from the same rollouts, and compare after each update.

        :param n_updates: number of updates
        :param tolerance: how far numbers may differ, relative to the largest of their tensor
        :return: the pair itself
        """
        for number in range(n_updates):
            if number:
                collect(self.oracle)
            share_rollout(self.oracle, self.model)
            random_states = []
            for model, train in ((self.oracle, self.oracle.train), (self.model, self.updates.train)):
                model._current_progress_remaining = 1 - number / n_updates
                model.logger.name_to_value.clear()
                np.random.seed(number)
                train()
                random_states.append(np.random.get_state())
            np.testing.assert_equal(random_states[1], random_states[0])
            self.assert_agree(tolerance)
        # A program that was never called would agree always.
        assert self.updates.n_calls > 0
        return self

    def assert_agree(self, tolerance: float = TOLERANCE) -> None:
        """That all that an update changes agrees."""
        assert_close(dict(self.model.policy.state_dict()), dict(self.oracle.policy.state_dict()), tolerance, "policy")
        assert_close(optimizer_state(self.model), optimizer_state(self.oracle), tolerance, "optimizer")
        assert_close(gradients(self.model), gradients(self.oracle), 10 * tolerance, "gradients")
        assert_close(logged(self.model), logged(self.oracle), tolerance, "logged")
        assert self.model._n_updates == self.oracle._n_updates
        np.testing.assert_equal(vars(self.model.rollout_buffer), vars(self.oracle.rollout_buffer))
        assert self.model.policy.training == self.oracle.policy.training


def optimizer_state(model: PPO) -> dict[str, Any]:
    """The state of a model's optimizer."""
    return model.policy.optimizer.state_dict()


def gradients(model: PPO) -> dict[str, th.Tensor | None]:
    """Gradients that a model's update has left."""
    return {name: parameter.grad for name, parameter in model.policy.named_parameters()}


def logged(model: PPO) -> dict[str, Any]:
    """What a model has logged about its last update."""
    return {name: value for name, value in model.logger.name_to_value.items() if name.startswith("train/")}


def state_of(model: PPO) -> dict[str, Any]:
    """A copy of what no update that failed may have changed."""
    state = {"policy": dict(model.policy.state_dict()), "optimizer": optimizer_state(model)}
    return copy.deepcopy({**state, "n_updates": model._n_updates, "random": np.random.get_state()})


def assert_close(found: Any, expected: Any, tolerance: float, name: str) -> None:
    """That two values agree in structure, types and shapes, and numbers but for rounding; NaN agrees with NaN."""
    assert type(found) is type(expected), f"{name}: {type(found)} instead of {type(expected)}"
    if isinstance(expected, dict):
        assert list(found) == list(expected), name
        for key, value in expected.items():
            assert_close(found[key], value, tolerance, f"{name}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), name
        for index, value in enumerate(expected):
            assert_close(found[index], value, tolerance, f"{name}[{index}]")
    elif isinstance(expected, th.Tensor):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), name
        _assert_close_numbers(found.detach().numpy(), expected.detach().numpy(), tolerance, name)
    elif isinstance(expected, float | np.floating):
        _assert_close_numbers(np.asarray(found), np.asarray(expected), tolerance, name)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected, err_msg=name)
    else:
        assert found == expected, f"{name}: {found!r} instead of {expected!r}"


def _assert_close_numbers(found: np.ndarray, expected: np.ndarray, tolerance: float, name: str) -> None:
    finite = np.abs(expected[np.isfinite(expected)])
    # Means of terms of the size of 1 may cancel.
    scale = max(float(finite.max()), 2e-2) if finite.size else 1.0
    exact = not np.issubdtype(expected.dtype, np.floating)
    np.testing.assert_allclose(found, expected, rtol=0, atol=0 if exact else tolerance * scale, err_msg=name)
