"""What a training run prints at its end: its result, where that lies, and how to load and evaluate it."""

import math
from pathlib import Path

from sb3_walle.cli.training import (
    LEARNING_CURVE,
    MODEL,
    PROGRESS,
    STATISTICS,
    TrainingOutcome,
    TrainingSettings,
)
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
    if settings.timeline:
        lines.append(f"  timeline        {directory / PICTURE}, and for https://ui.perfetto.dev {directory / TRACE}")
    statistics = directory / STATISTICS
    if statistics.exists():
        lines.insert(2, f"  statistics      {statistics}, of VecNormalize, which the model needs")
    return "\n".join([*lines, "", "In Python, this loads and evaluates it:", evaluation(settings.env_id, directory)])


def evaluation(env_id: str, directory: Path) -> str:
    """:return: lines of Python that load the model of a run and evaluate it"""
    imports = [
        "from stable_baselines3 import PPO",
        "from stable_baselines3.common.env_util import make_vec_env",
        "from stable_baselines3.common.evaluation import evaluate_policy",
    ]
    statements = [f"env = make_vec_env({env_id!r})"]
    statistics = directory / STATISTICS
    if statistics.exists():
        imports.append("from stable_baselines3.common.vec_env import VecNormalize")
        statements += [f"env = VecNormalize.load({str(statistics)!r}, env)", "env.training = False"]
    statements += [
        f"model = PPO.load({str(directory / MODEL)!r}, env)",
        "print(evaluate_policy(model, model.get_env()))",
    ]
    return "\n".join([*imports, *statements])
