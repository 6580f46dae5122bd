"""The tree of sums, against sums that are made anew each time."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_walle.replay.sum_tree import FAN_OUT, SumTree

# One level, exactly full levels, and several that are not.
SIZES = st.one_of(st.integers(1, 3 * FAN_OUT), st.sampled_from([FAN_OUT**2, FAN_OUT**2 + 1, 20 * FAN_OUT**2 + 7]))


@st.composite
def trees(draw: st.DrawFn) -> tuple[SumTree, np.ndarray]:
    """A tree in which whole numbers were replaced again and again, and the same numbers in an array."""
    size = draw(SIZES)
    tree, numbers = SumTree(size), np.zeros(size)
    for seed in draw(st.lists(st.integers(0, 1_000), min_size=1, max_size=5)):
        random = np.random.default_rng(seed)
        indices = random.integers(size, size=random.integers(1, 2 * FAN_OUT))
        # Some of them twice: the last one counts.
        values = random.integers(0, 5, size=len(indices)).astype(float)
        tree[indices] = values
        numbers[indices] = values
    return tree, numbers


@settings(max_examples=200, deadline=None)
@given(trees(), st.integers(0, 1_000))
def test_sums_and_what_is_found_are_those_of_an_array(pair: tuple[SumTree, np.ndarray], seed: int) -> None:
    tree, numbers = pair
    # Whole numbers, and so without rounding.
    assert tree.total == numbers.sum()
    assert np.array_equal(tree[np.arange(len(numbers))], numbers)
    if tree.total == 0:
        return
    sums = np.random.default_rng(seed).integers(0, 2 * int(tree.total), size=50) / 2
    expected = np.searchsorted(numbers.cumsum(), sums, side="right")
    assert np.array_equal(tree.find(sums), expected)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(st.just(0.0), st.floats(1e-300, 1e12)), min_size=1, max_size=5 * FAN_OUT),
    st.lists(st.floats(0, 1), min_size=1, max_size=20),
)
def test_rounding_never_leads_to_a_number_that_is_zero(values: list[float], shares: list[float]) -> None:
    tree, numbers = SumTree(len(values)), np.array(values)
    tree[np.arange(len(values))] = numbers
    assert np.isclose(tree.total, numbers.sum(), rtol=1e-12)
    if tree.total == 0:
        return
    # Also the total itself, which a random share may be rounded to.
    sums = np.array(shares) * tree.total
    found = tree.find(sums)
    assert (numbers[found] > 0).all()
    ends = numbers.cumsum()
    rounding = 1e-12 * ends[-1]
    assert (sums <= ends[found] + rounding).all()
    assert (sums >= ends[found] - numbers[found] - rounding).all()


def test_numbers_that_have_changed_often_leave_no_rounding_behind() -> None:
    tree = SumTree(1_000)
    random = np.random.default_rng(0)
    for _ in range(1_000):
        tree[random.integers(1_000, size=32)] = 10.0 ** random.uniform(-8, 8, size=32)
    tree[np.arange(1_000)] = 0.0
    assert tree.total == 0.0
    tree[np.array([437])] = 1e-9
    assert tree.total == 1e-9
    assert (tree.find(random.random(100) * tree.total) == 437).all()
