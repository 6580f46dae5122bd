"""SB3's own PPO as the oracle: what it computes, step for step, and whether AsyncPPO computes the same."""

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv, VecTransposeImage
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper

from sb3_walle import AsyncPPO

EnvOrId: TypeAlias = str | Callable[[], gym.Env]

# The smallest training with several rollouts, and several minibatches in each.
TINY: dict[str, Any] = {"n_steps": 12, "batch_size": 8, "n_epochs": 1, "seed": 3, "device": "cpu"}
N_ROLLOUTS = 3

STEP_LOCALS = (
    "n_steps",
    "obs_tensor",
    "actions",
    "values",
    "log_probs",
    "clipped_actions",
    "new_obs",
    "rewards",
    "dones",
    "infos",
)
BUFFER_ARRAYS = ("observations", "actions", "rewards", "episode_starts", "values", "log_probs", "advantages", "returns")


class Contiguous(VecEnvWrapper):
    """
    Copies observations. Those that SB3 has transposed are views, for which torch takes another convolution with another
    rounding.
    """

    def reset(self) -> Any:
        return contiguous(self.venv.reset())

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        for info in infos:
            if "terminal_observation" in info:
                info["terminal_observation"] = contiguous(info["terminal_observation"])
        return contiguous(observations), rewards, dones, infos


def contiguous(observations: Any) -> Any:
    if isinstance(observations, dict):
        return {key: contiguous(part) for key, part in observations.items()}
    return observations.copy(order="C") if isinstance(observations, np.ndarray) else observations


def transposed(venv: VecEnv) -> VecEnv:
    """What SB3 does with images whose channels are last, and copies of it."""
    return Contiguous(VecTransposeImage(venv))


class Recorder(BaseCallback):
    """Keeps what callbacks are shown at every step, and the rollout buffer of every rollout before it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[dict[str, Any]] = []
        self.buffers: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        self.steps.append(copy.deepcopy({name: self.locals[name] for name in STEP_LOCALS}))
        return True

    def _on_rollout_end(self) -> None:
        self.buffers.append(buffer_arrays(self.model))


def buffer_arrays(algorithm: Any) -> dict[str, Any]:
    """Copies of the arrays of an algorithm's rollout buffer."""
    return copy.deepcopy({name: getattr(algorithm.rollout_buffer, name) for name in BUFFER_ARRAYS})


def train(algorithm: PPO, n_rollouts: int = N_ROLLOUTS) -> Recorder:
    """Train for some rollouts. Returns all that could be seen of it."""
    recorder = Recorder()
    algorithm.learn(n_rollouts * algorithm.n_steps * algorithm.n_envs, callback=recorder)
    return recorder


def lockstep_twin(policy: Any, env: EnvOrId, n_envs: int, **settings: Any) -> AsyncPPO:
    """AsyncPPO as it should equal ``PPO(policy, make_vec_env(env, n_envs), **settings)``."""
    arguments: dict[str, Any] = {"n_samplers": 1, "mode": "sync", "actor": "torch", "backend": "inline", **settings}
    return AsyncPPO(policy, env, envs_per_sampler=n_envs, **arguments)


def assert_same_training(
    policy: Any,
    env: EnvOrId,
    n_envs: int = 2,
    backend: str = "inline",
    n_rollouts: int = N_ROLLOUTS,
    around_oracle: Callable[[VecEnv], VecEnv] = lambda venv: venv,
    **settings: Any,
) -> AsyncPPO:
    """
    Train SB3's PPO and AsyncPPO, and compare to the last bit all that callbacks, rollout buffers and weights show.

    :param policy: the policy
    :param env: id of the environment, or a function that builds it
    :param n_envs: number of environments
    :param backend: where AsyncPPO's only sampler lives
    :param n_rollouts: for how many rollouts
    :param around_oracle: wraps the environments of SB3's PPO
    :param settings: arguments of both, added to those of :data:`TINY`
    :return: the trained AsyncPPO
    """
    settings = {**TINY, **settings}
    oracle = PPO(policy, around_oracle(make_vec_env(env, n_envs)), **copy.deepcopy(settings))
    expected = train(oracle, n_rollouts)
    with warnings.catch_warnings():
        # What warns here and not above would be AsyncPPO's own.
        warnings.simplefilter("error", UserWarning)
        model = lockstep_twin(policy, env, n_envs, backend=backend, **settings)
        found = train(model, n_rollouts)
    assert_same(oracle.num_timesteps, model.num_timesteps, "num_timesteps")
    assert_same(expected.steps, found.steps, "steps")
    assert_same(expected.buffers, found.buffers, "rollout_buffer")
    assert_same(episodes(oracle), episodes(model), "ep_info_buffer")
    assert_same_weights(oracle, model)
    model.get_env().close()
    return model


def episodes(algorithm: PPO) -> list[tuple[float, int]]:
    """Return and length of the episodes that were logged."""
    return [(info["r"], info["l"]) for info in algorithm.ep_info_buffer or ()]


def assert_same_policies(first: BaseAlgorithm, second: BaseAlgorithm) -> None:
    """Parameters and buffers agree to the last bit; for every algorithm."""
    assert_same(dict(first.policy.state_dict()), dict(second.policy.state_dict()), "policy")


def assert_same_weights(first: PPO, second: PPO) -> None:
    """Parameters, buffers and the optimizer's state agree to the last bit."""
    assert_same_policies(first, second)
    assert_same(first.policy.optimizer.state_dict(), second.policy.optimizer.state_dict(), "optimizer")


def assert_same(expected: Any, found: Any, name: str) -> None:
    """Two values are equal in type, shape, data type and every bit; those that infos tell of time are left out."""
    if isinstance(expected, np.ndarray | np.generic):
        assert isinstance(found, np.ndarray | np.generic), f"{name}: {type(found)}"
        assert (expected.dtype, expected.shape) == (found.dtype, found.shape), name
        np.testing.assert_array_equal(found, expected, err_msg=name)
    elif isinstance(expected, th.Tensor):
        assert (expected.dtype, expected.shape) == (found.dtype, found.shape), name
        assert th.equal(expected, found), name
    elif isinstance(expected, Mapping):
        assert list(expected) == list(found), name
        for key, value in expected.items():
            if not (name.endswith(".episode") and key == "t"):
                assert_same(value, found[key], f"{name}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(expected) == len(found), name
        for index, (first, second) in enumerate(zip(expected, found, strict=True)):
            assert_same(first, second, f"{name}[{index}]")
    else:
        assert type(expected) is type(found) and expected == found, f"{name}: {expected!r} and {found!r}"


def assert_trains_pipelined(policy: Any, env: EnvOrId, **settings: Any) -> AsyncPPO:
    """
    Train AsyncPPO as it is by default, with two samplers. Its rollout buffer has SB3's shapes and data types, and holds
    what the policy says of the observations in it.

    :param policy: the policy
    :param env: id of the environment, or a function that builds it
    :param settings: further arguments
    :return: the trained AsyncPPO
    """
    settings = {**TINY, **settings}
    oracle = PPO(policy, make_vec_env(env, 2), **copy.deepcopy(settings))
    empty = buffer_arrays(oracle)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = AsyncPPO(policy, env, n_samplers=2, mode="pipelined", **{"backend": "inline", **settings})
        first_policy = copy.deepcopy(model.policy.state_dict())
        recorder = train(model)
    assert len(recorder.steps) == N_ROLLOUTS * model.n_steps and len(recorder.buffers) == N_ROLLOUTS
    for arrays in recorder.buffers:
        assert_same_kind(empty, arrays, "rollout_buffer")
    assert_shown_observations(recorder.steps[: model.n_steps], recorder.buffers[0]["observations"])
    last_policy = copy.deepcopy(model.policy.state_dict())
    parameters = dict(model.policy.named_parameters())
    assert all(th.isfinite(tensor).all() for tensor in parameters.values())
    assert any(not th.equal(tensor, first_policy[name]) for name, tensor in parameters.items())
    # The first rollout is the initial policy's, and the last is the last but one's.
    model.policy.load_state_dict(first_policy)
    assert_behaviour_of(model, recorder.buffers[0])
    model.policy.load_state_dict(last_policy)
    model.get_env().close()
    return model


def assert_same_kind(expected: Any, found: Any, name: str) -> None:
    """Two arrays, or dictionaries of arrays, agree in shape and data type, and the second is finite."""
    if isinstance(expected, dict):
        assert list(expected) == list(found), name
        for key, array in expected.items():
            assert_same_kind(array, found[key], f"{name}.{key}")
    else:
        assert (expected.dtype, expected.shape) == (found.dtype, found.shape), name
        assert np.isfinite(found).all(), name


def assert_shown_observations(steps: list[dict[str, Any]], observations: Any) -> None:
    """A rollout buffer's observations are those that callbacks were shown one step before."""
    if isinstance(observations, dict):
        for key, array in observations.items():
            assert_shown_observations([{"new_obs": step["new_obs"][key]} for step in steps], array)
        return
    for step, following in zip(steps, observations[1:], strict=False):
        np.testing.assert_array_equal(step["new_obs"].reshape(following.shape), following)


def assert_behaviour_of(model: PPO, arrays: dict[str, Any]) -> None:
    """Log-probabilities and values of a rollout are what the model's policy, in evaluation mode, computes for it."""
    model.policy.set_training_mode(False)
    policy, actions = model.policy, th.as_tensor(flat(arrays["actions"]).astype(np.float32))
    # As PPO.train() does it.
    if arrays["actions"].dtype.kind == "i" and not model.action_space.shape:
        actions = actions.long().flatten()
    with th.no_grad():
        values, log_probs, _ = policy.evaluate_actions(
            obs_as_tensor(flat(arrays["observations"]), model.device), actions
        )
    for name, computed in (("values", values), ("log_probs", log_probs)):
        np.testing.assert_allclose(flat(arrays[name]), computed.numpy().flatten(), 1e-3, 1e-4, err_msg=name)


def flat(arrays: Any) -> Any:
    """``[n_steps, n_envs, ...]`` as ``[n_steps * n_envs, ...]``, also of a dictionary of arrays."""
    if isinstance(arrays, dict):
        return {key: flat(array) for key, array in arrays.items()}
    return arrays.reshape(-1, *arrays.shape[2:])
