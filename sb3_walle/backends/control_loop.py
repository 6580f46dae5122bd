"""A sampler's process in mode "realtime": what it does while there is no request."""

import contextlib
import gc
from collections import deque

from sb3_walle.backends.channel import Channel, ChannelClosedError
from sb3_walle.backends.learner_watch import LearnerWatch
from sb3_walle.backends.protocol import UNASKED
from sb3_walle.realtime.priority import come_first
from sb3_walle.samplers.driving import Driver
from sb3_walle.samplers.errors import Failure
from sb3_walle.samplers.requests import CloseEnvs, Drive, Result, answer
from sb3_walle.samplers.sampler import Sampler
from sb3_walle.samplers.tickets import ChunkReport
from sb3_walle.transport.pulse import Pulse

# Of a message. Those that could not be sent for a while are sent in parts, so that no tick takes long.
MOST_REPORTS = 64


class ControlLoop:
    """
    Makes one step after the other, and tells the learner of them, without ever waiting for it: what the channel has no
    room for is told later.

    :param sampler: the sampler
    :param channel: its end of the channel to the learner
    :param pulse: told when a step is over; ``None`` where no step is timed
    """

    def __init__(self, sampler: Sampler, channel: Channel, pulse: Pulse | None = None) -> None:
        self._sampler, self._channel, self._pulse = sampler, channel, pulse
        self._driver = Driver(sampler)
        self._unsent: deque[ChunkReport] = deque()
        self._garbage_rests = False
        self._learner = LearnerWatch(channel.peer())

    def run(self) -> bool:
        """
        Make steps until the learner asks for something, hangs up, or lets the plant rest.

        :return: False if there was a failure, after which the sampler ends
        :raises ChannelClosedError: if the learner is dying
        """
        try:
            while self._driver.is_driving():
                self._begin()
                self._unsent.append(self._driver.tick())
                # The wait for the next tick is not part of a step.
                self._note_rest()
                self._tell(may_wait=False)
                if self._learner.is_dying():
                    raise ChannelClosedError("The learner is dying")
                if self._channel.wait(0.0):
                    return True
        except ChannelClosedError:
            raise
        except (Exception, SystemExit) as error:
            self._fail(error)
            return False
        self._end()
        return True

    def rest(self) -> bool:
        """
        Let the plant rest, if it is acted on.

        :return: False if there was a failure, after which the sampler ends
        """
        try:
            self._driver.rest()
        except (Exception, SystemExit) as error:
            self._fail(error)
            return False
        self._end()
        return True

    def end(self) -> None:
        """Let the plant rest, as far as it is possible: the learner has hung up, or something has failed."""
        # If the environment fails, now or before, there is nothing left to do for the plant but to close it.
        with contextlib.suppress(Exception, SystemExit):
            self._driver.rest()
        self._end()

    def _begin(self) -> None:
        """Have no garbage collected between two ticks: it takes longer the more there is. A reset collects it."""
        if not self._garbage_rests:
            self._garbage_rests = True
            self._unsent.clear()
            gc.collect()
            gc.freeze()
            gc.disable()
            come_first()

    def _note_rest(self) -> None:
        if self._pulse is not None:
            self._pulse.rest()

    def _end(self) -> None:
        self._note_rest()
        if self._garbage_rests:
            self._garbage_rests = False
            gc.enable()
            gc.unfreeze()

    def _tell(self, may_wait: bool) -> None:
        """Tell the learner of the chunks, as far as there is room in the channel."""
        unsent = self._unsent
        reports = tuple(unsent.popleft() for _ in range(min(len(unsent), MOST_REPORTS)))
        try:
            self._channel.send((UNASKED, Result(reports)), may_wait=may_wait)
        except BlockingIOError:
            unsent.extendleft(reversed(reports))
        except BaseException:
            # An info that does not pickle, say: neither may those after it.
            unsent.clear()
            raise

    def _fail(self, error: BaseException) -> None:
        """Let the plant rest and close it. Then there is time to wait for the learner."""
        failure = Failure.of(error, Drive.summary)
        self.end()
        # A failure in closing what has failed before tells nothing new.
        answer(self._sampler, CloseEnvs())
        while self._unsent:
            self._tell(may_wait=True)
        self._channel.send((UNASKED, failure))
