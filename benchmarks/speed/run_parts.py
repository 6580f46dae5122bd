"""Measuring again and again, so that all contenders meet the same disturbances, and the report of the medians."""

import sys
from collections.abc import Mapping
from typing import Any

from gymnasium import spaces

from benchmarks.machine import Machine, describe_machine
from benchmarks.speed.measurements import Measurement, medians_of
from benchmarks.speed.parts import Part
from benchmarks.speed.sbx_contenders import sbx_trainees
from benchmarks.speed.speed_settings import SpeedSettings
from sb3_walle.cli.arguments import UsageError
from sb3_walle.cli.environments import check_environment


def check_settings(settings: SpeedSettings) -> None:
    """
    Refuse what cannot be measured, before anything is.

    :raises UsageError: if the settings make no sense
    """
    if isinstance(check_environment(settings.env_id).observation_space, spaces.Dict):
        raise UsageError(f"'{settings.env_id}' has dictionaries as observations, for which there is no MlpPolicy")
    for trainee in settings.trainees():
        if trainee.arguments.get("n_steps", 2) < 2:
            raise UsageError(
                f"the iteration has too few samples for the {trainee.contender.n_envs} environments of "
                f"'{trainee.name}': at least {2 * trainee.contender.n_envs} are needed"
            )
    if settings.sbx:
        sbx_trainees(settings.trainees())
    # SB3 checks the spaces. A single environment is enough for that.
    trainee = settings.trainees()[-1]
    with trainee.running(settings.env_id):
        pass


def measure_parts(settings: SpeedSettings, parts: Mapping[str, Part]) -> list[Measurement]:
    """
    Measure all parts, the contenders taking turns within each repeat.

    :return: all numbers
    :raises UsageError: if the settings make no sense
    """
    check_settings(settings)
    return repeat_parts(settings, parts, settings.repeats)


def repeat_parts(settings: Any, parts: Mapping[str, Part], repeats: int) -> list[Measurement]:
    """
    Measure all parts, and say on stderr how far it is.

    :param settings: what the parts take
    :return: all numbers
    """
    measurements: list[Measurement] = []
    for repeat in range(1, repeats + 1):
        for name, part in parts.items():
            for quantity, contender, value in part.measure(settings):
                measurements.append(Measurement(name, quantity, contender, repeat, value))
                number = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
                print(f"[{repeat}/{repeats}] {name}: {quantity}: {contender}: {number}", file=sys.stderr)
    return measurements


def format_report(
    settings: SpeedSettings, parts: Mapping[str, Part], measurements: list[Measurement], machine: Machine
) -> str:
    """:return: the text that the command prints"""
    heading = (
        f"{settings.env_id} {machine.in_words()}\n\n{settings.in_words()}\n"
        f"Medians of {settings.repeats} repeat(s), in each of which the contenders took turns\n"
        "'S x E' are S samplers of E environments; 'best SB3' is the fastest of SB3's VecEnvs"
    )
    sections = [f"{part.title}\n\n{part.table(medians_of(measurements, name))}" for name, part in parts.items()]
    return "\n\n\n".join([heading, *sections]) + "\n"


def run_parts(settings: SpeedSettings, parts: Mapping[str, Part]) -> tuple[str, list[Measurement]]:
    """
    :return: the report, and all numbers
    :raises UsageError: if the settings make no sense
    """
    machine = describe_machine()
    measurements = measure_parts(settings, parts)
    return format_report(settings, parts, measurements, machine), measurements
