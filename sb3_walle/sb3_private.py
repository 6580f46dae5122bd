"""
Names that Stable-Baselines3 and sb3-contrib keep to themselves and that this package calls, reads or sets. They are
those of version 2.9.2, and have been the same since 2.7. ``tests/test_sb3_private.py`` finds all of them in the
installed version, and names what has changed.

Hooks, which subclasses override as SB3's own algorithms do, are in :data:`HOOKS`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

# Samplers come here, too, and need no torch.
if TYPE_CHECKING:
    from sb3_contrib.trpo import TRPO
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.buffers import BaseBuffer
    from stable_baselines3.common.callbacks import CheckpointCallback
    from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
    from stable_baselines3.common.policies import BasePolicy
    from stable_baselines3.common.vec_env import VecEnv, VecNormalize, VecVideoRecorder
    from stable_baselines3.her.her_replay_buffer import HerReplayBuffer
    from torch.optim import Optimizer

#: by SB3's class, the methods that this package overrides and calls with ``super()``, or whose owner it looks for
HOOKS = {
    "BaseAlgorithm": (
        "_excluded_save_params",
        "_init_callback",
        "_setup_learn",
        "_setup_model",
    ),
    "OffPolicyAlgorithm": ("_sample_action", "_store_transition"),
    "BasePolicy": ("_predict",),
}
#: attributes of a model that belong to its environments and its logger
LAST_STEP = ("_last_obs", "_last_original_obs", "_last_episode_starts")
VEC_NORMALIZE = "_vec_normalize_env"
LOGGER, HAS_CUSTOM_LOGGER = "_logger", "_custom_logger"


def timesteps_to_learn(algorithm: "BaseAlgorithm") -> int:
    """:return: the number of steps at which ``learn()`` ends"""
    return algorithm._total_timesteps


def n_updates(algorithm: "BaseAlgorithm") -> int:
    """:return: number of its gradient steps so far; of PPO, of its epochs"""
    return algorithm._n_updates


def add_updates(algorithm: "BaseAlgorithm", n: int) -> None:
    """Have an algorithm count further gradient steps; of PPO, epochs."""
    algorithm._n_updates += n


def update_learning_rate(algorithm: "BaseAlgorithm", optimizers: "Optimizer | list[Optimizer]") -> None:
    """Set the learning rate of optimizers by the algorithm's schedule, and record it."""
    algorithm._update_learning_rate(optimizers)


def has_own_actor_gradients(trpo: "TRPO") -> bool:
    """:return: whether a TRPO computes the gradients of its actor otherwise than sb3-contrib"""
    return trpo._compute_actor_grad.__module__.partition(".")[0] != "sb3_contrib"


@contextmanager
def with_actor_gradients(trpo: "TRPO", compute: Callable[..., Any]) -> Iterator[None]:
    """
    Have an update of sb3-contrib's TRPO compute the gradients of its actor otherwise.

    :param compute: takes what is differentiated, and returns what sb3-contrib's method returns
    """
    name = trpo._compute_actor_grad.__name__
    # An object's attribute comes before its class's method.
    vars(trpo)[name] = compute
    try:
        yield
    finally:
        del vars(trpo)[name]


def progress_remaining(algorithm: "BaseAlgorithm") -> float:
    """:return: the share of ``learn()`` that is left, from 1 to 0, which schedules are functions of"""
    return algorithm._current_progress_remaining


def normalized_observations(buffer: "BaseBuffer", observations: Any, vec_normalize: "VecNormalize | None") -> Any:
    """:return: what the buffer hands out of observations that it holds, ``[n, ...]``, or a dictionary of such arrays"""
    return buffer._normalize_obs(observations, vec_normalize)


def normalized_rewards(buffer: "BaseBuffer", rewards: np.ndarray, vec_normalize: "VecNormalize | None") -> np.ndarray:
    """:return: what the buffer hands out of rewards that it holds, in the same shape"""
    return buffer._normalize_reward(rewards, vec_normalize)


def vec_normalize_of(algorithm: "BaseAlgorithm") -> "VecNormalize | None":
    """:return: the ``VecNormalize`` around its environments"""
    return algorithm._vec_normalize_env


@contextmanager
def without_vec_normalize(algorithm: "BaseAlgorithm") -> Iterator[None]:
    """Have an algorithm take observations and rewards for original ones."""
    vec_normalize, algorithm._vec_normalize_env = algorithm._vec_normalize_env, None
    try:
        yield
    finally:
        algorithm._vec_normalize_env = vec_normalize


def set_last_observations(algorithm: "BaseAlgorithm", observations: Any, originals: Any = None) -> None:
    """
    :param observations: what its environments show, ``[n_envs, ...]``, ``None`` for environments to be reset
    :param originals: the same before ``VecNormalize``; ``None`` leaves them as they are
    """
    algorithm._last_obs = observations
    if originals is not None:
        algorithm._last_original_obs = originals


def set_last_episode_starts(algorithm: "BaseAlgorithm", episode_starts: np.ndarray) -> None:
    """Say whether the last observations are the first of an episode, ``[n_envs]``."""
    algorithm._last_episode_starts = episode_starts


def last_step(algorithm: "BaseAlgorithm") -> tuple[Any, Any]:
    """
    :return: what its environments show, ``[n_envs, ...]``, ``None`` for environments to be reset; and whether these are
        the first observations of an episode, ``[n_envs]``
    """
    return algorithm._last_obs, algorithm._last_episode_starts


def update_info_buffer(algorithm: "BaseAlgorithm", infos: list[dict[str, Any]], dones: np.ndarray) -> None:
    """Have an algorithm note the episodes that the infos of a step tell of."""
    algorithm._update_info_buffer(infos, dones)


def has_torch_weights(algorithm: "type[BaseAlgorithm]") -> bool:
    """:return: whether its models save weights of PyTorch, as far as the class tells"""
    try:
        state_dicts, tensors = algorithm._get_torch_save_params(object.__new__(algorithm))
    except Exception:
        # It looks at attributes that a model has.
        return True
    return bool(state_dicts or tensors)


def note_end_of_episode(buffer: "HerReplayBuffer", env: int) -> None:
    """Note that an episode of a column ends with the step that was added last."""
    buffer._compute_episode_length(env)


def reset_arguments(vec_env: "VecEnv") -> tuple[list[int | None], list[dict[str, Any]]]:
    """:return: the seeds and the options for the next reset of environments"""
    return vec_env._seeds, vec_env._options


def set_reset_arguments(vec_env: "VecEnv", seeds: Sequence[int | None], options: Sequence[dict[str, Any]]) -> None:
    """Set the seeds and the options for the next reset of environments."""
    vec_env._seeds, vec_env._options = list(seeds), list(options)


def clear_reset_arguments(vec_env: "VecEnv") -> None:
    """Have the next reset of environments use neither seeds nor options."""
    vec_env._reset_seeds()
    vec_env._reset_options()


def env_indices(vec_env: "VecEnv", indices: Any) -> list[int]:
    """:return: the numbers of some environments; ``None`` stands for all"""
    return list(vec_env._get_indices(indices))


def checkpoint_path(callback: "CheckpointCallback", content: str, extension: str) -> str:
    """
    :param content: what is saved, as in ``"replay_buffer_"``; empty for the model
    :param extension: the file's extension
    :return: where the callback saves it at present
    """
    return callback._checkpoint_path(content, extension)


def constructor_parameters(policy: "BasePolicy") -> dict[str, Any]:
    """:return: the arguments that it was constructed with"""
    return policy._get_constructor_parameters()


def mean_and_deviation(noise: "NormalActionNoise | OrnsteinUhlenbeckActionNoise") -> tuple[np.ndarray, np.ndarray]:
    """:return: ``mean`` and ``sigma`` of its constructor, ``[action_dim]``"""
    return noise._mu, noise._sigma


def theta_and_dt(noise: "OrnsteinUhlenbeckActionNoise") -> tuple[float, float]:
    """:return: ``theta`` and ``dt`` of its constructor"""
    return float(noise._theta), float(noise._dt)


def stop_recording(recorder: "VecVideoRecorder") -> None:
    """Have a ``VecVideoRecorder`` write what it has recorded, and record no more."""
    recorder._stop_recording()
