"""The benchmark of off-policy algorithms: who takes part, and how much is measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.contenders import AsyncContender, Mode, Trainee, VecEnvContender, policy_for
from benchmarks.slow_envs import Slowness
from benchmarks.speed.speed_settings import SpeedSettings
from sb3_walle.backends.limits import available_cpus
from sb3_walle.cli.algorithms import algorithm_class, sb3_class
from sb3_walle.cli.comparison import VEC_ENVS
from sb3_walle.cli.throughput import Stopwatch


@dataclass(frozen=True)
class OffPolicySpeed(SpeedSettings):
    """
    An off-policy algorithm of ours, and SB3's.

    :param algorithm: one of :data:`~sb3_walle.cli.arguments.ALGORITHMS`
    :param n_steps: environment steps of each measurement
    :param warm_up: environment steps before it, half of them random
    :param arguments: arguments of all contenders that are not SB3's defaults
    """

    algorithm: str = "sac"
    n_steps: int = 2_000
    warm_up: int = 600
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def trainees(self, slowness: Slowness | None = None) -> tuple[Trainee, ...]:
        sb3, ours = sb3_class(self.algorithm), algorithm_class(self.algorithm)
        common = {
            "train_freq": 1,
            "learning_starts": self.warm_up // 2,
            "buffer_size": 100_000,
            "seed": 0,
            **self.arguments,
        }
        modes: tuple[Mode, ...] = ("pipelined", "free")
        each = [AsyncContender(*shape, self.learner, slowness, ours) for shape in self._shapes()]
        names = [name for name in VEC_ENVS if not (self.skip_subproc and name == "SubprocVecEnv")]
        vec_envs = [VecEnvContender(name, self.n_samplers, slowness, sb3) for name in names]
        return (
            *(
                Trainee(f"{samplers.name}, {mode}", samplers, mode, {"info_keys": (), **common})
                for samplers in each
                for mode in modes
            ),
            *(Trainee(vec_env.name, vec_env, "sync", common) for vec_env in vec_envs),
        )

    def _shapes(self) -> list[tuple[int, int]]:
        # As many environments for all contenders, or there is nothing to compare.
        one_a_cpu = max(n for n in range(1, available_cpus() + 1) if self.n_samplers % n == 0)
        return [(n, self.n_samplers // n) for n in dict.fromkeys((self.n_samplers, one_a_cpu))]

    def stopwatch(self, n_envs: int, on_start: Callable[[], object] | None = None) -> Stopwatch:
        return Stopwatch(self.warm_up, self.n_steps, on_start)

    @property
    def collecting(self) -> Mapping[str, Any]:
        return {"learning_starts": 0}

    @property
    def training(self) -> Mapping[str, Mapping[str, Any]]:
        # For each step of all environments, and for each step of each.
        return {f"gradient_steps={number}, steps/s": {"gradient_steps": number} for number in (1, -1)}

    def in_words(self) -> str:
        given = ", ".join(f"{name}={value}" for name, value in self.arguments.items())
        but = f", but {given}" if given else ""
        policy = policy_for(self.env_id)
        return f"{self.n_samplers} environments, {policy} on the CPU, train_freq=1\nSB3's hyperparameters{but}"
