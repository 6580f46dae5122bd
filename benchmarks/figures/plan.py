"""What has to be measured and trained for the figures, in which order."""

from collections.abc import Iterator

from benchmarks.contenders import AsyncContender, Contender, Mode, Trainee, VecEnvContender
from benchmarks.figures.figures_settings import FiguresSettings, Workload
from benchmarks.figures.iteration_time import Timing
from benchmarks.returns.ppo_returns import PPOReturns
from sb3_walle.cli.comparison import VEC_ENVS

# The report's agent learns while samplers collect.
LEARNING_MODE: Mode = "pipelined"
OVERLAPPING: tuple[Mode, ...] = ("pipelined", "free")


def timings(settings: FiguresSettings) -> Iterator[Timing]:
    """:return: measurements of iterations, all contenders taking turns within each repeat"""
    for repeat in range(1, settings.repeats + 1):
        for workload in settings.workloads:
            for contender, mode in contenders(settings, workload):
                yield Timing(workload, contender, mode, repeat)


def contenders(settings: FiguresSettings, workload: Workload) -> list[tuple[Contender, Mode]]:
    """
    :return: each number of samplers, in turn with the learner; and with as many environments the modes that overlap,
        and SB3's PPO
    """
    slowness, n, learner = workload.slowness, settings.overlap_n_samplers, settings.agent.learner
    numbers = dict.fromkeys((*settings.n_samplers, n))
    in_turn: list[tuple[Contender, Mode]] = [
        (AsyncContender(number, 1, learner, slowness=slowness), "sync") for number in numbers
    ]
    overlapping = [(AsyncContender(n, 1, learner, slowness=slowness), mode) for mode in OVERLAPPING]
    vec_envs = [VecEnvContender(name, n, slowness=slowness) for name in VEC_ENVS]
    return [*in_turn, *overlapping, *((contender, "sync") for contender in vec_envs)]


def trainings(settings: FiguresSettings) -> Iterator[tuple[int, Trainee]]:
    """
    :return: seeds, and who trains with them: the workloads in turn, for the slow ones take much longer, and within each
        all numbers of samplers are treated alike, wherever it ends
    """
    for workload in settings.learning_workloads:
        for seed in range(settings.n_seeds):
            for number in settings.learning_n_samplers:
                contender = AsyncContender(number, 1, slowness=workload.slowness)
                arguments = settings.agent.arguments(contender, settings.n_steps(number))
                yield seed, Trainee(trainee_name(workload, number), contender, LEARNING_MODE, arguments)


def trainee_name(workload: Workload, n_samplers: int) -> str:
    """:return: the name of the contender that trains so"""
    return f"{workload.name}, N={n_samplers}"


def returns_settings(settings: FiguresSettings) -> PPOReturns:
    """:return: what of it is the same for all trainings"""
    return PPOReturns(
        settings.env_id,
        total_timesteps=settings.timesteps,
        n_seeds=settings.n_seeds,
        normalize=True,
        n_bins=settings.n_bins,
        ppo=settings.agent.ppo,
    )
