"""Two models may train in two threads: what is global stays as it was before both."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch as th
from torch.distributions import Distribution

from sb3_walle.updates.global_state import random_states_kept, threads_at_most, unchecked_distributions


def in_turns(make: Callable[[], AbstractContextManager[Any]], inside: Callable[[], Any] = lambda: None) -> None:
    """Two threads enter one after the other, and leave in the same order, if the second may enter that soon."""
    first_is_in, second_has_tried = threading.Event(), threading.Event()

    def first() -> None:
        with make():
            first_is_in.set()
            inside()
            second_has_tried.wait(0.2)

    def second() -> None:
        first_is_in.wait()
        with make():
            second_has_tried.set()
            inside()
            threads[0].join(0.2)

    threads = [threading.Thread(target=target) for target in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = th.get_num_threads()
    th.set_num_threads(2)
    yield
    th.set_num_threads(before)


def test_distributions_are_checked_afterwards() -> None:
    assert Distribution._validate_args
    in_turns(unchecked_distributions, lambda: Distribution._validate_args and pytest.fail("they are checked"))
    assert Distribution._validate_args


def test_random_states_are_those_from_before() -> None:
    np.random.seed(1)
    th.manual_seed(1)
    before = np.random.get_state()[1].copy(), th.get_rng_state()  # type: ignore[union-attr]
    in_turns(lambda: random_states_kept(th.device("cpu")), lambda: (np.random.rand(), th.rand(1)))
    assert np.array_equal(np.random.get_state()[1], before[0]) and th.equal(th.get_rng_state(), before[1])  # type: ignore[arg-type]


def test_the_number_of_threads_is_that_from_before(two_threads: None) -> None:
    found: list[int] = []
    in_turns(lambda: threads_at_most(1), lambda: found.append(th.get_num_threads()))
    after: list[int] = []
    later = threading.Thread(target=lambda: after.append(th.get_num_threads()))
    later.start()
    later.join()
    assert found == [1, 1] and after == [2] and th.get_num_threads() == 2


def test_the_lowest_limit_counts_and_each_is_given_back(two_threads: None) -> None:
    th.set_num_threads(4)
    found = []
    with threads_at_most(3):
        found.append(th.get_num_threads())
        with threads_at_most(1), threads_at_most(2):
            found.append(th.get_num_threads())
        found.append(th.get_num_threads())
    assert found == [3, 1, 3] and th.get_num_threads() == 4
