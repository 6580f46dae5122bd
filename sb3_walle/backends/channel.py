"""Messages between two processes on this machine."""

import contextlib
import io
import os
import pickle
import select
import socket
import struct
from array import array
from typing import Any

import cloudpickle

from sb3_walle.transport.shared_memory import SharedMemory

# Larger messages travel as a memory file, of which only the descriptor is sent. Well below the kernel's send buffer.
MAX_INLINE = 32_768
MAX_DESCRIPTORS = 16
_INLINE, _IN_FILE = b"i", b"f"
# Process, user and group.
_CREDENTIALS = struct.Struct("3i")


class ChannelClosedError(ConnectionError):
    """The other end is closed, or its process is dead."""


class Channel:
    """
    One end of a two-way connection that carries pickled messages.

    A packet socket delivers a message whole or not at all, so that a process that is killed in the middle of sending
    leaves no half of a message behind, and an exception in the middle of sending cannot put the two ends out of step.
    Shared memory and sockets inside a message travel as file descriptors.

    :param end: one end of a socket pair; owned by this object from now on
    :param timeout: longest time in seconds that sending, or receiving, may block, ``None`` for ever
    """

    def __init__(self, end: socket.socket, timeout: float | None = None) -> None:
        self._socket = end
        self._socket.settimeout(timeout)

    @classmethod
    def pair(cls, timeout: float | None = None) -> tuple["Channel", socket.socket]:
        """This end, for which the timeout holds, and the socket to hand to the other process."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(here, timeout), there

    def fileno(self) -> int:
        return self._socket.fileno()

    def peer(self) -> int:
        """:return: number of the process that has made both ends"""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return _CREDENTIALS.unpack(credentials)[0]

    def wait(self, timeout: float) -> bool:
        """Wait for as many seconds. Returns whether there is something to receive, or the other end is closed."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def send(self, message: Any, is_plain: bool = False, may_wait: bool = True) -> None:
        """
        :param message: anything that cloudpickle pickles
        :param is_plain: whether the message is nothing but numbers, strings and this package's own types, which take a
            tenth of the time
        :param may_wait: whether to wait while the other end has not taken earlier messages
        :raises ChannelClosedError: if the other end is closed
        :raises TimeoutError: if the other end has not taken earlier messages for too long
        :raises BlockingIOError: if it has not taken them, and this end does not wait
        :raises ValueError: if the message holds too much shared memory
        """
        payload: bytes | memoryview
        if is_plain:
            payload, descriptors = pickle.dumps(message, pickle.HIGHEST_PROTOCOL), []
        else:
            body = io.BytesIO()
            pickler = _Pickler(body)
            pickler.dump(message)
            payload, descriptors = body.getbuffer(), pickler.descriptors
        if len(descriptors) >= MAX_DESCRIPTORS:
            raise ValueError(f"A message can carry {MAX_DESCRIPTORS - 1} file descriptors, not {len(descriptors)}")
        flags = 0 if may_wait else socket.MSG_DONTWAIT
        if len(payload) <= MAX_INLINE:
            self._send(_INLINE, payload, descriptors, flags)
        else:
            memory = SharedMemory(len(payload))
            memory.view[:] = payload
            self._send(_IN_FILE, len(payload).to_bytes(8, "little"), [memory.fd, *descriptors], flags)
            memory.close()

    def receive(self) -> Any:
        """
        Wait for the next message.

        :raises ChannelClosedError: if the other end is closed and all that it sent was received
        :raises BlockingIOError: if nothing is there, and this end does not wait
        """
        packet, descriptors = self._receive()
        if not packet:
            raise ChannelClosedError("The other end of the channel is closed")
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        kind, payload = packet[:1], memoryview(packet)[1:]
        if kind == _IN_FILE:
            memory = SharedMemory(int.from_bytes(payload, "little"), descriptors[0])
            payload, descriptors = memory.view, descriptors[1:]
            memory.close()
        unpickler = _Unpickler(io.BytesIO(payload), descriptors)
        try:
            return unpickler.load()
        finally:
            unpickler.close_unclaimed()

    def end_sending(self) -> None:
        """To the other end, this one is closed. What that sends before it has noticed can still be received."""
        # It may have gone.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> tuple[bytes, list[int]]:
        for _ in range(2):
            # That the other end was closed before it had read everything, is said once, before what it has sent.
            with contextlib.suppress(ConnectionResetError):
                packet, descriptors, flags, _ = socket.recv_fds(self._socket, MAX_INLINE + 1, MAX_DESCRIPTORS)
                if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                    for descriptor in descriptors:
                        os.close(descriptor)
                    raise OSError("A message arrived incomplete: is this process out of file descriptors?")
                return packet, descriptors
        return b"", []

    def _send(self, kind: bytes, payload: bytes | memoryview, descriptors: list[int], flags: int) -> None:
        try:
            # Python's send_fds() takes flags and ignores them.
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))]
            self._socket.sendmsg([kind, payload], rights, flags)
        except ConnectionError as error:
            raise ChannelClosedError("The other end of the channel is closed") from error


class _Pickler(cloudpickle.Pickler):
    """Replaces shared memory and sockets by the place of their descriptor in a list."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.descriptors: list[int] = []

    def persistent_id(self, value: Any) -> tuple[str, int, int] | None:
        if isinstance(value, SharedMemory):
            self.descriptors.append(value.fd)
            return "memory", len(self.descriptors) - 1, value.nbytes
        if isinstance(value, socket.socket):
            self.descriptors.append(value.fileno())
            return "socket", len(self.descriptors) - 1, 0
        return None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, descriptors: list[int]) -> None:
        super().__init__(file)
        self._descriptors = dict(enumerate(descriptors))

    def persistent_load(self, value: tuple[str, int, int]) -> SharedMemory | socket.socket:
        kind, index, nbytes = value
        descriptor = self._descriptors.pop(index)
        return SharedMemory(nbytes, descriptor) if kind == "memory" else socket.socket(fileno=descriptor)

    def close_unclaimed(self) -> None:
        """Close the descriptors that no object has taken over, because unpickling failed before."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
