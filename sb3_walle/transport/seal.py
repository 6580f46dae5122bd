"""What a sampler writes in front of a finished chunk."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Seal:
    """
    :param ticket: number of the ticket that the chunk answers
    :param version: policy version that chose the actions
    :param n_steps: how many steps were filled
    """

    ticket: int
    version: int
    n_steps: int

    def words(self) -> tuple[int, int, int, int]:
        """The seal as it lies in memory; the last word makes zeroed memory an invalid seal."""
        return self.ticket, self.version, self.n_steps, ~(self.ticket ^ self.version ^ self.n_steps)
