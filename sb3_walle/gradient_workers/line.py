"""The learner and a gradient worker in step: one byte each way for each share of a minibatch."""

import math
import socket
import struct
import time

# What lies between two minibatches of a small network takes less; to put a process to sleep and wake it takes as long.
# Longer, and on a busy machine it would take the core that the other process needs. To yield instead would hand the
# core to any other process for milliseconds, also to one of a lower priority.
SPIN_SECONDS = 100e-6


class LineClosedError(ConnectionError):
    """The process at the other end is dead, or has hung up."""


class LineSilentError(TimeoutError):
    """The process at the other end lives, and has sent nothing for too long."""


class Line:
    """
    One end of a packet socket. It orders memory: what one end has written to shared memory before it sends, the other
    one finds there after it has received. And it ends with the process at its other end, so that none waits in vain.

    :param end: this process's end; owned by this object from now on
    :param patience: how long :meth:`receive` waits, in seconds; by default as long as it takes
    """

    def __init__(self, end: socket.socket, patience: float | None = None) -> None:
        self._socket = end
        end.setblocking(True)
        if patience is not None:
            # A timeout of Python's would ask the system before each call whether it would wait.
            fraction, seconds = math.modf(patience)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(seconds), int(1e6 * fraction)))

    @classmethod
    def pair(cls, patience: float | None = None) -> tuple["Line", socket.socket]:
        """This end, and the socket to hand to the other process."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(here, patience), there

    def send(self, number: int) -> None:
        """
        :param number: from 0 to 255
        :raises LineClosedError: if the other end is closed
        """
        try:
            self._socket.send(bytes((number,)))
        except ConnectionError as error:
            raise LineClosedError from error

    def receive(self) -> int:
        """
        Wait for a number: awake for some microseconds, then asleep.

        :raises LineClosedError: if the other end is closed
        :raises LineSilentError: if there is none for too long
        """
        deadline = time.perf_counter() + SPIN_SECONDS
        while time.perf_counter() < deadline:
            if (number := self.received()) is not None:
                return number
        try:
            return self._take(0)
        except BlockingIOError:
            raise LineSilentError from None

    def received(self) -> int | None:
        """
        A number, if there is one.

        :raises LineClosedError: if the other end is closed
        """
        try:
            return self._take(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def close(self) -> None:
        self._socket.close()

    def _take(self, flags: int) -> int:
        try:
            packet = self._socket.recv(1, flags)
        except ConnectionError as error:
            raise LineClosedError from error
        if not packet:
            raise LineClosedError
        return packet[0]
