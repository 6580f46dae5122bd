"""The models that everything bad happens to: every algorithm family, in every mode."""

from pathlib import Path
from typing import Any

import numpy as np

from sb3_walle import AsyncDQN, AsyncMaskablePPO, AsyncPPO, AsyncRecurrentPPO, AsyncTRPO

MODES = ("sync", "pipelined", "free")
#: a mode of AsyncPPO, or the name of another algorithm and its mode
KINDS = (*MODES, "DQN pipelined")
_ALGORITHMS = {
    "": AsyncPPO,
    "DQN": AsyncDQN,
    "TRPO": AsyncTRPO,
    "MaskablePPO": AsyncMaskablePPO,
    "RecurrentPPO": AsyncRecurrentPPO,
}


def make_model(
    kind: str,
    env: Any,
    *,
    n_steps: int,
    batch_size: int = 32,
    n_epochs: int = 1,
    policy_kwargs: Any = None,
    **kwargs: Any,
) -> Any:
    """
    :param kind: a mode, or the name of another algorithm and a mode
    :param env: the environment
    :param n_steps: steps of each environment in a rollout, for every algorithm
    :param batch_size: of PPO
    :param n_epochs: of PPO, and of TRPO's critic
    :param policy_kwargs: of any
    :param kwargs: further arguments that all algorithms of ours take
    :return: the model
    """
    algorithm, mode = _parts(kind)
    policy = "MlpPolicy"
    if algorithm is AsyncDQN:
        own: dict[str, Any] = {
            "train_freq": n_steps,
            "batch_size": 8,
            "learning_starts": 20,
            "buffer_size": 25_000,
        }
        policy_kwargs = policy_kwargs or {"net_arch": [4]}
    else:
        epochs = "n_critic_updates" if algorithm is AsyncTRPO else "n_epochs"
        own = {"n_steps": n_steps, "batch_size": batch_size, epochs: n_epochs}
    if algorithm is AsyncRecurrentPPO:
        policy, policy_kwargs = "MlpLstmPolicy", {"lstm_hidden_size": 4, "net_arch": [4]}
    return algorithm(policy, env, mode=mode, device="cpu", policy_kwargs=policy_kwargs, **own, **kwargs)


def load_model(kind: str, path: Path) -> Any:
    """
    :param kind: how the model was made
    :param path: where it was saved
    :return: the model, without environments
    """
    return _parts(kind)[0].load(path)


def learned_observations(model: Any) -> np.ndarray:
    """What the model has learned from last, or from the beginning on."""
    if isinstance(model, AsyncPPO | AsyncTRPO):
        return model.rollout_buffer.observations  # type: ignore[return-value]
    return model.replay_buffer.observations[: model.replay_buffer.pos]  # type: ignore[no-any-return]


def is_ordered(kind: str) -> bool:
    """Whether every column belongs to one environment."""
    return _parts(kind)[1] != "free"


def _parts(kind: str) -> tuple[Any, str]:
    name, _, mode = kind.rpartition(" ")
    return _ALGORITHMS[name], mode
