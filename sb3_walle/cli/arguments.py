"""What the arguments of all commands have in common."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

INTERRUPTED = 130
USAGE_ERROR = 2

MODES = {
    "sync": "samplers wait for each update, as in SB3",
    "pipelined": "they collect the next rollout during the update",
    "free": "first come, first served",
}
# Repeated here, like all choices, because what knows them takes seconds to import.
LEARNERS = ("auto", "compiled", "eager")


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong, without repeating all options before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: error: {message} (see '{self.prog} --help')\n")


def set_command(parser: argparse.ArgumentParser, command: Callable[[argparse.Namespace], int]) -> None:
    """
    :param parser: describes a command
    :param command: carries it out; it takes the parsed arguments and returns the exit code
    """
    parser.set_defaults(run=command, prog=parser.prog)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """
    Carry out the command that :func:`set_command` has set.

    :param parser: describes the command line
    :param argv: its arguments; those of this process by default
    :return: exit code: that of the command, 2 if the arguments make no sense, 130 after Ctrl-C
    """
    arguments = parser.parse_args(argv)
    from sb3_walle.cli.environments import UsageError

    try:
        return arguments.run(arguments)
    except UsageError as error:
        print(f"{arguments.prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print(f"{arguments.prog}: interrupted, nothing was saved", file=sys.stderr)
        return INTERRUPTED


def of_the_user(arguments: argparse.Namespace) -> dict[str, Any]:
    """
    :param arguments: the parsed command line
    :return: what the user gives with it, by name
    """
    return {name: value for name, value in vars(arguments).items() if name not in ("command", "run", "prog")}


def integer(minimum: int) -> Callable[[str], int]:
    """
    The type of an argument that is a whole number.

    :param minimum: the smallest number allowed
    :return: what turns the argument into the number; it takes ``1e6`` and ``1_000_000`` as well
    """

    def convert(text: str) -> int:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not value.is_integer():
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{text} is too small: at least {minimum} is needed")
        return int(value)

    return convert


def number(minimum: float, maximum: float = float("inf"), above: bool = False) -> Callable[[str], float]:
    """
    The type of an argument that is a number.

    :param minimum: the smallest number allowed
    :param maximum: the largest number allowed
    :param above: whether the number must be above the minimum, not equal to it
    :return: what turns the argument into the number
    """
    bound = f"above {minimum:g}" if above else f"at least {minimum:g}"
    allowed = bound if maximum == float("inf") else f"{bound} and at most {maximum:g}"

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
        # NaN is neither within the bounds nor outside them.
        if not minimum <= value <= maximum or value == float("inf") or (above and value == minimum):
            raise argparse.ArgumentTypeError(f"{text} is out of range: it must be {allowed}")
        return value

    return convert


def add_option(group: Any, flag: str, default: Any, text: str, only_given: bool = False, **kwargs: Any) -> None:
    """
    Describe an option.

    :param group: the parser or the group of arguments to add it to
    :param flag: its name, with the dashes
    :param default: its default, which the help shows unless it is None
    :param text: what it is
    :param only_given: whether it is among the parsed arguments only if the user gives it
    :param kwargs: further arguments of ``add_argument()``
    """
    kwargs.setdefault("metavar", "N" if isinstance(default, int) else "X")
    shown = f"{text} (default: {default})" if default is not None else text
    group.add_argument(flag, default=argparse.SUPPRESS if only_given else default, help=shown, **kwargs)


def add_ppo_options(group: Any, only_given: bool = False) -> None:
    """
    Describe the arguments of PPO, with SB3's defaults, but for ``--n-steps``.

    :param group: the group of arguments to add them to
    :param only_given: whether they are among the parsed arguments only if the user gives them
    """

    def option(flag: str, default: Any, text: str, convert: Callable[[str], Any]) -> None:
        add_option(group, flag, default, text, only_given, type=convert)

    option("--batch-size", 64, "samples of a minibatch", integer(2))
    option("--n-epochs", 10, "passes over the samples of an iteration", integer(1))
    option("--learning-rate", 3e-4, "learning rate of the optimiser", number(0, above=True))
    option("--gamma", 0.99, "discount factor", number(0, 1))
    option("--gae-lambda", 0.95, "bias against variance of the advantage estimates", number(0, 1))
    option("--ent-coef", 0.0, "weight of the entropy in the loss", number(0))
    option("--clip-range", 0.2, "clipping of the probability ratio", number(0, above=True))
