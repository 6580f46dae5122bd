"""``python -m benchmarks.realtime``"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.machine import describe_machine
from benchmarks.realtime.control_part import BARS, control_report, run_control
from benchmarks.realtime.kills_part import LEARNER, SAMPLER, kills_report, run_kills
from benchmarks.realtime.publish_part import publishing_report, run_publishing
from benchmarks.realtime.realtime_contenders import NAMES, Calibration, Task, calibrated, contenders
from benchmarks.realtime.realtime_figure import draw_control
from benchmarks.realtime.returns_part import returns_report
from benchmarks.results_directory import open_results
from sb3_walle.cli.arguments import Parser, UsageError, add_option, integer, number, run_command_line, set_command
from sb3_walle.cli.environments import check_environment
from sb3_walle.cli.training import create_run_directory

CALIBRATION, REPORT, FIGURE = "calibration.json", "report.md", "realtime.png"


@dataclass(frozen=True)
class Defaults:
    """
    :param ticks: of each run
    :param share: of a core that gradient steps need
    :param train_freq: steps that one gradient step follows, where ``share`` is ``None``
    """

    env_id: str
    hz: float
    ticks: int
    repeats: int
    share: float | None = None
    train_freq: int = 1


PARTS = {
    # 5 minutes a run: 6 contenders, 3 times, 95 minutes.
    "plant": Defaults("HalfCheetah-v4", 50, 15_000, 3, share=0.6),
    # 1 minute a run: 20 minutes.
    "fast": Defaults("HalfCheetah-v4", 500, 30_000, 3, train_freq=4),
    # 100 seconds a run: 5 minutes.
    "publish": Defaults("Pendulum-v1", 50, 5_000, 3),
    # 90 seconds a run, and the time that the plant stands still: 50 minutes.
    "returns": Defaults("Pendulum-v1", 100, 9_000, 5, share=0.9),
    # 10 seconds a kill: 10 minutes.
    "kills": Defaults("Pendulum-v1", 50, 0, 50),
}
EXAMPLES = """\
examples (how long each takes with its defaults):
  python -m benchmarks.realtime plant                              95 minutes
  python -m benchmarks.realtime plant --ticks 3000 --repeats 1      7 minutes
  python -m benchmarks.realtime fast                               20 minutes
  python -m benchmarks.realtime publish                             5 minutes
  python -m benchmarks.realtime returns                            50 minutes
  python -m benchmarks.realtime kills                              10 minutes
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.realtime",
        description="A simulated plant that never waits is controlled by an algorithm that learns meanwhile: ours in\n"
        "modes realtime (with the plant's clock, and with its own: control_hz) and sync, and SB3's with\n"
        "three schedules. The plant itself counts the ticks without a fresh action.\n"
        "Leaves a directory with all runs, report.md and a figure; with --out and the same directory, an\n"
        "interrupted command continues. A run in which other guests of the host take more than 1 % of the\n"
        "processors' time is repeated. Nothing else should run beside it.",
        epilog=EXAMPLES,
    )
    set_command(parser, run_command)
    parser.add_argument("part", choices=tuple(PARTS), help="what to measure")
    add_option(parser, "--env", None, "Gymnasium id of what the plant simulates (default: depends on the part)")
    add_option(
        parser, "--hz", None, "ticks a second (default: 50; fast: 500, returns: 100)", type=number(0, above=True)
    )
    text = "ticks of each run (default: plant 15000, fast 30000, publish 5000, returns 9000)"
    add_option(parser, "--ticks", None, text, type=integer(1))
    text = "runs of each contender, kills of a learner (default: 3; returns 5, kills 50)"
    add_option(parser, "--repeats", None, text, type=integer(1))
    text = "share of a core for gradient steps of ours (default: plant 0.6, returns 0.9; fast: one every 4 steps)"
    add_option(parser, "--share", None, text, type=number(0, above=True))
    text = "who controls the plant (default: all)"
    parser.add_argument("--contenders", nargs="+", choices=tuple(NAMES), default=tuple(NAMES), help=text)
    text = "mean return to reach, with returns (default: -200, with which Pendulum-v1 swings up and stays up)"
    add_option(parser, "--threshold", None, text, type=float)
    add_option(parser, "--episodes", 5, "episodes in a row that have to reach it", type=integer(1))
    text = "kills: of samplers"
    add_option(parser, "--sampler-kills", 10, text, type=integer(0))
    text = "kills: the sampler keeps time, and not the plant"
    parser.add_argument("--paced", action="store_true", help=text)
    text = "directory for the results, or with results to continue (default: a new one in runs)"
    add_option(parser, "--out", None, text, type=Path, metavar="DIR")
    return parser


def run_command(arguments: argparse.Namespace) -> int:
    defaults = PARTS[arguments.part]
    env_id, hz = arguments.env or defaults.env_id, arguments.hz or defaults.hz
    ticks, repeats = arguments.ticks or defaults.ticks, arguments.repeats or defaults.repeats
    check_environment(env_id)
    directory = arguments.out or create_run_directory(Path("runs"), f"realtime-{arguments.part}")
    settings = {"part": arguments.part, "env_id": env_id, "hz": hz, "ticks": ticks, "share": arguments.share}
    open_results(directory, {**settings, "paced": arguments.paced}, REPORT)
    machine = describe_machine()
    plain = Task(env_id, hz, gradient_steps=1)
    if arguments.part == "publish":
        text = publishing_report(plain, run_publishing(plain, ticks, repeats, directory))
    elif arguments.part == "kills":
        n_kills = {LEARNER: repeats, SAMPLER: arguments.sampler_kills}
        text = kills_report(plain, run_kills(plain, n_kills, hz if arguments.paced else None, directory))
    else:
        calibration = calibration_of(directory, env_id)
        task = task_of(plain, defaults, arguments.share, calibration)
        names = {NAMES[key] for key in arguments.contenders}
        entrants = [each for each in contenders(task, calibration, episode_steps(env_id)) if each.name in names]
        rows = run_control(task, entrants, ticks, repeats, directory)
        draw_control(task, rows, directory, directory / FIGURE)
        text = f"{in_words(task, calibration)}\n\n{control_report(task, BARS.get(arguments.part), rows)}"
        if arguments.part == "returns":
            threshold = -200.0 if arguments.threshold is None else arguments.threshold
            text += f"\n\n{returns_report(directory, rows, threshold, arguments.episodes)}"
    report = f"python -m benchmarks.realtime {arguments.part}, {machine.in_words()}\n\n{text}\n"
    (directory / REPORT).write_text(report)
    print(f"{report}\nResults are in {directory}: the same command with '--out {directory}' continues or adds to them")
    return 0


def calibration_of(directory: Path, env_id: str) -> Calibration:
    """:return: what gradient steps take, as measured when the results of the directory were begun"""
    file = directory / CALIBRATION
    if file.exists():
        return Calibration(**json.loads(file.read_text()))
    calibration = calibrated(env_id)
    file.write_text(json.dumps(asdict(calibration), indent=2) + "\n")
    return calibration


def task_of(plain: Task, defaults: Defaults, share: float | None, calibration: Calibration) -> Task:
    """
    :return: the task with as many gradient steps a step as come nearest to that share of a core; one every few steps,
        where one each would be more
    """
    share = defaults.share if share is None else share
    if share is None:
        return Task(plain.env_id, plain.hz, 1, defaults.train_freq)
    a_period = share * 1e3 * plain.period / calibration.ours
    if a_period >= 1:
        return Task(plain.env_id, plain.hz, round(a_period))
    return Task(plain.env_id, plain.hz, 1, round(1 / a_period))


def episode_steps(env_id: str) -> int:
    """:raises UsageError: if episodes have no limit"""
    spec = check_environment(env_id).spec
    if spec is None or spec.max_episode_steps is None:
        raise UsageError(f"'{env_id}' has no limit of steps, with which a schedule of episodes could reckon")
    return spec.max_episode_steps


def in_words(task: Task, calibration: Calibration) -> str:
    return (
        f"SAC, 256x256, minibatch 256: {task.gradient_steps} gradient step(s) for {task.train_freq} step(s) are asked "
        f"for. One takes {calibration.ours:.2f} ms with ours (compiled, one thread) and {calibration.sb3s:.2f} ms with "
        f"SB3's ({calibration.sb3s_threads} thread(s), the faster choice)."
    )


if __name__ == "__main__":
    sys.exit(run_command_line(build_parser()))
