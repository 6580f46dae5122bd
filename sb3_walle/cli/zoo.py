"""
Tuned hyperparameters of the RL Zoo (https://github.com/DLR-RM/rl-baselines3-zoo), where rl_zoo3 is installed.

Only its files are read, as its ``ExperimentManager`` reads them: to import the package would change Gymnasium and NumPy
for the whole process.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.noise import ActionNoise, NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.utils import LinearSchedule

from sb3_walle.cli.algorithms import sb3_defaults
from sb3_walle.cli.environments import WrapperSpec, quiet_factory
from sb3_walle.cli.hyperparameters import Hyperparameters, without_version

# What the Zoo's files may name where they hold Python.
NAMES: Mapping[str, Any] = {
    "dict": dict,
    "nn": th.nn,
    "th": th,
    "HerReplayBuffer": HerReplayBuffer,
    "RMSpropTFLike": RMSpropTFLike,
}
PYTHON = ("policy_kwargs", "replay_buffer_class", "replay_buffer_kwargs", "normalize")
SCHEDULES = ("learning_rate", "clip_range", "clip_range_vf")
NOISES: Mapping[str, type[ActionNoise]] = {
    "normal": NormalActionNoise,
    "ornstein-uhlenbeck": OrnsteinUhlenbeckActionNoise,
}
# Algorithms that have another name there.
NAMES_THERE: Mapping[str, str] = {"recurrent_ppo": "ppo_lstm"}
# Rows for many environments.
ATARI, DEFAULT = "atari", "default"
# What any row has, SB3's defaults included.
OF_ANY_ROW = {"n_timesteps", "policy"}


@dataclass(frozen=True)
class NoiseSpec:
    """
    Action noise of an environment whose actions are not known yet.

    :param noise_class: SB3's class of it
    :param std: its standard deviation, of every action
    """

    noise_class: type[ActionNoise]
    std: float

    def create(self, space: spaces.Space) -> ActionNoise:
        """
        :param space: the action space
        """
        shape = space.shape or ()
        return self.noise_class(mean=np.zeros(shape), sigma=np.full(shape, self.std))  # type: ignore[call-arg]

    def __repr__(self) -> str:
        return f"{self.noise_class.__name__}({self.std})"


def zoo_files() -> Path | None:
    """:return: the folder with the Zoo's files, one an algorithm; ``None`` if rl_zoo3 is not installed"""
    package = find_spec("rl_zoo3")
    return None if package is None or package.origin is None else Path(package.origin).parent / "hyperparams"


def zoo_file(algorithm: str) -> Path | None:
    """:return: the file of an algorithm; ``None`` if there is no such file, or no Zoo"""
    folder = zoo_files()
    file = None if folder is None else folder / f"{NAMES_THERE.get(algorithm, algorithm)}.yml"
    return file if file is not None and file.exists() else None


def zoo_hyperparameters(algorithm: str, env_id: str) -> Hyperparameters | None:
    """
    :param algorithm: one of :data:`~sb3_walle.cli.arguments.TRAINABLE`
    :return: what the Zoo has for an environment, for the same environment of another version, or for any environment
        where that is more than SB3's defaults; ``None`` if there is no such thing, or no Zoo
    """
    file = zoo_file(algorithm)
    if file is None:
        return None
    # The Zoo needs it, this package does not.
    import yaml

    rows = yaml.safe_load(file.read_text())
    name = _name_of_row(rows, env_id)
    if name is None:
        return None
    source = f"the RL Zoo's hyperparams/{file.name}"
    if name != env_id.rpartition(":")[2]:
        source += f" ('{name}')"
    return _converted(rows[name], algorithm, source, fits_any_env=name == DEFAULT)


def _name_of_row(rows: Mapping[str, Mapping[str, Any]], env_id: str) -> str | None:
    wanted = env_id.rpartition(":")[2]
    if wanted in rows:
        return wanted
    other_versions = [name for name in rows if without_version(name) == without_version(wanted)]
    if other_versions:
        # The newest one.
        return max(other_versions, key=lambda name: int(name.rpartition("-v")[2]))
    if ATARI in rows and _is_atari(env_id):
        return ATARI
    return DEFAULT if rows.get(DEFAULT, {}).keys() - OF_ANY_ROW else None


def _is_atari(env_id: str) -> bool:
    try:
        return "AtariEnv" in str(quiet_factory(env_id).spec.entry_point)
    except (gym.error.Error, ModuleNotFoundError):
        # A later check says in its own words that there is no such environment.
        return False


def _converted(row: Mapping[str, Any], algorithm: str, source: str, fits_any_env: bool) -> Hyperparameters:
    left = dict(row)
    total_timesteps, n_envs = int(left.pop("n_timesteps")), left.pop("n_envs", 1)
    policy, frame_stack = left.pop("policy", None), left.pop("frame_stack", None)
    wrappers = tuple(_wrapper(entry) for entry in _listed(left.pop("env_wrapper", None)))
    here = tuple(wrapper for wrapper in wrappers if _is_installed(wrapper))
    left_out = [f"{w.path}, whose package is not installed" for w in wrappers if w not in here]
    noise = left.pop("noise_type", None)
    noise_std = left.pop("noise_std", 0.0)
    known = {*sb3_defaults(algorithm), "normalize"}
    arguments = {name: _value(name, value) for name, value in left.items() if name in known}
    if noise is not None:
        arguments["action_noise"] = NoiseSpec(NOISES[noise.strip()], noise_std)
    left_out += [f"{name}={value}" for name, value in left.items() if name not in known and value is not None]
    own_policy = None if fits_any_env else policy
    return Hyperparameters(source, total_timesteps, n_envs, arguments, own_policy, here, frame_stack, tuple(left_out))


def _value(name: str, value: Any) -> Any:
    """An argument as SB3 takes it."""
    if name in SCHEDULES and isinstance(value, str):
        # lin_0.001 falls to 0 in proportion to what is left of the training.
        return LinearSchedule(float(value.removeprefix("lin_")), 0, 1)
    if name in PYTHON and isinstance(value, str):
        return eval(value, {"__builtins__": {}, **NAMES})
    return tuple(value) if name == "train_freq" and isinstance(value, list) else value


def _listed(entries: Any) -> Iterable[Any]:
    if entries is None:
        return ()
    return entries if isinstance(entries, list) else (entries,)


def _wrapper(entry: str | Mapping[str, Mapping[str, Any]]) -> WrapperSpec:
    return WrapperSpec(entry) if isinstance(entry, str) else WrapperSpec(*next(iter(entry.items())))


def _is_installed(wrapper: WrapperSpec) -> bool:
    return find_spec(wrapper.path.partition(".")[0]) is not None
