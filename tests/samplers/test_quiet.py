"""Keeping a process quiet: nothing shows while all goes well, everything when it does not."""

import os
import subprocess
import sys

import pytest

# What an environment may say while it is built: the pieces, and how each of them is said.
WAYS = {
    "print": "print('HELLO')",
    "print to stderr": "print('HELLO', file=sys.stderr)",
    "unflushed write": "sys.stdout.write('HELLO')",
    "descriptor 1": "os.write(1, b'HELLO')",
    "descriptor 2": "os.write(2, b'HELLO')",
    "C library": "libc.puts(b'HELLO')",
    "child process": "os.system('echo HELLO')",
    "logging": "logging.warning('HELLO')",
}
WARNINGS = {
    "warning": "warnings.warn('HELLO')",
    "deprecation": "warnings.warn('HELLO', DeprecationWarning)",
    "gymnasium's logger": "gym.logger.warn('HELLO')",
}

PREAMBLE = """
import ctypes, logging, os, sys, warnings
import gymnasium as gym
from sb3_walle.samplers.quiet import quiet
libc = ctypes.CDLL(None)
"""


def output_of(program: str) -> str:
    """Everything that a program prints, into pipes, as a process does whose output goes to a file."""
    command = [sys.executable, "-W", "always", "-c", PREAMBLE + program]
    # With this variable Python does not buffer what it prints, nor does C.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("way", [*WAYS, *WARNINGS])
def test_only_what_was_said_before_shows(way: str) -> None:
    say = {**WAYS, **WARNINGS}[way]
    output = output_of(f"{say}\nwith quiet():\n    {say.replace('HELLO', 'GOODBYE')}")
    assert "HELLO" in output
    assert "GOODBYE" not in output


def test_everything_shows_if_an_exception_is_raised() -> None:
    says = [*WAYS.values(), *WARNINGS.values()]
    program = "try:\n    with quiet():\n"
    program += "".join(f"        {say.replace('HELLO', f'HELLO-{number}-')}\n" for number, say in enumerate(says))
    program += "        1 / 0\nexcept ZeroDivisionError:\n    print('RAISED')"
    output = output_of(program)
    for number in range(len(says)):
        assert output.count(f"HELLO-{number}-") == 1
    assert output.endswith("RAISED\n")


def test_output_before_and_after_shows() -> None:
    program = "say = lambda text: (print(text), libc.puts(text.encode()), os.write(2, text.encode() + b'\\n'))\n"
    program += "say('BEFORE')\nwith quiet():\n    say('INSIDE')\nsay('AFTER')"
    output = output_of(program)
    assert (output.count("BEFORE"), output.count("INSIDE"), output.count("AFTER")) == (3, 0, 3)


def test_a_program_that_collects_warnings_gets_none() -> None:
    says = "".join(f"        {say}\n" for say in WARNINGS.values())
    output = output_of(f"with warnings.catch_warnings(record=True) as seen:\n    with quiet():\n{says}print(len(seen))")
    assert output == "0\n"


def test_warnings_show_again_afterwards() -> None:
    program = "with quiet():\n    pass\n" + "\n".join(WARNINGS.values())
    assert output_of(program).count("HELLO") >= len(WARNINGS)


def test_no_descriptor_is_left_open() -> None:
    program = "before = os.listdir('/proc/self/fd')\n"
    program += "with quiet():\n    print('x')\n"
    program += "try:\n    with quiet():\n        1 / 0\nexcept ZeroDivisionError:\n    pass\n"
    program += "assert os.listdir('/proc/self/fd') == before"
    assert output_of(program) == ""


def test_process_without_standard_streams_is_quiet_too() -> None:
    assert output_of("out = sys.stdout\nsys.stdout = sys.stderr = None\nwith quiet():\n    print('HELLO')") == ""
