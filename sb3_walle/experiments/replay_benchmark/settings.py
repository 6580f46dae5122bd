"""What a benchmark of an off-policy algorithm is asked for, and who takes part in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sb3_walle.env_sources import available_cpus
from sb3_walle.experiments.contenders import VEC_ENVS, AsyncContender, Mode, Trainee, VecEnvContender
from sb3_walle.experiments.off_policy_algorithms import ALGORITHMS
from sb3_walle.experiments.slow_envs import Slowness

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
    :param algorithm: one of :data:`~sb3_walle.experiments.off_policy_algorithms.ALGORITHMS`
    :param n_samplers: samplers of one environment, and environments of all other contenders
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
    def arguments_in_words(self) -> str:
        """How the algorithm is set."""
        given = ", ".join(f"{name}={value}" for name, value in self.arguments.items())
        return f"SB3's hyperparameters, but {given}" if given else "SB3's hyperparameters"

    def contenders(self, slowness: Slowness | None = None) -> tuple[Trainee, ...]:
        """
        :param slowness: how slow environments are to be; None for as they are
        :return: ours in the two modes that overlap, with samplers of one environment and with at most one sampler a
            CPU; and SB3's with each VecEnv
        """
        sb3, ours = ALGORITHMS[self.algorithm]
        modes: tuple[Mode, ...] = ("pipelined", "free")
        each = [AsyncContender(*shape, self.learner, slowness, ours) for shape in self._shapes]
        names = [name for name in VEC_ENVS if not (self.skip_subproc and name == "SubprocVecEnv")]
        vec_envs = [VecEnvContender(name, self.n_samplers, slowness, sb3) for name in names]
        return (
            *(
                Trainee(f"{samplers.name}, {mode}", samplers, mode, {"info_keys": ()})
                for samplers in each
                for mode in modes
            ),
            *(Trainee(vec_env.name, vec_env, "sync", {}) for vec_env in vec_envs),
        )

    @property
    def _shapes(self) -> list[tuple[int, int]]:
        """Numbers of samplers, and of environments of each."""
        # As many environments for all contenders, or there is nothing to compare.
        one_a_cpu = max(n for n in range(1, available_cpus() + 1) if self.n_samplers % n == 0)
        return [(n, self.n_samplers // n) for n in dict.fromkeys((self.n_samplers, one_a_cpu))]

    @property
    def names(self) -> dict[str, str | None]:
        """Of each contender, in the order in which they take turns, the VecEnv, ``None`` for samplers."""
        return {one.name: getattr(one.contender, "vec_env", None) for one in self.contenders()}
