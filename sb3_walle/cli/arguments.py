"""What the command lines of all commands have in common."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

INTERRUPTED = 130
USAGE_ERROR = 2

# All choices are repeated here because importing what knows them takes seconds.
OF_SB3 = {
    "ppo": "AsyncPPO",
    "a2c": "AsyncA2C",
    "sac": "AsyncSAC",
    "td3": "AsyncTD3",
    "ddpg": "AsyncDDPG",
    "dqn": "AsyncDQN",
}
OF_CONTRIB = {
    "trpo": "AsyncTRPO",
    "recurrent_ppo": "AsyncRecurrentPPO",
    "maskable_ppo": "AsyncMaskablePPO",
    "tqc": "AsyncTQC",
    "qrdqn": "AsyncQRDQN",
    "crossq": "AsyncCrossQ",
}
#: what ``sb3-walle train`` trains: names of public classes of the package, which SB3 or sb3-contrib has without "Async"
TRAINABLE = {**OF_SB3, **OF_CONTRIB}
#: what is compared with SB3 or sb3-contrib
ALGORITHMS = tuple(name for name in TRAINABLE if name != "a2c")
BACKENDS = ("process", "inline", "ray")
LEARNERS = ("auto", "compiled", "eager")
ROLLOUTS = ("steps", "episodes")
MODES = {
    "sync": "samplers wait for each update, as in SB3",
    "pipelined": "they collect the next rollout during the update",
    "free": "first come, first served",
}


class UsageError(Exception):
    """A command cannot do what the user asks for; the message says why in one line."""


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, without repeating all options before it, and keeps the lines of its texts."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **kwargs})

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: error: {message} (see '{self.prog} --help')\n")


def set_command(parser: argparse.ArgumentParser, command: Callable[[argparse.Namespace], int]) -> None:
    """
    :param command: takes the parsed arguments and returns the exit code
    """
    parser.set_defaults(run=command, prog=parser.prog)


def run_command_line(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """
    Carry out the command that :func:`set_command` has set.

    :param argv: arguments of the command line; those of this process by default
    :return: exit code: that of the command, 2 if the arguments make no sense, 130 after Ctrl-C
    """
    arguments = parser.parse_args(argv)
    try:
        return arguments.run(arguments)
    except UsageError as error:
        print(f"{arguments.prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print(f"{arguments.prog}: interrupted, nothing was saved", file=sys.stderr)
        return INTERRUPTED


def of_the_user(arguments: argparse.Namespace) -> dict[str, Any]:
    """:return: what the user gives on the command line, by name"""
    return {name: value for name, value in vars(arguments).items() if name not in ("command", "run", "prog")}


def integer(minimum: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number, which may be written as ``1e6`` or ``1_000_000``."""

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

    :param above: whether the number must be above the minimum, not equal to it
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


def add_env(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("env", metavar="ENV", help="Gymnasium id of the environment")


def add_option(group: Any, flag: str, default: Any, text: str, only_given: bool = False, **kwargs: Any) -> None:
    """
    Add an option whose help shows the default, unless that is None.

    :param group: the parser or group of arguments that takes it
    :param only_given: whether it is among the parsed arguments only if the user gives it
    :param kwargs: further arguments of ``add_argument()``
    """
    if "choices" not in kwargs:
        kwargs.setdefault("metavar", "X" if isinstance(default, float) else "N")
    shown = f"{text} (default: {default})" if default is not None else text
    group.add_argument(flag, default=argparse.SUPPRESS if only_given else default, help=shown, **kwargs)


def add_n_learners(group: Any) -> None:
    def convert(text: str) -> int | str:
        return text if text == "auto" else integer(1)(text)

    text = "processes that share the minibatches of a compiled update, or auto: several where they are faster"
    add_option(group, "--n-learners", 1, text, type=convert)


def add_comparison(parser: argparse.ArgumentParser, algorithms: Iterable[str] = ALGORITHMS) -> None:
    """Add what all commands take that compare an asynchronous algorithm, one of these, with SB3's."""
    add_env(parser)
    add_option(parser, "--algo", "ppo", "algorithm", choices=tuple(algorithms))
    add_option(parser, "--n-samplers", 10, "samplers of one environment, and environments of SB3", type=integer(1))


def add_ppo_options(group: Any) -> None:
    """Add the arguments of PPO, with SB3's defaults, but for ``--n-steps``: parsed only if the user gives them."""

    def option(flag: str, default: Any, text: str, convert: Callable[[str], Any]) -> None:
        add_option(group, flag, default, text, only_given=True, type=convert)

    option("--batch-size", 64, "samples of a minibatch", integer(2))
    option("--n-epochs", 10, "passes over the samples of an iteration", integer(1))
    option("--learning-rate", 3e-4, "learning rate of the optimiser", number(0, above=True))
    option("--gamma", 0.99, "discount factor", number(0, 1))
    option("--gae-lambda", 0.95, "bias against variance of the advantage estimates", number(0, 1))
    option("--ent-coef", 0.0, "weight of the entropy in the loss", number(0))
    option("--clip-range", 0.2, "clipping of the probability ratio", number(0, above=True))
