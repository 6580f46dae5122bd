"""The experience queue: every slot has one owner at a time, and a chunk is what its sampler said or an error."""

from dataclasses import replace

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sb3_walle.transport.chunk import Chunk, Seal, chunk_layout
from sb3_walle.transport.errors import TransportError
from sb3_walle.transport.experience_queue import ExperienceGeometry, ExperienceQueue, ExperienceWriter
from sb3_walle.transport.layout import ALIGNMENT, Field
from sb3_walle.transport.memory import PrivateMemory

T, B, N_SAMPLERS, N_SLOTS = 4, 2, 3, 3
LAYOUT = chunk_layout(
    T,
    B,
    spaces.Dict({"image": spaces.Box(0, 255, (2, 2), np.uint8), "number": spaces.Discrete(3)}),
    (Field("actions", (T, B), "<i8"), Field("log_probs", (T, B), "<f4")),
)
GEOMETRY = ExperienceGeometry(LAYOUT, N_SAMPLERS, N_SLOTS)

Contents = dict[str, np.ndarray]

unhurried = settings(deadline=None, max_examples=60)


def contents_of(number: int) -> Contents:
    """Values for all arrays of a chunk that no other number gives."""
    rng = np.random.default_rng(number)
    return {field.name: (rng.random(field.shape) * 255).astype(field.dtype) for field in LAYOUT.fields}


def write(chunk: Chunk, contents: Contents) -> None:
    for name, array in chunk.arrays.items():
        array[...] = contents[name]


def assert_holds(chunk: Chunk, contents: Contents) -> None:
    assert set(chunk.arrays) == set(contents)
    for name, array in contents.items():
        np.testing.assert_array_equal(chunk.arrays[name], array, strict=True)


class Ends:
    """A queue and the writers of all its samplers."""

    def __init__(self) -> None:
        self.memory = PrivateMemory(GEOMETRY.nbytes)
        self.queue = ExperienceQueue(GEOMETRY, self.memory)
        self.writers = [ExperienceWriter(GEOMETRY, self.memory, index) for index in range(N_SAMPLERS)]

    def finish(self, sampler: int, slot: int, seal: Seal, number: int = 0) -> None:
        """What a sampler does with a slot."""
        write(self.writers[sampler].open(slot), contents_of(number))
        self.writers[sampler].seal(slot, seal)

    def slot_memory(self, sampler: int, slot: int) -> np.ndarray:
        return np.frombuffer(GEOMETRY.slot(self.memory.view, sampler, slot), np.uint8)


@pytest.fixture
def ends() -> Ends:
    return Ends()


seals = st.builds(Seal, st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, T))


class ExperienceQueueAgainstDictionary(RuleBasedStateMachine):
    """The learner and several samplers at one queue, against a dictionary of what is where."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = Ends()
        #: the slots that are set aside, by sampler and slot; what was sealed there, if anything
        self.taken: dict[tuple[int, int], tuple[Seal, int] | None] = {}
        self.n_written = 0

    samplers = st.integers(0, N_SAMPLERS - 1)

    @rule(sampler=samplers)
    def reserve(self, sampler: int) -> None:
        slot = self.ends.queue.reserve(sampler)
        own = {other for owner, other in self.taken if owner == sampler}
        if slot is None:
            assert own == set(range(N_SLOTS))
        else:
            assert slot in set(range(N_SLOTS)) - own
            self.taken[sampler, slot] = None

    def one_of_the_taken(self, data: st.DataObject) -> tuple[int, int]:
        return data.draw(st.sampled_from(sorted(self.taken)))

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), seal=seals)
    def finish_chunk(self, data: st.DataObject, seal: Seal) -> None:
        place = self.one_of_the_taken(data)
        self.n_written += 1
        self.ends.finish(*place, seal, self.n_written)
        self.taken[place] = seal, self.n_written

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def begin_chunk(self, data: st.DataObject) -> None:
        sampler, slot = place = self.one_of_the_taken(data)
        write(self.ends.writers[sampler].open(slot), contents_of(0))
        self.taken[place] = None

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        place = self.one_of_the_taken(data)
        self.ends.queue.release(*place)
        del self.taken[place]

    @rule()
    def release_all(self) -> None:
        self.ends.queue.release_all()
        self.taken.clear()

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), announced=seals)
    def take_something_else_than_was_sealed(self, data: st.DataObject, announced: Seal) -> None:
        sampler, slot = place = self.one_of_the_taken(data)
        held = self.taken[place]
        if held is None or held[0] != announced:
            with pytest.raises(TransportError):
                self.ends.queue.chunk(sampler, slot, announced)

    @invariant()
    def finished_chunks_stay_as_they_are_until_they_are_released(self) -> None:
        for (sampler, slot), held in self.taken.items():
            if held is not None:
                seal, number = held
                chunk = self.ends.queue.chunk(sampler, slot, seal)
                assert chunk.n_steps == seal.n_steps
                assert_holds(chunk, contents_of(number))


ExperienceQueueAgainstDictionary.TestCase.settings = settings(deadline=None, max_examples=50, stateful_step_count=30)
TestExperienceQueueAgainstDictionary = ExperienceQueueAgainstDictionary.TestCase


def test_each_sampler_gets_every_one_of_its_slots_once(ends: Ends) -> None:
    for sampler in range(N_SAMPLERS):
        assert {ends.queue.reserve(sampler) for _ in range(N_SLOTS)} == set(range(N_SLOTS))
        assert ends.queue.reserve(sampler) is None


def test_slot_that_is_released_twice_is_handed_out_once(ends: Ends) -> None:
    slots = [ends.queue.reserve(0) for _ in range(N_SLOTS)]
    ends.queue.release(0, slots[1])
    ends.queue.release(0, slots[1])
    assert ends.queue.reserve(0) == slots[1]
    assert ends.queue.reserve(0) is None


def test_a_slot_that_is_set_aside_again_holds_no_chunk(ends: Ends) -> None:
    seal = Seal(ticket=0, version=0, n_steps=1)
    slots = [ends.queue.reserve(0) for _ in range(N_SLOTS)]
    ends.finish(0, slots[1], seal)
    ends.queue.release(0, slots[1])
    assert ends.queue.reserve(0) == slots[1]
    with pytest.raises(TransportError):
        ends.queue.chunk(0, slots[1], seal)


@pytest.mark.parametrize("wrong", [{"ticket": 6}, {"version": 4}, {"n_steps": 2}, {"ticket": 3, "version": 5}])
def test_chunk_of_another_seal_than_was_announced_is_an_error(wrong: dict[str, int], ends: Ends) -> None:
    seal = Seal(ticket=5, version=3, n_steps=T)
    ends.finish(1, 2, seal)
    announced = replace(seal, **wrong)
    with pytest.raises(TransportError, match=r"Sampler 1 announced Seal.* in slot 2, which holds \(5, 3, 4"):
        ends.queue.chunk(1, 2, announced)
    assert_holds(ends.queue.chunk(1, 2, seal), contents_of(0))


def test_chunk_that_was_never_begun_is_an_error_even_if_its_seal_would_be_all_zeros(ends: Ends) -> None:
    with pytest.raises(TransportError):
        ends.queue.chunk(0, 0, Seal(0, 0, 0))


def test_chunk_that_is_being_filled_again_is_an_error(ends: Ends) -> None:
    seal = Seal(0, 0, T)
    ends.finish(0, 0, seal)
    ends.writers[0].open(0)
    with pytest.raises(TransportError):
        ends.queue.chunk(0, 0, seal)


def test_chunk_is_not_confused_with_those_of_other_slots_and_samplers(ends: Ends) -> None:
    seal = Seal(0, 0, T)
    ends.finish(1, 1, seal)
    for sampler, slot in [(0, 1), (2, 1), (1, 0), (1, 2)]:
        with pytest.raises(TransportError):
            ends.queue.chunk(sampler, slot, seal)


def test_more_steps_than_fit_are_an_error_even_if_they_were_announced(ends: Ends) -> None:
    for n_steps in (T + 1, -1):
        ends.finish(0, 0, Seal(0, 0, n_steps))
        with pytest.raises(TransportError):
            ends.queue.chunk(0, 0, Seal(0, 0, n_steps))


@unhurried
@given(seals, st.integers(0, 31), st.integers(1, 255))
def test_seal_with_any_damaged_byte_is_an_error(seal: Seal, position: int, flipped: int) -> None:
    ends = Ends()
    ends.finish(0, 1, seal)
    memory = ends.slot_memory(0, 1)
    memory[position] ^= flipped
    with pytest.raises(TransportError):
        ends.queue.chunk(0, 1, seal)
    memory[position] ^= flipped
    assert_holds(ends.queue.chunk(0, 1, seal), contents_of(0))


@unhurried
@given(seals, st.integers(0, 255))
def test_slot_that_was_scribbled_over_is_an_error(seal: Seal, value: int) -> None:
    ends = Ends()
    ends.finish(2, 0, seal)
    ends.slot_memory(2, 0)[:] = value
    with pytest.raises(TransportError):
        ends.queue.chunk(2, 0, seal)


def test_writer_of_a_sampler_that_does_not_exist_is_refused(ends: Ends) -> None:
    with pytest.raises(IndexError):
        ExperienceWriter(GEOMETRY, ends.memory, N_SAMPLERS)


@pytest.mark.parametrize(("sampler", "slot"), [(-1, 0), (N_SAMPLERS, 0), (0, -1), (0, N_SLOTS), (99, 99)])
def test_slot_that_does_not_exist_has_no_memory(sampler: int, slot: int, ends: Ends) -> None:
    with pytest.raises(IndexError, match=f"No slot {slot} of sampler {sampler} in {N_SAMPLERS} x {N_SLOTS} slots"):
        ends.slot_memory(sampler, slot)


@unhurried
@given(st.integers(1, 5), st.integers(1, 5))
def test_slots_share_no_cache_line_and_fill_the_memory(n_samplers: int, n_slots: int) -> None:
    geometry = ExperienceGeometry(LAYOUT, n_samplers, n_slots)
    memory = memoryview(bytearray(geometry.nbytes))
    n_owners = np.frombuffer(memory, np.uint8)
    for sampler in range(n_samplers):
        for slot in range(n_slots):
            part = np.frombuffer(geometry.slot(memory, sampler, slot), np.uint8)
            assert len(part) >= LAYOUT.nbytes
            assert (part.ctypes.data - n_owners.ctypes.data) % ALIGNMENT == 0
            part += 1
    assert (n_owners == 1).all()
