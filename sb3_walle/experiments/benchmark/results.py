"""What a benchmark measures, and the numbers."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from sb3_walle.experiments.benchmark.settings import BenchmarkSettings
from sb3_walle.experiments.machine import Machine

COLLECTION = "collection (samples/s)"
END_TO_END = "end to end (samples/s)"
BESIDE_OTHERS = "end to end, beside two busy processes (samples/s)"
UPDATE_ALONE = "update, alone (microseconds/minibatch)"
UPDATE_WHILE_COLLECTING = "update, while samplers collect (microseconds/minibatch)"
START_UP = "start-up (seconds)"
MEMORY = "memory of processes (MB)"
PHYSICAL_LIMIT = "physical limit (samples/s)"
FIRST_UPDATE = "time to the first update (seconds)"
SAMPLER_STEP = "a sampler's step (microseconds)"
SAMPLER_ENV_STEP = "a sampler's step, of which the environment (microseconds)"
# Who makes the updates of several sizes.
EAGER, COMPILED = "SB3", "compiled"


def iteration_part(phase: str) -> str:
    """
    :param phase: what is done in an iteration
    :return: the quantity that tells how long
    """
    return f"iteration: {phase} (milliseconds)"


def first_run(contender: str) -> str:
    """
    :param contender: name of a configuration of AsyncPPO
    :return: its name where nothing has been compiled before
    """
    return f"{contender}, first run"


def update_of(net: str, batch_size: int) -> str:
    """
    :param net: name of a network
    :param batch_size: samples of a minibatch
    :return: the quantity that its update takes
    """
    return f"update of {net}, minibatches of {batch_size} (microseconds/minibatch)"


@dataclass(frozen=True)
class Measurement:
    """
    One number.

    :param quantity: what was measured, with its unit
    :param contender: of whom
    :param repeat: in which repeat, from 1
    :param value: the number
    """

    quantity: str
    contender: str
    repeat: int
    value: float


def median_of(measurements: Iterable[Measurement], quantity: str, contender: str) -> float | None:
    """
    :param measurements: some numbers
    :param quantity: what was measured
    :param contender: of whom
    :return: the median over the repeats; None if that was not measured
    """
    values = [each.value for each in measurements if (each.quantity, each.contender) == (quantity, contender)]
    return median(values) if values else None


@dataclass(frozen=True)
class BenchmarkResults:
    """
    All numbers of a benchmark.

    :param settings: what was measured
    :param machine: where
    :param async_contenders: names of the configurations of AsyncPPO
    :param vec_env_contenders: names of the configurations of SB3's PPO
    :param measurements: the numbers
    """

    settings: BenchmarkSettings
    machine: Machine
    async_contenders: tuple[str, ...]
    vec_env_contenders: tuple[str, ...]
    measurements: tuple[Measurement, ...]

    @property
    def limit(self) -> str:
        """What the physical limit was measured with; empty if it was not measured."""
        return next((each.contender for each in self.measurements if each.quantity == PHYSICAL_LIMIT), "")

    def median(self, quantity: str, contender: str) -> float | None:
        """
        The median over the repeats.

        :param quantity: what was measured
        :param contender: of whom
        :return: the median; None if that was not measured
        """
        return median_of(self.measurements, quantity, contender)
