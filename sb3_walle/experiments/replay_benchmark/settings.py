"""What a benchmark of an off-policy algorithm is asked for, and who takes part in it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
from stable_baselines3 import DDPG, DQN, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_walle import AsyncDDPG, AsyncDQN, AsyncSAC, AsyncTD3
from sb3_walle.experiments.contenders import VEC_ENVS, Mode, env_factory
from sb3_walle.experiments.slow_envs import Slowness

#: SB3's algorithm and ours, by name
ALGORITHMS: dict[str, tuple[type[OffPolicyAlgorithm], type[OffPolicyAlgorithm]]] = {
    "sac": (SAC, AsyncSAC),
    "td3": (TD3, AsyncTD3),
    "ddpg": (DDPG, AsyncDDPG),
    "dqn": (DQN, AsyncDQN),
}
#: what can be measured by itself
PARTS = ("collection", "update", "end-to-end", "slow")
#: gradient steps for each step of all environments; -1: one for each step of each
GRADIENT_STEPS = (1, -1)
#: of the simulator that waits, in seconds
STEP_LATENCY = 5e-3


@dataclass(frozen=True)
class ReplaySettings:
    """
    What to measure, and with what. All contenders have the same hyperparameters: SB3's, but for what is given here.

    :param env_id: Gymnasium id of the environment
    :param algorithm: one of :data:`ALGORITHMS`
    :param n_samplers: samplers of one environment, and environments of SB3's VecEnvs
    :param steps: environment steps of each measurement, all environments together
    :param warm_up: environment steps before, of which half are random
    :param repeats: times to measure everything
    :param learner: which update ours makes
    :param skip_subproc: leave out SubprocVecEnv
    :param parts: what to measure, of :data:`PARTS`
    :param arguments: further arguments of all contenders
    """

    env_id: str
    algorithm: str
    n_samplers: int = 10
    steps: int = 2_000
    warm_up: int = 600
    repeats: int = 3
    learner: str = "compiled"
    skip_subproc: bool = False
    parts: tuple[str, ...] = PARTS
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def contenders(self) -> "tuple[ReplayContender, ...]":
        """Ours in the two modes that overlap, and SB3's with each VecEnv."""
        sb3, ours = ALGORITHMS[self.algorithm]
        vec_envs = [name for name in VEC_ENVS if not (self.skip_subproc and name == "SubprocVecEnv")]
        modes: tuple[Mode, ...] = ("pipelined", "free")
        return (
            *(ReplayContender(ours, self.n_samplers, mode=mode, learner=self.learner) for mode in modes),
            *(ReplayContender(sb3, self.n_samplers, vec_env=name) for name in vec_envs),
        )


@dataclass(frozen=True)
class ReplayContender:
    """
    An algorithm in one configuration.

    :param algorithm: its class
    :param n_envs: number of environments
    :param vec_env: name of SB3's VecEnv; ``None`` for samplers
    :param mode: how samplers and the learner overlap
    :param learner: which update is made
    """

    algorithm: type[OffPolicyAlgorithm]
    n_envs: int
    vec_env: str | None = None
    mode: Mode = "pipelined"
    learner: str = "eager"

    @property
    def name(self) -> str:
        """What the report calls it."""
        if self.vec_env is None:
            return f"{self.algorithm.__name__}, {self.n_envs} samplers, {self.mode}"
        return f"{self.algorithm.__name__}, {self.vec_env}({self.n_envs})"

    def create(self, env_id: str, slowness: Slowness | None, **arguments: Any) -> OffPolicyAlgorithm:
        """
        Build the algorithm.

        :param env_id: Gymnasium id of the environment
        :param slowness: how slow it is to be; None for as it is
        :param arguments: further arguments of the algorithm
        :return: the algorithm
        """
        factory: Callable[[], gym.Env] = env_factory(env_id, slowness)
        # Any of them takes these.
        algorithm: Any = self.algorithm
        if self.vec_env is not None:
            return algorithm(
                "MlpPolicy", make_vec_env(factory, self.n_envs, vec_env_cls=VEC_ENVS[self.vec_env]), **arguments
            )
        samplers = {"n_samplers": self.n_envs, "mode": self.mode, "learner": self.learner, "info_keys": ()}
        return algorithm("MlpPolicy", factory, **samplers, **arguments)
