"""A sampler in mode "realtime": acts on its plant on its own account, one tick after the other."""

from dataclasses import replace

from sb3_walle.samplers.sampler import Sampler
from sb3_walle.samplers.tickets import ChunkReport, DriveOrder, Ticket


class RingFullError(RuntimeError):
    """The learner has not taken any steps for so long that there is no room for another one."""

    def __init__(self, n_slots: int) -> None:
        super().__init__(
            f"The learner has not taken any of the last {n_slots} steps, as many as wait for it at most, so that the "
            "plant was given the fallback action. What keeps the learner so long (a callback, say) belongs into "
            "another process or at the end of learn()."
        )


class Driver:
    """
    Makes one step after the other of a sampler's plant, for as long as the sampler has an order to.

    :param sampler: a sampler, which gets orders from its requests
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._begun: DriveOrder | None = None
        self._next_ticket = 0

    def is_driving(self) -> bool:
        """Whether a step is due. Lets the plant rest if the run that its steps belonged to is over."""
        order = self._sampler.order
        if order is None:
            return False
        if order.run != self._sampler.queues.control.run:
            self.rest()
            return False
        if order is not self._begun:
            self._begun, self._next_ticket = order, order.first_ticket
            self._sampler.queues.chunks.forget_from(order.first_ticket)
        return True

    def tick(self) -> ChunkReport:
        """
        Make one step.

        :raises RingFullError: if there is no room for it
        """
        order = self._begun
        assert order is not None
        slot = self._next_ticket % order.n_slots
        if not self._sampler.queues.chunks.is_free(slot):
            raise RingFullError(order.n_slots)
        ticket = Ticket(self._next_ticket, order.run, slot, 1, None, None, order.infos)
        self._next_ticket += 1
        report = self._sampler.collect(ticket)
        return replace(report, run=order.run, times=self._sampler.plants[0].times)

    def rest(self) -> None:
        """Give the plant the fallback action if it is acted on. Its next step begins with a reset."""
        order, self._sampler.order = self._sampler.order, None
        if order is not None and order is self._begun:
            self._sampler.rest_plants()
