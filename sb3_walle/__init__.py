"""Asynchronous samplers for Stable-Baselines3."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "AdaptiveTrustRegion",
    "AsyncA2C",
    "AsyncDDPG",
    "AsyncDQN",
    "AsyncEvalCallback",
    "AsyncOffPolicyMixin",
    "AsyncOnPolicyMixin",
    "AsyncPPO",
    "AsyncSAC",
    "AsyncTD3",
    "LastActionsObservation",
    "NonFiniteError",
    "PrioritizedReplayBuffer",
    "SafeCheckpointCallback",
    "SamplerError",
    "SamplerVecEnv",
    "SamplerWarning",
    "TimelineCallback",
    "__version__",
]
if find_spec("sb3_contrib") is not None:
    # Where it is missing, "import *" must not ask for these.
    __all__ += [
        "AsyncCrossQ",
        "AsyncMaskablePPO",
        "AsyncQRDQN",
        "AsyncRecurrentPPO",
        "AsyncTQC",
        "AsyncTRPO",
    ]

if TYPE_CHECKING:
    from sb3_walle.algorithms.a2c import AsyncA2C
    from sb3_walle.algorithms.crossq import AsyncCrossQ
    from sb3_walle.algorithms.ddpg import AsyncDDPG
    from sb3_walle.algorithms.dqn import AsyncDQN
    from sb3_walle.algorithms.maskable_ppo import AsyncMaskablePPO
    from sb3_walle.algorithms.ppo import AsyncPPO
    from sb3_walle.algorithms.qrdqn import AsyncQRDQN
    from sb3_walle.algorithms.recurrent_ppo import AsyncRecurrentPPO
    from sb3_walle.algorithms.sac import AsyncSAC
    from sb3_walle.algorithms.td3 import AsyncTD3
    from sb3_walle.algorithms.tqc import AsyncTQC
    from sb3_walle.algorithms.trpo import AsyncTRPO
    from sb3_walle.callbacks import AdaptiveTrustRegion, AsyncEvalCallback, SafeCheckpointCallback
    from sb3_walle.envs.vec_env import SamplerVecEnv
    from sb3_walle.errors import NonFiniteError
    from sb3_walle.off_policy import AsyncOffPolicyMixin
    from sb3_walle.on_policy import AsyncOnPolicyMixin
    from sb3_walle.replay.prioritized_replay_buffer import PrioritizedReplayBuffer
    from sb3_walle.samplers.errors import SamplerError, SamplerWarning
    from sb3_walle.samplers.last_actions import LastActionsObservation
    from sb3_walle.timeline.callback import TimelineCallback

_HOMES = {
    "AdaptiveTrustRegion": "sb3_walle.callbacks",
    "AsyncA2C": "sb3_walle.algorithms.a2c",
    "AsyncDDPG": "sb3_walle.algorithms.ddpg",
    "AsyncDQN": "sb3_walle.algorithms.dqn",
    "AsyncEvalCallback": "sb3_walle.callbacks",
    "AsyncOffPolicyMixin": "sb3_walle.off_policy",
    "AsyncOnPolicyMixin": "sb3_walle.on_policy",
    "AsyncPPO": "sb3_walle.algorithms.ppo",
    "AsyncSAC": "sb3_walle.algorithms.sac",
    "AsyncTD3": "sb3_walle.algorithms.td3",
    "LastActionsObservation": "sb3_walle.samplers.last_actions",
    "NonFiniteError": "sb3_walle.errors",
    "PrioritizedReplayBuffer": "sb3_walle.replay.prioritized_replay_buffer",
    "SafeCheckpointCallback": "sb3_walle.callbacks",
    "SamplerError": "sb3_walle.samplers.errors",
    "SamplerVecEnv": "sb3_walle.envs.vec_env",
    "SamplerWarning": "sb3_walle.samplers.errors",
    "TimelineCallback": "sb3_walle.timeline.callback",
}
# What stands in front of algorithms of sb3-contrib.
_CONTRIB = {
    "AsyncCrossQ": "sb3_walle.algorithms.crossq",
    "AsyncMaskablePPO": "sb3_walle.algorithms.maskable_ppo",
    "AsyncQRDQN": "sb3_walle.algorithms.qrdqn",
    "AsyncRecurrentPPO": "sb3_walle.algorithms.recurrent_ppo",
    "AsyncTQC": "sb3_walle.algorithms.tqc",
    "AsyncTRPO": "sb3_walle.algorithms.trpo",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: samplers import this package too, and most of them never need torch.
    home = _HOMES.get(name) or _CONTRIB.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _CONTRIB and find_spec("sb3_contrib") is None:
        raise ImportError(f'{name} needs sb3-contrib: pip install "sb3_walle[contrib]"')
    from importlib import import_module

    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
