"""What an updater needs of the processes that share its minibatches with it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from sb3_walle.updates.division import Division
from sb3_walle.updates.parameter_groups import ParameterGroup
from sb3_walle.updates.program_compiler import Program
from sb3_walle.updates.traced_step import TracedStep


class Sharing(Protocol):
    """Several processes that make the halves of a division."""

    #: number of processes, this one included
    n_learners: int

    @property
    def n_restarts(self) -> int:
        """Number of processes that have died and were replaced."""

    @property
    def are_ready(self) -> bool:
        """Whether all of them have taken part in the last update from its beginning."""

    def prepare(self) -> None:
        """Start what takes time, in the background."""

    def begin(
        self,
        division: Division,
        groups: Sequence[ParameterGroup],
        steps: Mapping[str, TracedStep],
        halves: Mapping[str, Program],
    ) -> Mapping[str, Program]:
        """
        Called before each update. The first call for a division moves the groups to where all processes see them.

        :param division: how updates are divided
        :param groups: the groups of parameters
        :param steps: the whole steps by name
        :param halves: programs of all halves of the division
        :return: for each step, by name, what makes it with all processes
        """

    def close(self) -> None:
        """End all processes but this one."""
