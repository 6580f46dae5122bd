"""The policy queue: the latest weights win, whole or not at all, even if a process dies or writes at the same time."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sb3_walle.transport import policy_queue
from sb3_walle.transport.control import CONTROL_NBYTES, MemoryControlBoard
from sb3_walle.transport.errors import TransportError
from sb3_walle.transport.layout import ALIGNMENT, Field, Layout
from sb3_walle.transport.memory import PrivateMemory
from sb3_walle.transport.policy_queue import PolicyQueue, PolicyReader, policy_queue_nbytes
from sb3_walle.transport.shared_memory import SharedMemory

LAYOUT = Layout(
    (
        Field("matrix", (2, 3), "<f4"),
        Field("scalar", (), "<i8"),
        Field("nothing", (0, 4), "<f8"),
        Field("flags", (5,), "|b1"),
    )
)

Weights = dict[str, np.ndarray]


def weights_of(number: int) -> Weights:
    """Weights that no other number gives."""
    rng = np.random.default_rng(number)
    return {
        "matrix": rng.random((2, 3), np.float32),
        "scalar": np.array(number),
        "nothing": np.zeros((0, 4)),
        "flags": rng.random(5) < 0.5,
    }


def assert_same(actual: Weights | None, expected: Weights) -> None:
    assert actual is not None
    assert list(actual) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, strict=True)


@pytest.fixture(autouse=True)
def gives_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process writes while a test in one process reads."""
    monkeypatch.setattr(policy_queue, "MAX_ATTEMPTS", 3)


@pytest.fixture
def memory() -> PrivateMemory:
    return PrivateMemory(policy_queue_nbytes(LAYOUT))


@pytest.fixture
def queue(memory: PrivateMemory) -> PolicyQueue:
    return PolicyQueue(LAYOUT, memory)


@pytest.fixture
def reader(memory: PrivateMemory, queue: PolicyQueue) -> PolicyReader:
    return PolicyReader(LAYOUT, memory)


class PolicyQueueAgainstList(RuleBasedStateMachine):
    """A queue with two readers, against a list of all that was published."""

    def __init__(self) -> None:
        super().__init__()
        self._patch = mock.patch.object(policy_queue, "MAX_ATTEMPTS", 3)
        self._patch.start()
        self.memory = PrivateMemory(policy_queue_nbytes(LAYOUT))
        self.queue = PolicyQueue(LAYOUT, self.memory)
        self.readers = [PolicyReader(LAYOUT, self.memory) for _ in range(2)]
        self.published: list[int] = []
        #: for each reader, which of them it has, counted from 0
        self.pulled: list[int | None] = [None, None]

    def teardown(self) -> None:
        self._patch.stop()

    # Few versions, so that the same one is often published again, and lower ones after higher ones.
    @rule(version=st.integers(0, 3))
    def publish(self, version: int) -> None:
        self.queue.publish(version, weights_of(len(self.published)))
        self.published.append(version)

    @rule(reader=st.integers(0, 1))
    def pull_newest(self, reader: int) -> None:
        self.expect(reader, None, len(self.published) - 1 if self.published else None)

    @rule(reader=st.integers(0, 1), version=st.integers(0, 3))
    def pull_version(self, reader: int, version: int) -> None:
        kept = [number for number, other in enumerate(self.published) if other == version][-1:]
        self.expect(reader, version, kept[0] if kept and kept[0] >= len(self.published) - 2 else None)

    @invariant()
    def readers_know_what_they_have(self) -> None:
        for reader, number in zip(self.readers, self.pulled, strict=True):
            assert reader.version == (-1 if number is None else self.published[number])

    def expect(self, index: int, version: int | None, number: int | None) -> None:
        """A reader that pulls this version must get this publication."""
        reader = self.readers[index]
        if number is None:
            with pytest.raises(TransportError):
                reader.pull(version)
        elif number == self.pulled[index]:
            assert reader.pull(version) is None
        else:
            assert_same(reader.pull(version), weights_of(number))
            self.pulled[index] = number

    @precondition(lambda self: self.published)
    @rule()
    def a_reader_that_comes_late_gets_the_newest(self) -> None:
        assert_same(PolicyReader(LAYOUT, self.memory).pull(), weights_of(len(self.published) - 1))


PolicyQueueAgainstList.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=30)
TestPolicyQueueAgainstList = PolicyQueueAgainstList.TestCase


def test_error_of_a_version_that_is_no_longer_kept_names_those_that_are(
    queue: PolicyQueue, reader: PolicyReader
) -> None:
    for version in range(3):
        queue.publish(version, weights_of(version))
    with pytest.raises(TransportError, match=r"version 0 cannot be read .* holds \[1, 2\]"):
        reader.pull(0)


def test_weights_that_were_pulled_are_not_changed_by_publishing(queue: PolicyQueue, reader: PolicyReader) -> None:
    queue.publish(0, weights_of(0))
    weights = reader.pull()
    for version in range(1, 5):
        queue.publish(version, weights_of(version))
    assert_same(weights, weights_of(0))


def test_arrays_of_the_publisher_may_be_reused(queue: PolicyQueue, reader: PolicyReader) -> None:
    weights = weights_of(0)
    queue.publish(0, weights)
    for array in weights.values():
        array[...] = 0
    assert_same(reader.pull(), weights_of(0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"matrix": np.zeros((2, 3))},
        {"matrix": np.zeros((3, 2), np.float32)},
        # One row, which NumPy would repeat.
        {"matrix": np.zeros((1, 3), np.float32)},
    ],
)
def test_weights_that_do_not_fit_are_refused_and_those_before_kept(
    wrong: Weights, queue: PolicyQueue, reader: PolicyReader
) -> None:
    queue.publish(0, weights_of(0))
    with pytest.raises(TransportError, match=r"'matrix' is .* was laid out"):
        queue.publish(1, {**weights_of(1), **wrong})
    assert_same(reader.pull(), weights_of(0))
    with pytest.raises(TransportError):
        reader.pull(1)
    queue.publish(2, weights_of(2))
    assert_same(reader.pull(), weights_of(2))


@pytest.mark.parametrize("what", ["matrix", "version", "serial"])
def test_damaged_weights_are_never_handed_out(
    what: str, memory: PrivateMemory, queue: PolicyQueue, reader: PolicyReader
) -> None:
    version = 1234567
    queue.publish(version, weights_of(0))
    contents = np.frombuffer(memory.view, np.uint8)
    original = contents.copy()
    wanted = {**weights_of(0), "version": np.array(version), "serial": np.array(version)}[what]
    stored = np.frombuffer(wanted.tobytes(), np.uint8)
    (start,) = (at for at in range(len(contents)) if np.array_equal(contents[at : at + len(stored)], stored))
    if what == "serial":
        # It stands in front of the version.
        start -= ALIGNMENT
    for position in range(start, start + len(stored)):
        contents[position] ^= 1
        with pytest.raises(TransportError, match="cannot be read"):
            reader.pull()
        contents[position] = original[position]
    assert_same(reader.pull(), weights_of(0))


def test_reader_does_not_go_back_while_what_it_has_is_being_announced(queue: PolicyQueue, reader: PolicyReader) -> None:
    for version in range(3):
        queue.publish(version, weights_of(version))
    announced = queue._latest_serial
    reader.pull()
    announced -= 1
    assert reader.pull() is None
    assert reader.version == 2


# Several processes

N_PULLS = 200
ALL_GOOD = {"n_good": N_PULLS, "n_torn": 0, "n_backwards": 0, "n_wrong": 0}
# Elements of all arrays equal the version, so that weights of two versions show in any mixture.
STAMPED = Layout(
    (
        Field("scalar", (), "<i8"),
        Field("bias", (7,), "<f4"),
        Field("large", (131_072,), "<f8"),
        Field("matrix", (33, 65), "<f8"),
        Field("last", (3,), "<i4"),
    )
)

READER_PROGRAM = f"""
import json, sys
import numpy as np
from sb3_walle.transport import policy_queue
from sb3_walle.transport.errors import TransportError
from sb3_walle.transport.layout import Field, Layout
from sb3_walle.transport.control import CONTROL_NBYTES, MemoryControl
from sb3_walle.transport.policy_queue import PolicyReader, policy_queue_nbytes
from sb3_walle.transport.shared_memory import SharedMemory

queue_fd, control_fd, n_pulls, exact = map(int, sys.argv[1:])
if exact:
    policy_queue.MAX_ATTEMPTS = 5
layout = {STAMPED!r}
reader = PolicyReader(layout, SharedMemory(policy_queue_nbytes(layout), queue_fd))
control = MemoryControl(SharedMemory(CONTROL_NBYTES, control_fd))
n_good = n_torn = n_backwards = n_wrong = newest = 0
while n_good < n_pulls:
    wanted = control.latest_version if exact else None
    try:
        weights = reader.pull(wanted)
    except TransportError:
        # Overwritten in the meantime.
        continue
    if weights is None:
        continue
    n_torn += any((array != reader.version).any() for array in weights.values())
    n_wrong += wanted not in (None, reader.version)
    n_backwards += reader.version < newest
    newest = reader.version
    n_good += 1
    if n_good == 1:
        print("begun", flush=True)
print(json.dumps(dict(n_good=n_good, n_torn=n_torn, n_backwards=n_backwards, n_wrong=n_wrong)))
"""


@contextmanager
def running_reader(stamped: "StampedQueue", n_pulls: int, exact: bool = False) -> Iterator[subprocess.Popen]:
    descriptors = [stamped.memory.fd, stamped.control_memory.fd]
    arguments = [str(number) for number in (*descriptors, n_pulls, int(exact))]
    command = [sys.executable, "-c", READER_PROGRAM, *arguments]
    with subprocess.Popen(command, pass_fds=descriptors, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def report_of(reader: subprocess.Popen) -> dict[str, int]:
    assert reader.stdout is not None
    return json.loads(reader.stdout.read().splitlines()[-1])


class StampedQueue:
    """A queue whose weights all equal their version."""

    def __init__(self) -> None:
        self.memory = SharedMemory(policy_queue_nbytes(STAMPED))
        self.control_memory = SharedMemory(CONTROL_NBYTES)
        self.queue = PolicyQueue(STAMPED, self.memory)
        self.control = MemoryControlBoard(self.control_memory)
        self.version = 0
        self.publish()

    def publish(self) -> None:
        self.version += 1
        weights = {field.name: np.full(field.shape, self.version, field.dtype) for field in STAMPED.fields}
        self.queue.publish(self.version, weights)
        self.control.announce(self.version)


def test_no_reader_ever_sees_half_of_a_publication_or_another_one_than_it_asked_for() -> None:
    stamped = StampedQueue()
    with running_reader(stamped, N_PULLS) as one, running_reader(stamped, N_PULLS, exact=True) as other:
        while one.poll() is None or other.poll() is None:
            stamped.publish()
        assert stamped.version > N_PULLS
        assert report_of(one) == report_of(other) == ALL_GOOD


def test_reader_that_is_killed_while_it_pulls_holds_up_no_process() -> None:
    stamped = StampedQueue()
    with running_reader(stamped, sys.maxsize) as victim, running_reader(stamped, N_PULLS) as survivor:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "begun\n"
        for _ in range(20):
            stamped.publish()
        victim.kill()
        assert victim.wait() == -signal.SIGKILL
        published_before = stamped.version
        while survivor.poll() is None:
            stamped.publish()
        assert stamped.version > published_before
        assert report_of(survivor) == ALL_GOOD
    latecomer = PolicyReader(STAMPED, stamped.memory)
    assert latecomer.pull() is not None
    assert latecomer.version == stamped.version
