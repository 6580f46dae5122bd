"""A training run from the command line: what it prints and the directory that it leaves behind."""

import inspect
import json
import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path
from time import time_ns
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import get_device, safe_mean
from stable_baselines3.ppo import PPO

from sb3_walle import AsyncPPO
from sb3_walle.cli.arguments import UsageError
from sb3_walle.cli.environments import check_environment, quiet_factory, usage_errors
from sb3_walle.cli.learning_curve import plot_learning_curve
from sb3_walle.saving import written_whole
from sb3_walle.timeline.callback import TimelineCallback

MODEL = "model.zip"
PROGRESS = "progress.csv"
LEARNING_CURVE = "learning_curve.png"
SETTINGS = "settings.json"
STATISTICS = "vecnormalize.pkl"
# What settings.json has of SB3's defaults, too.
HYPERPARAMETERS = (
    "learning_rate",
    "n_steps",
    "batch_size",
    "n_epochs",
    "gamma",
    "gae_lambda",
    "clip_range",
    "ent_coef",
)
# More tables than these tell a reader no more.
N_LOGS = 100


@dataclass(frozen=True)
class TrainingSettings:
    """
    What to train and where to put it.

    :param total_timesteps: environment steps to train for, all environments together
    :param runs: the directory in which the run's own directory is made
    :param algorithm: further arguments of :class:`~sb3_walle.AsyncPPO` by name
    :param reason: which hyperparameters these are, and why, in one line
    :param timeline: whether to leave a timeline, too
    """

    env_id: str
    total_timesteps: int
    policy: str = "MlpPolicy"
    runs: Path = Path("runs")
    algorithm: Mapping[str, Any] = field(default_factory=dict)
    reason: str = "SB3's defaults"
    timeline: bool = False


@dataclass(frozen=True)
class TrainingOutcome:
    """
    How a run ended.

    :param timesteps: environment steps that the model was trained for, all environments together
    :param interrupted: whether Ctrl-C ended it
    :param mean_reward: mean reward of the last 100 episodes; not a number if none has ended
    """

    directory: Path
    timesteps: int
    interrupted: bool
    minutes: float
    mean_reward: float


def create_run_directory(runs: Path, env_id: str) -> Path:
    """
    Make a new directory ``<env>-<time>`` in the directory of all runs.

    :raises UsageError: if that is impossible
    """
    name = f"{env_id.replace('/', '-').replace(':', '-')}-{datetime.now():%Y%m%d-%H%M%S}"
    directory = runs / name
    # Two runs may start within the same second.
    suffixes = count(2)
    while True:
        try:
            directory.mkdir(parents=True)
        except FileExistsError as error:
            if not runs.is_dir():
                raise UsageError(f"cannot make a run directory in '{runs}', which is not a directory") from error
            directory = runs / f"{name}-{next(suffixes)}"
        except OSError as error:
            raise UsageError(f"cannot make a run directory in '{runs}': {error.strerror}") from error
        else:
            return directory


def create_model(settings: TrainingSettings) -> AsyncPPO:
    """
    :return: the algorithm, with the environment in its samplers
    :raises UsageError: if it refuses its arguments, or does not support the environment's spaces
    """
    env = check_environment(settings.env_id)
    if settings.policy == "MultiInputPolicy" and not isinstance(env.observation_space, spaces.Dict):
        raise UsageError(f"MultiInputPolicy is for observations that are dictionaries, not {env.observation_space}")
    device = settings.algorithm.get("device", "auto")
    try:
        get_device(device)
    except RuntimeError as error:
        raise UsageError(f"unknown device '{device}': {error}") from error
    with usage_errors():
        return AsyncPPO(settings.policy, quiet_factory(settings.env_id), verbose=1, **settings.algorithm)


def save_run(model: AsyncPPO, directory: Path) -> None:
    """
    Write the model, the statistics of ``VecNormalize`` if there is one, and the learning curve of what has been logged.
    """
    vec_normalize = model.get_vec_normalize_env()
    if vec_normalize is not None:
        with written_whole(directory / STATISTICS) as file:
            pickle.dump(vec_normalize, file)
    model.save(directory / MODEL)
    plot_learning_curve(directory / PROGRESS, directory / LEARNING_CURVE)


def train(settings: TrainingSettings) -> TrainingOutcome:
    """
    Train a model and leave its run directory. Ctrl-C ends the training early, and the model is saved as it is.

    :raises UsageError: if the settings make no sense
    """
    model = create_model(settings)
    env = model.get_env()
    assert env is not None
    progress_bar = ProgressBarCallback()
    interrupted = False
    try:
        directory = create_run_directory(settings.runs, settings.env_id)
        (directory / SETTINGS).write_text(describe(settings, model))
        print(summary(settings, model))
        model.set_logger(configure(str(directory), ["stdout", "csv", "tensorboard"]))
        n_iterations = math.ceil(settings.total_timesteps / (model.n_steps * model.n_envs))
        log_interval = math.ceil(n_iterations / N_LOGS)
        timelines = [TimelineCallback(directory)] if settings.timeline else []
        callbacks: list[BaseCallback] = [progress_bar, *timelines]
        try:
            model.learn(settings.total_timesteps, callback=callbacks, log_interval=log_interval)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            # learn() leaves the bar open when an exception ends it, and with it a terminal without a cursor.
            if hasattr(progress_bar, "pbar"):
                progress_bar.on_training_end()
            # A training of hours may have ended by an error or by Ctrl-C.
            save_run(model, directory)
            for timeline in timelines:
                timeline.write()
            model.logger.close()
    finally:
        env.close()
    minutes = (time_ns() - model.start_time) / 60e9
    rewards = [episode["r"] for episode in model.ep_info_buffer or ()]
    return TrainingOutcome(directory, model.num_timesteps, interrupted, minutes, float(safe_mean(rewards)))


def describe(settings: TrainingSettings, model: AsyncPPO) -> str:
    """:return: the settings as a JSON object"""

    def name_of(class_or_schedule: Any) -> str:
        return getattr(class_or_schedule, "__name__", repr(class_or_schedule))

    of_sb3 = inspect.signature(PPO.__init__).parameters
    values = {
        "env_id": settings.env_id,
        "total_timesteps": settings.total_timesteps,
        "policy": settings.policy,
        **{name: of_sb3[name].default for name in HYPERPARAMETERS},
        **settings.algorithm,
        "n_envs": model.n_envs,
    }
    return json.dumps(values, indent=2, default=name_of) + "\n"


def summary(settings: TrainingSettings, model: AsyncPPO) -> str:
    """:return: what is about to be trained, in a few lines"""
    rollout = model.n_steps * model.n_envs
    envs_per_sampler = settings.algorithm.get("envs_per_sampler", 1)
    lines = [
        f"Training {type(model).__name__} on {settings.env_id} for {settings.total_timesteps:,} timesteps",
        f"{plural(model.n_envs // envs_per_sampler, 'sampler')} of {plural(envs_per_sampler, 'environment')}; "
        f"{rollout:,} timesteps an iteration",
        f"Hyperparameters: {settings.reason}",
    ]
    if settings.total_timesteps < rollout:
        lines.append("One iteration is more than that: training ends after it (a lower --n-steps makes it shorter)")
    return "\n".join(lines)


def plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
