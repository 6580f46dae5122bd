"""An asynchronous algorithm beside SB3's with its VecEnvs, in one table."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_walle.cli.algorithms import algorithm_class, is_on_policy, policy_of, possible_learner, sb3_class
from sb3_walle.cli.environments import check_environment, quiet_factory
from sb3_walle.cli.tables import format_ratio, format_table
from sb3_walle.cli.throughput import Stopwatch, leaving_nothing, measure, stop_updates

VEC_ENVS: dict[str, type[DummyVecEnv | SubprocVecEnv]] = {"DummyVecEnv": DummyVecEnv, "SubprocVecEnv": SubprocVecEnv}
COLLECTION, TRAINING = "collection", "training"
# SB3's default of PPO, and sb3-contrib's of TRPO.
N_STEPS = 2048
# Environment steps of the other algorithms: before a measurement, half of them random, and during one.
WARM_UP, TIMESTEPS = 600, 2_000
BUFFER_SIZE = 100_000


@dataclass(frozen=True)
class Comparison:
    """
    What to measure, as the options of the command say.

    :param n_samplers: samplers of one environment, and environments of SB3's VecEnvs
    :param n_learners: learners of the asynchronous algorithm
    :param timesteps: environment steps of a measurement, all environments together; by default two rollouts of
        on-policy algorithms, and 2,000 steps of the others
    """

    env: str
    algo: str = "ppo"
    n_samplers: int = 10
    timesteps: int | None = None
    learner: str = "compiled"
    n_learners: int | Literal["auto"] = 1

    def run(self) -> str:
        """
        Measure, and say on stderr how far it is.

        :return: the table
        :raises UsageError: if there is no such environment, or if it does not suit the algorithm
        """
        policy = policy_of(check_environment(self.env), self.algo)
        rates: dict[str, dict[str, float]] = {COLLECTION: {}, TRAINING: {}}
        for quantity, of_quantity in rates.items():
            for name, create in self._contenders(policy, quantity).items():
                of_quantity[name] = self._measure(create, quantity)
                print(f"{quantity}: {name}: {of_quantity[name]:,.0f} steps/s", file=sys.stderr)
        return self._table(rates)

    def _contenders(self, policy: str, quantity: str) -> dict[str, Callable[[], BaseAlgorithm]]:
        sb3: Any = sb3_class(self.algo)
        ours, on_policy = algorithm_class(self.algo), is_on_policy(self.algo)
        factory, n = quiet_factory(self.env), self.n_samplers
        replay = {"train_freq": 1, "learning_starts": WARM_UP // 2, "buffer_size": BUFFER_SIZE}
        arguments: dict[str, Any] = {"device": "cpu", **({"n_steps": N_STEPS} if on_policy else replay)}
        learner = possible_learner(self.algo, self.learner)
        samplers: dict[str, Any] = {"n_samplers": n, "learner": learner, "n_learners": self.n_learners}
        if quantity == COLLECTION:
            # Rollouts of PPO that samplers collect in advance wait for updates, which do not come here.
            samplers |= {"learner": "eager", "n_learners": 1, "mode": "sync" if on_policy else "pipelined"}

        def on(vec_env: type[DummyVecEnv | SubprocVecEnv]) -> Callable[[], BaseAlgorithm]:
            return lambda: sb3(policy, make_vec_env(factory, n, vec_env_cls=vec_env), **arguments)

        return {
            f"{ours.__name__}, {n} samplers": lambda: ours(policy, factory, **samplers, **arguments),
            **{f"{sb3.__name__}, {name}({n})": on(vec_env) for name, vec_env in VEC_ENVS.items()},
        }

    def _measure(self, create: Callable[[], BaseAlgorithm], quantity: str) -> float:
        # Long enough for the first update, which may wait for a compiler.
        warm_up, default = WARM_UP, TIMESTEPS
        if is_on_policy(self.algo):
            warm_up = default = 2 * N_STEPS * self.n_samplers
        with leaving_nothing(create) as model:
            if quantity == COLLECTION:
                stop_updates(model)
            return measure(model, Stopwatch(warm_up, self.timesteps or default))

    def _table(self, rates: dict[str, dict[str, float]]) -> str:
        rows = [[name] for name in rates[TRAINING]]
        for of_quantity in rates.values():
            # The first one is ours.
            best = max(list(of_quantity.values())[1:])
            for row, rate in zip(rows, of_quantity.values(), strict=True):
                row += [f"{rate:,.0f}", format_ratio(rate, best)]
        titles = [title for quantity in rates for title in (f"{quantity}, steps/s", "vs best SB3")]
        return format_table([self.env, *titles], rows)
