"""
What several learners gain: updates of PPO by one and by K of them, adding up gradients beside gloo's all-reduce, and
whole training runs.

.. code-block:: shell

    python -m benchmarks.learners updates --nets 256x256 --batch-sizes 64 1024 --n-learners 2 --output results/learners
    python -m benchmarks.learners reductions
    python -m benchmarks.learners training

Times of updates are kept in a directory, to which later calls add what is missing; each prints the table of all, and
draws them.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.learners.training_rates import CASES, rates_table
from benchmarks.learners.update_times import UPDATE_TIMES, contenders, measure_updates
from benchmarks.machine import describe_machine
from benchmarks.results_directory import open_results
from benchmarks.run_log import RunLog
from benchmarks.speed.update_sizes import NETS
from sb3_walle.cli.arguments import Parser, add_option, integer, run_command_line, set_command

TIMES, IMAGE = "update_times.csv", "speed_up.png"


def run_updates(arguments: argparse.Namespace) -> int:
    # Needs matplotlib.
    from benchmarks.learners.speed_up import draw_speed_up, updates_table

    machine, directory = describe_machine(), arguments.output
    open_results(directory, {"n_learners": arguments.n_learners, "rounds": arguments.rounds}, TIMES)
    log = RunLog(directory / TIMES, UPDATE_TIMES, len(contenders(arguments.n_learners)))
    for net in arguments.nets:
        for batch_size in arguments.batch_sizes:
            if not log.is_finished((net, batch_size)):
                print(f"{net}, minibatches of {batch_size}", file=sys.stderr)
                for row in measure_updates(net, batch_size, arguments.n_learners, arguments.rounds):
                    log.add(row)
    runs = log.finished_runs()
    draw_speed_up(runs, directory / IMAGE)
    print(f"Several learners {machine.in_words()}\n\n{updates_table(runs)}\n\n{directory / IMAGE}")
    return 0


def run_reductions(arguments: argparse.Namespace) -> int:
    # torch.distributed takes a second to import.
    from benchmarks.learners.reductions import reductions_table

    print(f"Adding up gradients {describe_machine().in_words()}\n\n{reductions_table()}")
    return 0


def run_training(arguments: argparse.Namespace) -> int:
    machine = describe_machine()
    print(f"Training {machine.in_words()}\n\n{rates_table(arguments.cases, arguments.rounds)}")
    return 0


def build_parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.learners", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    updates = commands.add_parser("updates", help="times of PPO's updates")
    set_command(updates, run_updates)
    updates.add_argument("--nets", nargs="+", default=[*NETS], choices=[*NETS], help="networks (default: all)")
    add_option(updates, "--batch-sizes", [64, 1024], "sizes of minibatches", nargs="+", type=integer(2))
    add_option(updates, "--n-learners", [2], "numbers of learners", nargs="+", type=integer(2))
    add_option(updates, "--rounds", 5, "alternating updates of each contender", type=integer(1))
    add_option(updates, "--output", Path("results/learners"), "directory of the results", type=Path, metavar="DIR")
    set_command(commands.add_parser("reductions", help="times to add up two gradients"), run_reductions)
    training = commands.add_parser("training", help="steps a second of whole training runs")
    set_command(training, run_training)
    training.add_argument("--cases", nargs="+", default=[*CASES], choices=[*CASES], help="what to train (default: all)")
    add_option(training, "--rounds", 3, "alternating runs of each", type=integer(1))
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command_line(build_parser()))
