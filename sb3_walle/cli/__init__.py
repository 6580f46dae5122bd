"""The ``sb3-walle`` command."""

from collections.abc import Sequence

from sb3_walle import __version__
from sb3_walle.cli import bench, train, tune
from sb3_walle.cli.arguments import Parser, run_command_line

# PyTorch takes seconds to import: only the functions that need it import what does, so that --help is instant.

COMMANDS = (train, bench, tune)
EXAMPLES = "examples:\n" + "".join(command.EXAMPLE.partition("\n")[2] for command in COMMANDS)


def build_parser() -> Parser:
    parser = Parser(
        prog="sb3-walle",
        description="Asynchronous samplers for Stable-Baselines3: N processes collect experience while\n"
        "the learner trains.",
        epilog=f"{EXAMPLES}\n'sb3-walle COMMAND --help' tells more about a command.",
    )
    parser.add_argument("--version", action="version", version=f"sb3-walle {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_command(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """
    :param argv: arguments of the command; those of this process by default
    :return: exit code: 0, 2 if the arguments make no sense, 130 after Ctrl-C
    """
    return run_command_line(build_parser(), argv)
