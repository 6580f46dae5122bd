"""What a benchmark is asked for, and who takes part in it."""

from dataclasses import dataclass

from sb3_walle.env_sources import available_cpus
from sb3_walle.experiments.contenders import AsyncContender, VecEnvContender

#: what can be measured by itself
PARTS = ("collection", "sampler", "update", "sizes", "end-to-end", "busy", "iteration", "start")


@dataclass(frozen=True)
class BenchmarkSettings:
    """
    What to measure, and with what. All contenders have the same hyperparameters.

    :param env_id: Gymnasium id of the environment
    :param n_samplers: samplers of one environment, and environments of SB3's VecEnvs
    :param envs_per_sampler: environments of each sampler in the second configuration, which has one sampler a CPU
    :param samples_per_iteration: environment steps of an iteration, all environments together
    :param n_epochs: passes over the samples of an iteration
    :param batch_size: samples of a minibatch
    :param learner: which update AsyncPPO makes
    :param iterations: iterations of each measurement, after one to warm up
    :param repeats: times to measure everything
    :param skip_subproc: leave out SubprocVecEnv
    :param parts: what to measure, of :data:`PARTS`
    :param limit_seconds: how long to measure the physical limit for, in seconds
    """

    env_id: str
    n_samplers: int = 10
    envs_per_sampler: int = 8
    samples_per_iteration: int = 20480
    n_epochs: int = 10
    batch_size: int = 64
    learner: str = "compiled"
    iterations: int = 3
    repeats: int = 3
    skip_subproc: bool = False
    parts: tuple[str, ...] = PARTS
    limit_seconds: float = 2.0


def async_contenders(settings: BenchmarkSettings) -> tuple[AsyncContender, ...]:
    """
    The configurations of AsyncPPO.

    :param settings: what to measure
    :return: many samplers of one environment, and one sampler a CPU with several environments
    """
    shapes = ((settings.n_samplers, 1), (available_cpus(), settings.envs_per_sampler))
    return tuple(AsyncContender(*shape, settings.learner) for shape in dict.fromkeys(shapes))


def vec_env_contenders(settings: BenchmarkSettings) -> tuple[VecEnvContender, ...]:
    """
    The configurations of SB3's PPO.

    :param settings: what to measure
    :return: as many environments as the first configuration of AsyncPPO in each VecEnv; and as many as the second in
        the VecEnv that such a number suits best, because wider ones collect faster
    """
    contenders = [VecEnvContender("DummyVecEnv", settings.n_samplers)]
    if not settings.skip_subproc:
        contenders.append(VecEnvContender("SubprocVecEnv", settings.n_samplers))
    contenders.append(VecEnvContender("DummyVecEnv", async_contenders(settings)[-1].n_envs))
    return tuple(dict.fromkeys(contenders))
