"""Labels: memory of another layout, format or size than is expected is refused before anything is read from it."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_walle.transport import label
from sb3_walle.transport.errors import TransportError
from sb3_walle.transport.experience_queue import ExperienceGeometry, ExperienceQueue, ExperienceWriter
from sb3_walle.transport.label import LABEL_NBYTES, Label
from sb3_walle.transport.layout import Field, Layout
from sb3_walle.transport.memory import SharedMemory
from sb3_walle.transport.policy_queue import PolicyQueue, PolicyReader, policy_queue_nbytes

# All of them, of the same size or not, are different types.
DTYPES = ["|b1", "|i1", "|u1", "<i4", "<u4", "<f4", ">f4", "<i8", "<f8", "<c8"]

names = st.text(max_size=8)
shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
fields = st.builds(Field, names, shapes, st.sampled_from(DTYPES))
layouts = st.lists(fields, min_size=2, max_size=5, unique_by=lambda field: field.name).map(
    lambda found: Layout(tuple(found))
)
few = st.integers(1, 3)

unhurried = settings(deadline=None, max_examples=100)


def renamed(layout: Layout, data: st.DataObject) -> Layout:
    index, present = draw_index(layout, data), {field.name for field in layout.fields}
    name = data.draw(names.filter(lambda name: name not in present))
    return with_field(layout, index, replace(layout.fields[index], name=name))


def reshaped(layout: Layout, data: st.DataObject) -> Layout:
    index = draw_index(layout, data)
    shape = data.draw(shapes.filter(lambda shape: shape != layout.fields[index].shape))
    return with_field(layout, index, replace(layout.fields[index], shape=shape))


def retyped(layout: Layout, data: st.DataObject) -> Layout:
    index = draw_index(layout, data)
    dtype = data.draw(st.sampled_from([dtype for dtype in DTYPES if dtype != layout.fields[index].dtype]))
    return with_field(layout, index, replace(layout.fields[index], dtype=dtype))


def reordered(layout: Layout, data: st.DataObject) -> Layout:
    index = data.draw(st.integers(0, len(layout.fields) - 2))
    swapped = list(layout.fields)
    swapped[index], swapped[index + 1] = swapped[index + 1], swapped[index]
    return Layout(tuple(swapped))


def lengthened(layout: Layout, data: st.DataObject) -> Layout:
    present = {field.name for field in layout.fields}
    return Layout((*layout.fields, data.draw(fields.filter(lambda field: field.name not in present))))


def draw_index(layout: Layout, data: st.DataObject) -> int:
    return data.draw(st.integers(0, len(layout.fields) - 1))


def with_field(layout: Layout, index: int, field: Field) -> Layout:
    return Layout((*layout.fields[:index], field, *layout.fields[index + 1 :]))


CHANGES: list[Callable[[Layout, st.DataObject], Layout]] = [renamed, reshaped, retyped, reordered, lengthened]

every_change = pytest.mark.parametrize("change", CHANGES)


def labelled(kind: str, layout: Layout, counts: tuple[int, ...] = (), nbytes: int = LABEL_NBYTES) -> memoryview:
    memory = memoryview(bytearray(nbytes))
    Label(kind, layout, nbytes, counts).write(memory)
    return memory


@unhurried
@given(layouts, st.lists(st.integers(0, 9), max_size=3).map(tuple), st.integers(LABEL_NBYTES, 1_000))
def test_the_same_is_accepted(layout: Layout, counts: tuple[int, ...], nbytes: int) -> None:
    Label("queue", layout, nbytes, counts).check(labelled("queue", layout, counts, nbytes))


@every_change
@unhurried
@given(layout=layouts, data=st.data())
def test_any_change_of_the_layout_is_an_error(
    change: Callable[[Layout, st.DataObject], Layout], layout: Layout, data: st.DataObject
) -> None:
    other = change(layout, data)
    # The memory has the same size: it is the fingerprint alone that tells.
    with pytest.raises(TransportError, match=r"layout fingerprint 0x[0-9a-f]+ where 0x[0-9a-f]+ was expected"):
        Label("queue", other, LABEL_NBYTES).check(labelled("queue", layout))


@unhurried
@given(layouts, st.lists(st.tuples(few, few), min_size=2, max_size=2, unique=True))
def test_any_change_of_the_counts_is_an_error(layout: Layout, counts: list[tuple[int, int]]) -> None:
    with pytest.raises(TransportError, match="layout fingerprint"):
        Label("queue", layout, LABEL_NBYTES, counts[1]).check(labelled("queue", layout, counts[0]))


@unhurried
@given(layouts)
def test_one_kind_of_memory_is_not_taken_for_another(layout: Layout) -> None:
    with pytest.raises(TransportError, match=r"The policy queue in shared memory is not the one .* fingerprint"):
        Label("policy queue", layout, LABEL_NBYTES).check(labelled("experience queue", layout))


@unhurried
@given(layouts, st.integers(0, LABEL_NBYTES - 1), st.integers(1, 255))
def test_any_damaged_byte_is_an_error(layout: Layout, position: int, flipped: int) -> None:
    memory = labelled("queue", layout)
    memory[position] ^= flipped
    with pytest.raises(TransportError, match=r"has the .* where .* was expected"):
        Label("queue", layout, LABEL_NBYTES).check(memory)
    memory[position] ^= flipped
    Label("queue", layout, LABEL_NBYTES).check(memory)


@pytest.mark.parametrize("nbytes", [0, 1, LABEL_NBYTES - 1, LABEL_NBYTES + 1, 10 * LABEL_NBYTES])
def test_memory_of_another_size_is_refused_before_it_is_read(nbytes: int) -> None:
    layout = Layout((Field("a", (), "<f4"),))
    expected = Label("queue", layout, LABEL_NBYTES)
    with pytest.raises(TransportError, match=f"The queue has {nbytes} bytes, but its layout needs {LABEL_NBYTES}"):
        expected.check(memoryview(bytearray(nbytes)))


def test_memory_that_says_of_itself_to_be_of_another_size_is_refused() -> None:
    layout = Layout((Field("a", (), "<f4"),))
    memory = memoryview(bytearray(1_000))
    Label("queue", layout, 1_000).write(memory)
    with pytest.raises(TransportError, match="has the size 1000 where 900 was expected"):
        Label("queue", layout, 900).check(memory[:900])


def test_memory_of_another_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout((Field("a", (), "<f4"),))
    memory = labelled("queue", layout)
    monkeypatch.setattr(label, "FORMAT_VERSION", 2)
    with pytest.raises(TransportError, match="has the format version 1 where 2 was expected"):
        Label("queue", layout, LABEL_NBYTES).check(memory)


def test_memory_without_a_label_is_refused() -> None:
    with pytest.raises(TransportError, match="magic number 0x0000000000000000 where 0x65"):
        Label("queue", Layout(()), LABEL_NBYTES).check(memoryview(bytearray(LABEL_NBYTES)))


def test_spellings_of_the_same_data_type_are_the_same_layout() -> None:
    memory = labelled("queue", Layout((Field("a", (2,), "float32"), Field("b", (), "bool"))))
    Label("queue", Layout((Field("a", (2,), "<f4"), Field("b", (), "|b1"))), LABEL_NBYTES).check(memory)


def test_what_numpy_has_counted_is_the_same_layout() -> None:
    two = np.int64(2)
    memory = labelled("queue", Layout((Field("a", (two,), "<f4"),)), (two, 3))
    Label("queue", Layout((Field("a", (2,), "<f4"),)), LABEL_NBYTES, (2, 3)).check(memory)


def test_every_process_writes_the_same_label() -> None:
    layout = Layout((Field("weights/ä", (2, 3), "<f4"), Field("b", (), "<i8")))
    program = f"""
from sb3_walle.transport.label import LABEL_NBYTES, Label
from sb3_walle.transport.layout import Field, Layout
memory = memoryview(bytearray(LABEL_NBYTES))
Label("queue", {layout!r}, LABEL_NBYTES, (2, 3)).write(memory)
print(bytes(memory).hex())
"""
    for seed in ("1", "2"):
        # Which is what hash() depends on.
        environment = {"PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"}
        command = [sys.executable, "-c", program]
        child = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert bytes.fromhex(child.stdout) == bytes(labelled("queue", layout, (2, 3)))


# The queues


@every_change
@unhurried
@given(layout=layouts, data=st.data())
def test_no_reader_takes_weights_of_another_layout(
    change: Callable[[Layout, st.DataObject], Layout], layout: Layout, data: st.DataObject
) -> None:
    queue = PolicyQueue(layout)
    PolicyReader(layout, queue.memory)
    with pytest.raises(TransportError):
        PolicyReader(change(layout, data), queue.memory)


def chunk_like(layout: Layout) -> Layout:
    """A layout with what every chunk has, and more."""
    necessary = (
        Field("observations", (2, 1), "<f4"),
        Field("rewards", (1, 1), "<f4"),
        Field("episode_starts", (2, 1), "|b1"),
        Field("actions", (1, 1), "<i8"),
    )
    taken = {field.name for field in necessary}
    return Layout((*necessary, *(field for field in layout.fields if field.name not in taken)))


@every_change
@unhurried
@given(layout=layouts, data=st.data())
def test_no_writer_takes_slots_of_another_layout(
    change: Callable[[Layout, st.DataObject], Layout], layout: Layout, data: st.DataObject
) -> None:
    queue = ExperienceQueue(chunk_like(layout), 2, 2)
    ExperienceWriter(queue.geometry, queue.memory, 1)
    with pytest.raises(TransportError):
        ExperienceWriter(ExperienceGeometry(change(chunk_like(layout), data), 2, 2), queue.memory, 1)


@unhurried
@given(st.lists(st.tuples(few, few), min_size=2, max_size=2, unique=True))
def test_no_writer_takes_slots_of_another_number_of_samplers_or_slots(numbers: list[tuple[int, int]]) -> None:
    layout = chunk_like(Layout(()))
    queue = ExperienceQueue(layout, *numbers[0])
    with pytest.raises(TransportError):
        ExperienceWriter(ExperienceGeometry(layout, *numbers[1]), queue.memory, 0)


@pytest.mark.parametrize("position", range(LABEL_NBYTES))
def test_queues_with_a_damaged_label_are_refused(position: int) -> None:
    policy, experience = PolicyQueue(Layout((Field("a", (3,), "<f4"),))), ExperienceQueue(chunk_like(Layout(())), 1, 1)
    for memory in (policy.memory, experience.memory):
        memory.view[position] ^= 1
    with pytest.raises(TransportError):
        PolicyReader(policy.layout, policy.memory)
    with pytest.raises(TransportError):
        ExperienceWriter(experience.geometry, experience.memory, 0)


def test_new_memory_is_no_queue() -> None:
    layout, geometry = Layout((Field("a", (3,), "<f4"),)), ExperienceGeometry(chunk_like(Layout(())), 1, 1)
    with pytest.raises(TransportError, match="magic number"):
        PolicyReader(layout, SharedMemory(policy_queue_nbytes(layout)))
    with pytest.raises(TransportError, match="magic number"):
        ExperienceWriter(geometry, SharedMemory(geometry.nbytes), 0)


def test_what_queues_write_leaves_their_labels_alone() -> None:
    layout = Layout((Field("a", (3,), "<f4"),))
    queue = PolicyQueue(layout)
    for version in range(3):
        queue.publish(version, {"a": np.full(3, 7, np.float32)})
        queue.start_new_run()
        queue.limit_chunks(1.0)
    PolicyReader(layout, queue.memory)
