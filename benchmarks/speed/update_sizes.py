"""How long updates take, of several networks and with minibatches of several sizes."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger

from benchmarks.speed.measurements import Found, Medians
from benchmarks.speed.ppo_speed import PPOSpeed
from benchmarks.text_tables import format_number
from sb3_walle.cli.tables import format_ratio, format_table
from sb3_walle.updates.ppo_update import PPOUpdate
from sb3_walle.updates.updater import Updater

SB3S, COMPILED = "SB3", "compiled"
BATCH_SIZES = (64, 256, 1024, 4096)
# Enough minibatches for a median, even of the smallest, in a time that does not matter.
SAMPLES = 4096


@dataclass(frozen=True)
class Net:
    """
    A policy and what it observes and does.

    :param policy: SB3's name of the policy
    :param observation_space: what it observes
    :param action_space: what it can do
    :param policy_kwargs: its arguments
    :param n_epochs: passes over the samples in an update
    """

    policy: str
    observation_space: spaces.Space
    action_space: spaces.Space
    policy_kwargs: dict[str, Any]
    n_epochs: int


# As HalfCheetah and Atari games have them.
JOINTS, MOTORS = spaces.Box(-np.inf, np.inf, (17,), np.float32), spaces.Box(-1.0, 1.0, (6,), np.float32)
FRAMES, BUTTONS = spaces.Box(0, 255, (4, 84, 84), np.uint8), spaces.Discrete(6)

NETS = {
    "64x64": Net("MlpPolicy", JOINTS, MOTORS, {"net_arch": [64, 64]}, n_epochs=10),
    "256x256": Net("MlpPolicy", JOINTS, MOTORS, {"net_arch": [256, 256]}, n_epochs=10),
    "CNN": Net("CnnPolicy", FRAMES, BUTTONS, {}, n_epochs=4),
}


class NoWorld(gym.Env):
    """Has spaces, and nothing happens in it."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space


def measure_update_sizes(settings: PPOSpeed) -> Iterator[Found]:
    """
    :param settings: of no effect
    :return: what updates of all networks with minibatches of all sizes take
    """
    for name, net in NETS.items():
        for batch_size in BATCH_SIZES:
            for who, microseconds in zip((SB3S, COMPILED), measure_update_size(net, batch_size), strict=True):
                yield _quantity(name, batch_size), who, microseconds


def sizes_table(medians: Medians) -> str:
    rows = []
    for batch_size in BATCH_SIZES:
        cells = [f"{batch_size}"]
        for net in NETS:
            sb3s, compiled = (medians.get(_quantity(net, batch_size), who) for who in (SB3S, COMPILED))
            cells += [format_number(sb3s), format_number(compiled), format_ratio(sb3s, compiled)]
        rows.append(cells)
    titles = [title for net in NETS for title in (f"{net}: SB3", "compiled", "faster")]
    return format_table(["minibatch", *titles], rows)


def _quantity(net: str, batch_size: int) -> str:
    return f"{net}, minibatches of {batch_size}, us/minibatch"


def algorithm_with_samples(net: Net, batch_size: int, seed: int = 0, device: str = "cpu") -> PPO:
    """
    :param seed: seed of the weights and of the samples
    :param device: where the policy is
    :return: SB3's PPO, with a rollout buffer that is full of random samples
    """
    model = PPO(
        net.policy,
        NoWorld(net.observation_space, net.action_space),
        n_steps=max(SAMPLES, batch_size),
        batch_size=batch_size,
        n_epochs=net.n_epochs,
        policy_kwargs=net.policy_kwargs,
        seed=seed,
        device=device,
    )
    # Of what train() records nothing is shown.
    model.set_logger(Logger(folder=None, output_formats=[]))
    buffer, random = model.rollout_buffer, np.random.default_rng(seed)
    if isinstance(net.observation_space, spaces.Box) and net.observation_space.dtype == np.uint8:
        buffer.observations = random.integers(0, 256, buffer.observations.shape, dtype=np.uint8)
    else:
        buffer.observations = random.standard_normal(buffer.observations.shape, dtype=np.float32)
    if isinstance(net.action_space, spaces.Discrete):
        buffer.actions = random.integers(0, net.action_space.n, buffer.actions.shape)
    else:
        buffer.actions = random.standard_normal(buffer.actions.shape, dtype=np.float32)
    for name in ("rewards", "values", "advantages", "returns"):
        setattr(buffer, name, random.standard_normal(buffer.values.shape, dtype=np.float32))
    observations, actions = (
        th.as_tensor(array[:, 0], device=device) for array in (buffer.observations, buffer.actions)
    )
    if isinstance(net.action_space, spaces.Discrete):
        actions = actions.flatten()
    with th.no_grad():
        buffer.log_probs[:, 0] = model.policy.evaluate_actions(observations, actions)[1].cpu().numpy()
    buffer.full, buffer.pos = True, buffer.buffer_size
    return model


def measure_update_size(net: Net, batch_size: int) -> tuple[float, float]:
    """
    Update with SB3's own ``train()`` and with the compiled one, each with all threads of torch.

    :return: microseconds a minibatch of each
    """
    by_sb3, by_us = (algorithm_with_samples(net, batch_size) for _ in range(2))
    learner = Updater(PPOUpdate(by_us), "compiled")
    learner.require()

    def update_compiled() -> None:
        learner.train(1, eagerly=_must_not_be_needed)

    def microseconds(model: PPO, update: Callable[[], None]) -> float:
        started = time.perf_counter()
        update()
        return 1e6 * (time.perf_counter() - started) / (model.n_epochs * -(-model.n_steps // batch_size))

    # The first ones allocate, and wait for the compiler.
    for n_epochs in (1, net.n_epochs):
        by_sb3.n_epochs = by_us.n_epochs = n_epochs
        times = microseconds(by_sb3, by_sb3.train), microseconds(by_us, update_compiled)
    return times


def _must_not_be_needed() -> None:
    raise RuntimeError("this update cannot be compiled here")
