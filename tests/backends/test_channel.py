"""Channels: a message arrives whole, in order and with its descriptors, or there is an error that says why not."""

import gc
import os
import select
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_walle.backends.channel import MAX_INLINE, Channel, ChannelClosedError
from sb3_walle.transport.shared_memory import SharedMemory

# Both sides of the size from which on a message does not fit into a packet, to the byte.
OVERHEAD = len(cloudpickle.dumps(bytes(MAX_INLINE))) - MAX_INLINE
SIZES = [0, 1, 1000, *range(MAX_INLINE - OVERHEAD - 8, MAX_INLINE - OVERHEAD + 9), MAX_INLINE, 10_000_000]

Pair = tuple[Channel, Channel]


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = connected()
    yield here, there
    here.close()
    there.close()


def connected(timeout: float | None = None) -> Pair:
    here, there = Channel.pair(timeout)
    return here, Channel(there)


def descriptors() -> dict[str, str]:
    """The open descriptors of this process and what they are of."""
    gc.collect()
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            # That of the directory itself.
            continue
    return found


def is_waiting(channel: Channel) -> bool:
    return bool(select.select([channel], [], [], 0)[0])


# Messages


def test_message_of_any_size_arrives_whole(pair: Pair) -> None:
    rng = np.random.default_rng(0)
    for n_bytes in SIZES:
        for sender, receiver in (pair, pair[::-1]):
            message = rng.bytes(n_bytes)
            sender.send(message)
            assert receiver.receive() == message
            assert not is_waiting(receiver)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@settings(deadline=None, max_examples=30)
@given(st.lists(values, max_size=5))
def test_messages_arrive_unchanged(messages: list[Any]) -> None:
    here, there = connected()
    for message in messages:
        here.send(message)
    assert [there.receive() for _ in messages] == messages
    here.close()
    there.close()


def test_arrays_of_any_size_arrive_writeable(pair: Pair) -> None:
    here, there = pair
    for size in (10, MAX_INLINE):
        array = np.arange(size, dtype=np.float32)
        here.send(array)
        received = there.receive()
        np.testing.assert_array_equal(received, array, strict=True)
        received += 1


def test_messages_of_any_size_arrive_in_order(pair: Pair) -> None:
    here, there = pair
    sizes = [10, 3 * MAX_INLINE, 1000, 2 * MAX_INLINE, 0] * 4
    for number, size in enumerate(sizes):
        here.send((number, bytes(size)))
        # The other direction has an order of its own.
        there.send(-number)
    assert [(number, len(data)) for number, data in (there.receive() for _ in sizes)] == list(enumerate(sizes))
    assert [here.receive() for _ in sizes] == [-number for number in range(len(sizes))]


def test_message_that_does_not_pickle_is_an_error_here_and_nothing_arrives_there(pair: Pair) -> None:
    here, there = pair
    with pytest.raises(TypeError, match="pickle"):
        here.send(["good", (number for number in range(3))])
    assert not is_waiting(there)
    here.send("next")
    assert there.receive() == "next"


def test_message_that_does_not_unpickle_is_an_error_there_and_the_next_one_arrives(pair: Pair) -> None:
    class Unfortunate:
        def __reduce__(self) -> tuple:
            return int, ("not a number",)

    here, there = pair
    here.send(Unfortunate())
    here.send("next")
    with pytest.raises(ValueError, match="not a number"):
        there.receive()
    assert there.receive() == "next"


@pytest.mark.parametrize("n_bytes", [0, MAX_INLINE, 20 * MAX_INLINE])
def test_plain_messages_may_be_of_any_size(n_bytes: int, pair: Pair) -> None:
    here, there = pair
    here.send(("name" * n_bytes, 1), is_plain=True)
    assert there.receive() == ("name" * n_bytes, 1)


def test_a_message_that_arrives_cut_off_is_an_error(pair: Pair) -> None:
    here, there = pair
    before = descriptors()
    # More than this end of a channel ever sends at once.
    here._socket.send(b"i" + bytes(2 * MAX_INLINE))
    with pytest.raises(OSError, match="arrived incomplete"):
        there.receive()
    one, other = socket.socketpair()
    with one, other:
        socket.send_fds(here._socket, [b"i"], [one.fileno()] * 20)
        with pytest.raises(OSError, match="arrived incomplete"):
            there.receive()
    assert descriptors() == before


# Descriptors


@pytest.mark.parametrize("n_bytes", [0, 2 * MAX_INLINE])
def test_shared_memory_in_a_message_is_the_same_memory(n_bytes: int, pair: Pair) -> None:
    here, there = pair
    memories = [SharedMemory(100), SharedMemory(200)]
    here.send({"memories": memories, "more": bytes(n_bytes), "nested": [(memories[0],)]})
    message = there.receive()
    received = [*message["memories"], message["nested"][0][0]]
    assert [memory.nbytes for memory in received] == [100, 200, 100]
    for number, memory in enumerate(received):
        memory.view[number] = 7
    assert [bytes(memory.view[:4]) for memory in memories] == [b"\7\0\7\0", b"\0\7\0\0"]
    assert not any(os.get_inheritable(memory.fd) for memory in received)


@pytest.mark.parametrize("n_bytes", [0, 2 * MAX_INLINE])
def test_socket_in_a_message_is_the_same_socket(n_bytes: int, pair: Pair) -> None:
    here, there = pair
    one, other = socket.socketpair()
    with one, other:
        here.send((bytes(n_bytes), other))
        with there.receive()[1] as received:
            assert not received.get_inheritable()
            received.sendall(b"hello")
            assert one.recv(10) == b"hello"


def test_channel_to_another_process_can_be_handed_on(pair: Pair) -> None:
    here, there = pair
    channel, end = Channel.pair()
    here.send(end)
    end.close()
    handed_on = Channel(there.receive())
    handed_on.send("hello")
    assert channel.receive() == "hello"
    handed_on.close()
    with pytest.raises(ChannelClosedError):
        channel.receive()
    channel.close()


def test_no_descriptor_is_left_open() -> None:
    before = descriptors()
    here, there = connected(timeout=0.01)
    one, other = socket.socketpair()
    for n_bytes in (0, 2 * MAX_INLINE):
        here.send([SharedMemory(100), one, other, bytes(n_bytes)])
        for end in there.receive()[1:3]:
            end.close()
    one.close()
    other.close()
    with pytest.raises(TypeError):
        here.send([SharedMemory(100), (number for number in range(3))])
    with pytest.raises(TimeoutError):
        while True:
            here.send([SharedMemory(100), bytes(2 * MAX_INLINE)])
    # With messages under way.
    here.close()
    there.close()
    assert descriptors() == before


# Ends


def test_closed_other_end_is_an_error(pair: Pair) -> None:
    here, there = pair
    there.close()
    for n_bytes in (0, 2 * MAX_INLINE):
        with pytest.raises(ChannelClosedError, match=r"other end .* closed"):
            here.send(bytes(n_bytes))
    with pytest.raises(ChannelClosedError, match=r"other end .* closed"):
        here.receive()


def test_what_was_sent_before_the_other_end_closed_still_arrives(pair: Pair) -> None:
    here, there = pair
    messages = [bytes(10), bytes(2 * MAX_INLINE), "last"]
    for message in messages:
        here.send(message)
    here.close()
    assert [there.receive() for _ in messages] == messages
    for _ in range(2):
        with pytest.raises(ChannelClosedError):
            there.receive()


def test_what_was_sent_arrives_although_the_other_end_closed_without_reading_everything(pair: Pair) -> None:
    here, there = pair
    messages = [bytes(10), bytes(2 * MAX_INLINE), "last"]
    for message in messages:
        there.send("unread")
        here.send(message)
    here.close()
    assert [there.receive() for _ in messages] == messages
    for _ in range(2):
        with pytest.raises(ChannelClosedError):
            there.receive()


def test_other_end_that_closes_without_reading_is_an_error(pair: Pair) -> None:
    here, there = pair
    here.send("unread")
    there.close()
    with pytest.raises(ChannelClosedError):
        here.receive()


def test_full_mailbox_is_a_timeout_and_what_was_sent_before_arrives_whole() -> None:
    here, there = connected(timeout=0.05)
    n_sent = 0
    with pytest.raises(TimeoutError):
        for n_sent in range(10_000):
            here.send(n_sent.to_bytes(2, "little") * (MAX_INLINE // 3))
    assert n_sent > 0
    assert [there.receive()[:2] for _ in range(n_sent)] == [n.to_bytes(2, "little") for n in range(n_sent)]
    assert not is_waiting(there)
    here.send("room again")
    assert there.receive() == "room again"
    here.close()
    there.close()


# Other processes

ELSEWHERE = """
import socket, sys
from sb3_walle.backends.channel import Channel
channel = Channel(socket.socket(fileno=int(sys.argv[1])))
"""


def start(program: str) -> tuple[Channel, subprocess.Popen]:
    """Start a program that has the other end in ``channel``."""
    channel, end = Channel.pair()
    with end:
        command = [sys.executable, "-c", ELSEWHERE + program, str(end.fileno())]
        return channel, subprocess.Popen(command, pass_fds=[end.fileno()])


@pytest.mark.parametrize("module", ["__main__", "module_of_a_notebook"])
def test_class_that_the_other_process_cannot_import_travels_whole(module: str) -> None:
    namespace = types.ModuleType(module).__dict__
    exec(
        "import math\n"
        "UNIT = math.pi\n"
        "class Circle:\n"
        "    def __init__(self, radius): self.radius = radius\n"
        "    def area(self): return UNIT * self.radius**2\n",
        namespace,
    )
    channel, process = start("circle = channel.receive(); channel.send((circle.area(), type(circle)(2.0)))")
    channel.send(namespace["Circle"](3.0))
    area, other = channel.receive()
    assert area == namespace["Circle"](3.0).area()
    assert other.area() == namespace["Circle"](2.0).area()
    channel.close()
    assert process.wait() == 0


def test_shared_memory_is_shared_with_the_other_process() -> None:
    channel, process = start("memory = channel.receive(); memory.view[5] = 42; channel.send('done')")
    memory = SharedMemory(10)
    channel.send(memory)
    assert channel.receive() == "done"
    assert bytes(memory.view) == bytes([0, 0, 0, 0, 0, 42, 0, 0, 0, 0])
    channel.close()
    assert process.wait() == 0


@pytest.mark.parametrize("n_bytes", [20_000, 100_000])
def test_process_that_is_killed_while_it_sends_leaves_no_half_of_a_message(n_bytes: int) -> None:
    channel, process = start(
        f"number = 0\nwhile True:\n    channel.send((number, bytes([number % 256]) * {n_bytes}))\n    number += 1"
    )
    received = [channel.receive() for _ in range(50)]
    process.kill()
    with pytest.raises(ChannelClosedError):
        while True:
            received.append(channel.receive())
    assert process.wait() == -signal.SIGKILL
    for expected, (number, data) in enumerate(received):
        assert number == expected
        assert data == bytes([number % 256]) * n_bytes
    channel.close()


@pytest.mark.parametrize("end_of", [lambda process: process.kill(), lambda process: process.terminate()])
def test_death_of_the_other_process_is_noticed(end_of: Callable[[subprocess.Popen], None]) -> None:
    channel, process = start("channel.send('ready'); channel.receive()")
    assert channel.receive() == "ready"
    end_of(process)
    with pytest.raises(ChannelClosedError):
        channel.receive()
    with pytest.raises(ChannelClosedError):
        channel.send("hello?")
    process.wait()
    channel.close()


def test_sender_that_does_not_wait_is_told_that_there_is_no_room() -> None:
    here, there = Channel.pair()
    other = Channel(there)
    n_sent = 0
    with pytest.raises(BlockingIOError):
        while n_sent < 100_000:
            here.send(n_sent, may_wait=False)
            n_sent += 1
    assert [other.receive() for _ in range(n_sent)] == list(range(n_sent))
    here.send("there is room again", may_wait=False)
    assert other.receive() == "there is room again"
    here.close()
    other.close()
