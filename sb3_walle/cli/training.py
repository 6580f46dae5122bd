"""A training run from the command line: what it prints and the directory that it leaves behind."""

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

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, LogEveryNTimesteps, ProgressBarCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import get_device, safe_mean
from stable_baselines3.common.vec_env import VecFrameStack

from sb3_walle.cli.algorithms import algorithm_class, check_masks, is_on_policy, policy_of, sb3_class, sb3_defaults
from sb3_walle.cli.arguments import UsageError
from sb3_walle.cli.environments import WrapperSpec, check_environment, quiet_factory, usage_errors
from sb3_walle.cli.learning_curve import plot_learning_curve
from sb3_walle.cli.realtime_picture import draw_realtime
from sb3_walle.cli.video import VIDEO, VideoRequest, record_video
from sb3_walle.cli.zoo import NoiseSpec
from sb3_walle.collection import modes
from sb3_walle.envs.env_sources import EnvSource, SamplerChoices, in_samplers
from sb3_walle.envs.sampler_shape import Workload
from sb3_walle.on_policy.rollout_choice import EPISODES, one_env_each
from sb3_walle.realtime.statistics import RealtimeStatistics
from sb3_walle.saving import written_whole
from sb3_walle.timeline.callback import TimelineCallback

MODEL = "model.zip"
PROGRESS = "progress.csv"
LEARNING_CURVE = "learning_curve.png"
SETTINGS = "settings.json"
REALTIME = "realtime.png"
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
OF_OFF_POLICY = ("buffer_size", "learning_starts", "tau", "train_freq", "gradient_steps")
# More tables than these tell a reader no more.
N_LOGS = 100


@dataclass(frozen=True)
class TrainingSettings:
    """
    What to train and where to put it.

    :param total_timesteps: environment steps to train for, all environments together
    :param algo: one of :data:`~sb3_walle.cli.arguments.TRAINABLE`
    :param policy: the policy; ``None`` for the one that suits the environment's observations
    :param wrappers: wrappers around each environment, from the inside to the outside
    :param frame_stack: observations that the policy sees at once; ``None`` for one alone
    :param runs: the directory in which the run's own directory is made
    :param algorithm: further arguments of the algorithm by name
    :param reason: which hyperparameters these are, and why, in one line
    :param timeline: whether to leave a timeline, too
    :param video: whether to leave a video of the trained agent
    """

    env_id: str
    total_timesteps: int
    algo: str = "ppo"
    policy: str | None = None
    wrappers: tuple[WrapperSpec, ...] = ()
    frame_stack: int | None = None
    runs: Path = Path("runs")
    algorithm: Mapping[str, Any] = field(default_factory=dict)
    reason: str = "SB3's defaults"
    timeline: bool = False
    video: bool = True


@dataclass(frozen=True)
class TrainingOutcome:
    """
    How a run ended.

    :param timesteps: environment steps that the model was trained for, all environments together
    :param interrupted: whether Ctrl-C ended it
    :param mean_reward: mean reward of the last 100 episodes; not a number if none has ended
    :param no_video: why there is no video, if one was asked for
    :param realtime: in mode ``"realtime"``, how well the control loop kept time
    """

    directory: Path
    timesteps: int
    interrupted: bool
    minutes: float
    mean_reward: float
    no_video: str | None = None
    realtime: RealtimeStatistics | None = None


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


def create_model(settings: TrainingSettings) -> Any:
    """
    :return: the algorithm, with the environment in its samplers
    :raises UsageError: if it refuses its arguments, or does not support the environment's spaces
    """
    env = check_environment(settings.env_id)
    policy = settings.policy or policy_of(env, settings.algo)
    known = algorithm_class(settings.algo).policy_aliases
    if policy not in known:
        raise UsageError(f"--algo {settings.algo} has no {policy}, but {', '.join(known)}")
    if policy.startswith("MultiInput") and not isinstance(env.observation_space, spaces.Dict):
        raise UsageError(f"{policy} is for observations that are dictionaries, not {env.observation_space}")
    device = settings.algorithm.get("device", "auto")
    try:
        get_device(device)
    except RuntimeError as error:
        raise UsageError(f"unknown device '{device}': {error}") from error
    arguments = dict(settings.algorithm)
    noise = arguments.get("action_noise")
    if isinstance(noise, NoiseSpec):
        arguments["action_noise"] = noise.create(env.action_space)
    fallback = arguments.get("fallback_action")
    if isinstance(fallback, list):
        arguments["fallback_action"] = as_action(fallback, env.action_space)
    with usage_errors():
        source: EnvSource = quiet_factory(settings.env_id, settings.wrappers)
        if arguments.get("rollout") == EPISODES:
            arguments = one_env_each({}, arguments)
        if settings.frame_stack:
            source = stacked(source, settings.frame_stack, arguments)
        model = algorithm_class(settings.algo)(policy, source, verbose=1, **arguments)
    check_masks(model)
    return model


def as_action(numbers: list[float], space: spaces.Space) -> Any:
    """:return: an action of the space, if there are as many numbers as it has"""
    if isinstance(space, spaces.Discrete) and len(numbers) == 1:
        return int(numbers[0])
    action = np.array(numbers, space.dtype)
    return action.reshape(space.shape) if action.size == np.prod(space.shape or ()) else action


def stacked(factory: EnvSource, n_stack: int, arguments: dict[str, Any]) -> VecFrameStack:
    """
    :param arguments: of the algorithm; those that say how to start samplers are taken out
    :return: samplers inside of a ``VecFrameStack``
    """
    workload = Workload(has_seed=arguments.get("seed") is not None, verbose=1)
    preload = ("torch", "stable_baselines3")
    choices = SamplerChoices.taken_from(arguments)
    if arguments.get("mode") == modes.REALTIME:
        choices = choices.for_plants(factory)
    with in_samplers(factory, choices, preload, workload) as samplers:
        assert samplers is not None
        return VecFrameStack(samplers, n_stack)


def save_run(model: Any, directory: Path) -> None:
    """
    Write the model, the statistics of ``VecNormalize`` if there is one, the learning curve of what has been logged, and
    how well a control loop kept time.
    """
    vec_normalize = model.get_vec_normalize_env()
    if vec_normalize is not None:
        with written_whole(directory / STATISTICS) as file:
            pickle.dump(vec_normalize, file)
    model.save(directory / MODEL)
    plot_learning_curve(directory / PROGRESS, directory / LEARNING_CURVE)
    statistics = realtime_statistics(model)
    if statistics is not None:
        draw_realtime(statistics, directory.name, directory / REALTIME)


def realtime_statistics(model: Any) -> RealtimeStatistics | None:
    """:return: how well the control loop has kept time, in mode ``"realtime"``"""
    return getattr(model, "realtime_statistics", None)


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
        log_interval, loggers = logging_of(settings, model)
        timelines = [TimelineCallback(directory)] if settings.timeline else []
        callbacks: list[BaseCallback] = [progress_bar, *loggers, *timelines]
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
    no_video = record_video(video_request(settings, directory)) if settings.video else None
    mean_reward = float(safe_mean(rewards))
    realtime = realtime_statistics(model)
    return TrainingOutcome(directory, model.num_timesteps, interrupted, minutes, mean_reward, no_video, realtime)


def video_request(settings: TrainingSettings, directory: Path) -> VideoRequest:
    statistics = directory / STATISTICS
    return VideoRequest(
        quiet_factory(settings.env_id, settings.wrappers),
        settings.frame_stack,
        sb3_class(settings.algo),
        directory / MODEL,
        statistics if statistics.exists() else None,
        directory / VIDEO,
    )


def logging_of(settings: TrainingSettings, model: Any) -> tuple[int | None, list[BaseCallback]]:
    """
    :return: ``log_interval`` of ``learn()``, and callbacks, for about as many tables in all as a reader wants
    """
    if is_on_policy(settings.algo):
        n_iterations = math.ceil(settings.total_timesteps / (model.n_steps * model.n_envs))
        return math.ceil(n_iterations / N_LOGS), []
    # Other algorithms count episodes, of which there may be any number.
    rollout = model.train_freq.frequency * model.n_envs
    return None, [LogEveryNTimesteps(max(math.ceil(settings.total_timesteps / N_LOGS), rollout))]


def describe(settings: TrainingSettings, model: Any) -> str:
    """:return: the settings as a JSON object"""

    def name_of(class_or_schedule: Any) -> str:
        return getattr(class_or_schedule, "__name__", repr(class_or_schedule))

    of_sb3 = sb3_defaults(settings.algo)
    if settings.algorithm.get("rollout") == EPISODES:
        of_sb3.pop("n_steps")
    values = {
        "env_id": settings.env_id,
        "wrappers": [wrapper.path for wrapper in settings.wrappers],
        "frame_stack": settings.frame_stack,
        "total_timesteps": settings.total_timesteps,
        "algo": settings.algo,
        "policy": next(name for name, known in model.policy_aliases.items() if known is type(model.policy)),
        **{name: of_sb3[name] for name in (*HYPERPARAMETERS, *OF_OFF_POLICY) if name in of_sb3},
        **settings.algorithm,
        "n_envs": model.n_envs,
    }
    return json.dumps(values, indent=2, default=name_of) + "\n"


def summary(settings: TrainingSettings, model: Any) -> str:
    """:return: what is about to be trained, in a few lines"""
    samplers = model.get_env().unwrapped
    shape = f"{plural(samplers.n_samplers, 'sampler')} of {plural(samplers.envs_per_sampler, 'environment')}"
    rollout, option, number = 0, "--n-steps", ""
    if is_on_policy(settings.algo):
        rollout = model.n_steps * model.n_envs
        number = f"; {rollout:,} timesteps an iteration"
    if settings.algorithm.get("rollout") == EPISODES:
        rollout, option = model.target_steps, "--target-steps"
        number = f"; about {rollout:,} timesteps an iteration, in whole episodes"
    lines = [
        f"Training {type(model).__name__} on {settings.env_id} for {settings.total_timesteps:,} timesteps",
        f"{shape}{number}",
        f"Hyperparameters: {settings.reason}",
    ]
    if settings.total_timesteps < rollout:
        lines.append(f"One iteration is more than that: training ends after it (a lower {option} makes it shorter)")
    return "\n".join(lines)


def plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
