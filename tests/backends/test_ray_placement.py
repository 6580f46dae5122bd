"""How samplers are divided among the nodes of a cluster. This takes no Ray."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb3_walle.backends.ray.placement import Node, cpus_of_a_sampler, divide, room


def nodes_of(cpus: list[int], free: list[float] | None = None) -> list[Node]:
    free = list(map(float, cpus)) if free is None else free
    return [Node(f"node{index}", f"10.0.0.{index}", *both) for index, both in enumerate(zip(cpus, free, strict=True))]


@given(st.lists(st.integers(1, 64), min_size=1, max_size=8), st.integers(1, 100))
def test_every_sampler_has_one_place_and_nodes_are_filled_in_proportion(cpus: list[int], n_samplers: int) -> None:
    nodes = nodes_of(cpus)
    shares = divide(n_samplers, nodes, {node.node_id: float("inf") for node in nodes})
    assert sorted(sampler for share in shares.values() for sampler in share) == list(range(n_samplers))
    for node in nodes:
        fair = n_samplers * node.n_cpus / sum(cpus)
        assert abs(len(shares.get(node.node_id, [])) - fair) < len(nodes)


@given(st.lists(st.integers(1, 8), min_size=1, max_size=5), st.integers(1, 4), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_no_node_gets_more_than_fit(cpus: list[int], samplers_per_node: int, cpus_per_sampler: float) -> None:
    nodes = nodes_of(cpus)
    rooms = {node.node_id: room(node, samplers_per_node, cpus_per_sampler) for node in nodes}
    total = int(sum(rooms.values()))
    shares = divide(total, nodes, rooms)
    assert {node_id: len(share) for node_id, share in shares.items()} == rooms
    assert all(len(shares[node.node_id]) * cpus_per_sampler <= node.n_cpus for node in nodes)
    with pytest.raises(RuntimeError, match=f"^{total + 1} samplers do not fit .*cpus_per_sampler"):
        divide(total + 1, nodes, rooms)


@pytest.mark.parametrize(
    ("n_samplers", "cpus", "free", "found"),
    [
        (4, [16], [16], 1.0),
        (10, [2], [2], 0.2),
        (3, [1, 1], [1, 1], 0.5),
        (9, [4, 4], [4, 4], 0.8),
        (2, [4], [1], 0.5),
        (2, [4, 4], [0, 1], 0.5),
        (4, [4], [0], 0.0),
    ],
)
def test_cpus_are_one_or_the_largest_share_that_fits(
    n_samplers: int, cpus: list[int], free: list[float], found: float
) -> None:
    assert cpus_of_a_sampler(n_samplers, nodes_of(cpus, free)) == pytest.approx(found, abs=1e-3)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=6), st.integers(1, 60))
def test_the_default_always_fits(cpus: list[int], n_samplers: int) -> None:
    nodes = nodes_of(cpus)
    share = cpus_of_a_sampler(n_samplers, nodes)
    divide(n_samplers, nodes, {node.node_id: room(node, None, share) for node in nodes})
