"""What a training run prints at its end: its result, where that lies, and how to load and evaluate it."""

import inspect
import math
from collections.abc import Sequence
from pathlib import Path

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_walle.cli.algorithms import sb3_class
from sb3_walle.cli.environments import WrapperSpec
from sb3_walle.cli.realtime_summary import realtime_summary
from sb3_walle.cli.training import (
    LEARNING_CURVE,
    MODEL,
    PROGRESS,
    REALTIME,
    STATISTICS,
    TrainingOutcome,
    TrainingSettings,
)
from sb3_walle.cli.video import VIDEO
from sb3_walle.timeline.callback import PICTURE, TRACE


def training_summary(settings: TrainingSettings, outcome: TrainingOutcome) -> str:
    directory = outcome.directory
    ended = "Interrupted" if outcome.interrupted else "Finished"
    lines = [f"{ended} after {outcome.timesteps:,} timesteps and {outcome.minutes:.1f} minutes"]
    if not math.isnan(outcome.mean_reward):
        lines[0] += f", with a mean reward of {outcome.mean_reward:,.1f} in the last 100 episodes"
    lines += [
        f"  model           {directory / MODEL}",
        f"  log             {directory / PROGRESS}, and TensorBoard events: tensorboard --logdir '{directory}'",
        f"  learning curve  {directory / LEARNING_CURVE}",
    ]
    if outcome.realtime is not None:
        lines.append(f"  real time       {directory / REALTIME}")
    if settings.timeline:
        lines.append(f"  timeline        {directory / PICTURE}, and for https://ui.perfetto.dev {directory / TRACE}")
    statistics = directory / STATISTICS
    if statistics.exists():
        lines.insert(2, f"  statistics      {statistics}, of VecNormalize, which the model needs")
    if settings.video:
        lines.append(f"  video           {f'none: {outcome.no_video}' if outcome.no_video else directory / VIDEO}")
    if outcome.realtime is not None:
        lines += ["", realtime_summary(outcome.realtime)]
    return "\n".join([*lines, "", "In Python, this loads and evaluates it:", evaluation(settings, directory)])


def evaluation(settings: TrainingSettings, directory: Path) -> str:
    """:return: lines of Python that load the model of a run and evaluate it"""
    algorithm = sb3_class(settings.algo)
    wrappers = settings.wrappers
    imports = [
        f"from {algorithm.__module__.partition('.')[0]} import {algorithm.__name__}",
        "from stable_baselines3.common.env_util import make_vec_env",
        f"from {evaluation_module(algorithm)} import evaluate_policy",
    ]
    imports += [f"from {wrapper.module} import {wrapper.class_name}" for wrapper in wrappers]
    wrapped = f", wrapper_class=lambda env: {nested(wrappers)}" if wrappers else ""
    statements = [f"env = make_vec_env({settings.env_id!r}{wrapped})"]
    if settings.frame_stack:
        imports.append("from stable_baselines3.common.vec_env import VecFrameStack")
        statements.append(f"env = VecFrameStack(env, {settings.frame_stack})")
    statistics = directory / STATISTICS
    if statistics.exists():
        imports.append("from stable_baselines3.common.vec_env import VecNormalize")
        statements += [f"env = VecNormalize.load({str(statistics)!r}, env)", "env.training = False"]
    statements += [
        f"model = {algorithm.__name__}.load({str(directory / MODEL)!r}, env)",
        "print(evaluate_policy(model, model.get_env()))",
    ]
    return "\n".join([*imports, *statements])


def evaluation_module(algorithm: type[BaseAlgorithm]) -> str:
    """:return: the module whose ``evaluate_policy()`` suits an algorithm: some take action masks"""
    if "action_masks" in inspect.signature(algorithm.predict).parameters:
        return "sb3_contrib.common.maskable.evaluation"
    return "stable_baselines3.common.evaluation"


def nested(wrappers: Sequence[WrapperSpec]) -> str:
    """:return: Python that puts wrappers around ``env``, from the inside to the outside"""
    code = "env"
    for wrapper in wrappers:
        arguments = "".join(f", {name}={value!r}" for name, value in wrapper.arguments.items())
        code = f"{wrapper.class_name}({code}{arguments})"
    return code
