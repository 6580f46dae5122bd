"""The benchmark of PPO: who takes part, and how much is measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.contenders import AsyncContender, Contender, Trainee, VecEnvContender, policy_for
from benchmarks.slow_envs import Slowness
from benchmarks.speed.speed_settings import SpeedSettings
from sb3_walle.backends.limits import available_cpus
from sb3_walle.cli.throughput import Stopwatch


@dataclass(frozen=True)
class PPOSpeed(SpeedSettings):
    """
    AsyncPPO and SB3's PPO.

    :param envs_per_sampler: environments of each sampler in the second configuration, which has one sampler a CPU
    :param samples_per_iteration: environment steps of an iteration, all environments together
    :param n_epochs: passes over the samples of an iteration
    :param batch_size: samples of a minibatch
    :param iterations: iterations of each measurement
    :param policy_arguments: arguments of the algorithm that define its networks, if they are not SB3's
    """

    envs_per_sampler: int = 8
    samples_per_iteration: int = 20480
    n_epochs: int = 10
    batch_size: int = 64
    iterations: int = 3
    policy_arguments: Mapping[str, Any] = field(default_factory=dict)

    def trainees(self, slowness: Slowness | None = None) -> tuple[Trainee, ...]:
        shapes = dict.fromkeys(((self.n_samplers, 1), (available_cpus(), self.envs_per_sampler)))
        ours = [AsyncContender(*shape, self.learner, slowness) for shape in shapes]
        # Wider VecEnvs collect faster: a second one has as many environments as our second configuration.
        sb3s = [VecEnvContender("DummyVecEnv", self.n_samplers, slowness)]
        if not self.skip_subproc:
            sb3s.append(VecEnvContender("SubprocVecEnv", self.n_samplers, slowness))
        sb3s.append(VecEnvContender("DummyVecEnv", ours[-1].n_envs, slowness))
        contenders: dict[Contender, None] = dict.fromkeys((*ours, *sb3s))
        return tuple(Trainee(each.name, each, "pipelined", self.arguments(each)) for each in contenders)

    def steps_per_env(self, n_envs: int) -> int:
        """:return: steps of each in an iteration"""
        return self.samples_per_iteration // n_envs

    def arguments(self, contender: Contender) -> dict[str, Any]:
        """:return: its hyperparameters"""
        n_steps = self.steps_per_env(contender.n_envs)
        amounts = {"n_steps": n_steps, "n_epochs": self.n_epochs, "batch_size": self.batch_size}
        return {**amounts, **self.policy_arguments}

    def stopwatch(self, n_envs: int, on_start: Callable[[], object] | None = None) -> Stopwatch:
        rollout = self.steps_per_env(n_envs) * n_envs
        # The first update may wait for a compiler.
        return Stopwatch(2 * rollout, self.iterations * rollout, on_start)

    @property
    def collecting(self) -> Mapping[str, Any]:
        # Rollouts that samplers collect in advance wait for updates.
        return {"mode": "sync"}

    @property
    def training(self) -> Mapping[str, Mapping[str, Any]]:
        return {"steps/s": {}}

    def in_words(self) -> str:
        return (
            f"{self.samples_per_iteration:,} samples an iteration, {self.n_epochs} epoch(s) of minibatches of "
            f"{self.batch_size}, {policy_for(self.env_id)} on the CPU, learner '{self.learner}'"
            + "".join(f", {name}={value}" for name, value in self.policy_arguments.items())
        )
