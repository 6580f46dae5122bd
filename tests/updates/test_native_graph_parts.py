"""Graphs and their names: what travels to the process that compiles, and what a program is found again by."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch as th
from native_helpers import algorithm, blueprint, blueprint_of, graph_of, trace_ppo
from process_helpers import Programs
from torch import fx
from torch.nn import functional as F

from sb3_walle.updates.native.blueprint import Blueprint, InputSpec
from sb3_walle.updates.native.graph_parts import GraphParts
from sb3_walle.updates.unsupported import Unsupported

# Graphs


def one_hot(values: th.Tensor, indices: th.Tensor) -> tuple[th.Tensor, ...]:
    return (F.one_hot(indices, 4) + values.sum(),)


def scattered(values: th.Tensor, indices: th.Tensor) -> tuple[th.Tensor, ...]:
    # What is made without an input is what torch makes a constant of that outlives the call.
    counts = th.zeros(4)
    counts.scatter_add_(0, indices, values[0])
    return (counts, values.new_zeros(4).scatter_(0, indices, 1.0))


def changed_input(values: th.Tensor, indices: th.Tensor) -> tuple[th.Tensor, ...]:
    values.add_(indices)
    return (values.sum(),)


def with_constant(values: th.Tensor, indices: th.Tensor) -> tuple[th.Tensor, ...]:
    scale = th.tensor([1.0, 2.0, 3.0])
    scale += 1
    return (values * scale, scale)


def with_lists(values: th.Tensor, indices: th.Tensor) -> tuple[th.Tensor, ...]:
    first, *rest = values.split([1, 1])
    return (th.cat([first, *rest], dim=1), th.stack([values, values]).sum(dim=[0, 2]), values[:, [2, 0]])


def with_names(values: th.Tensor, indices: th.Tensor) -> tuple[th.Tensor, ...]:
    wide = values.to(dtype=th.float64, copy=True)
    return (th.full_like(wide, float("inf")), th.ones(3, dtype=th.int16, device="cpu"), wide.sum(0, keepdim=True))


def with_gradient(values: th.Tensor, indices: th.Tensor) -> tuple[th.Tensor, ...]:
    leaf = values.detach().requires_grad_()
    with th.enable_grad():
        return th.autograd.grad((th.tanh(leaf) @ th.ones(3)).square().mean(), [leaf])


FUNCTIONS = (one_hot, scattered, changed_input, with_constant, with_lists, with_names, with_gradient)


def example() -> list[th.Tensor]:
    return [th.arange(6.0).reshape(2, 3), th.tensor([3, 0, 3])]


def body_of(graph: fx.GraphModule) -> str:
    """Its code without the signature, which may have types or not."""
    return graph.code.partition(":\n")[2]


def check_same(graph: Callable[..., Any], expected: Callable[..., Any]) -> None:
    """The same results and the same changes of inputs, however often it is called."""
    for _ in range(2):
        inputs, others = example(), example()
        for found, right in zip([*graph(*inputs), *inputs], [*expected(*others), *others], strict=True):
            th.testing.assert_close(found, right, rtol=0, atol=0)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_pickled_graph_does_what_the_function_does(function: Callable[..., Any]) -> None:
    graph = graph_of(function, example())
    rebuilt = pickle.loads(pickle.dumps(GraphParts.of(graph))).build()
    assert body_of(rebuilt) == body_of(graph)
    check_same(rebuilt, function)
    # The original has not become part of it.
    check_same(graph, function)


def rebuild(path: str) -> None:
    for name, parts in pickle.loads(Path(path).read_bytes()).items():
        check_same(parts.build(), globals()[name])
        print(name)


def test_graphs_do_the_same_in_another_process(programs: Programs, tmp_path: Path) -> None:
    path = tmp_path / "graphs"
    parts = {function.__name__: GraphParts.of(graph_of(function, example())) for function in FUNCTIONS}
    path.write_bytes(pickle.dumps(parts))
    program = programs.start(rebuild, path)
    program.check_success()
    assert program.output.split() == list(parts)


def test_graph_of_a_policys_step_does_the_same_after_pickling() -> None:
    traced = trace_ppo(algorithm())
    rebuilt = pickle.loads(pickle.dumps(GraphParts.of(traced.graph))).build()
    assert rebuilt.code == traced.graph.code
    inputs, others = ([tensor.clone() for tensor in traced.inputs] for _ in range(2))
    for _ in range(2):
        found, expected = rebuilt(*inputs), traced.graph(*others)
        th.testing.assert_close([*found, *inputs], [*expected, *others], rtol=0, atol=0, equal_nan=True)


def test_graph_with_a_part_that_is_no_tensor_is_refused() -> None:
    root = th.nn.Module()
    root.part = graph_of(one_hot, example())
    graph = fx.Graph()
    graph.output(graph.get_attr("part"))
    with pytest.raises(Unsupported, match="it has a part of type one_hot"):
        GraphParts.of(fx.GraphModule(root, graph))


# Names


@pytest.fixture(scope="module")
def usual() -> Blueprint:
    return blueprint(seed=0)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"seed": 1}, id="other weights"),
        pytest.param({"n_steps": 64}, id="longer rollouts"),
        pytest.param({"learning_rate": 1e-2, "n_epochs": 3, "ent_coef": 0.1}, id="numbers that may change"),
        pytest.param({"clip_range": 0.3, "target_kl": 0.1, "max_grad_norm": 1.0}, id="limits that may change"),
    ],
)
def test_program_is_found_again_with(settings: dict[str, Any], usual: Blueprint) -> None:
    assert blueprint(**settings).key == usual.key


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"batch_size": 8}, id="another batch size"),
        pytest.param({"policy_kwargs": {"net_arch": [9]}}, id="a wider net"),
        pytest.param({"policy_kwargs": {"net_arch": [8], "activation_fn": th.nn.ReLU}}, id="another activation"),
        pytest.param({"normalize_advantage": False}, id="other advantages"),
        pytest.param({"clip_range_vf": 0.2}, id="clipped values"),
        pytest.param({"policy_kwargs": {"net_arch": [8], "optimizer_kwargs": {"eps": 1e-8}}}, id="another eps"),
        pytest.param({"is_parallel": True}, id="threads"),
    ],
)
def test_another_program_is_needed_with(settings: dict[str, Any], usual: Blueprint) -> None:
    assert blueprint(**settings).key != usual.key


def test_name_does_not_change_on_the_way_to_another_process(usual: Blueprint) -> None:
    # A name that was worked out is kept; without it the copy has to do that itself.
    parts = pickle.loads(pickle.dumps((usual.graph, usual.inputs, usual.is_parallel)))
    assert Blueprint(*parts).key == usual.key


def test_name_depends_on_the_kind_of_machine_and_of_torch(usual: Blueprint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(th, "__version__", "0.0")
    assert replace(usual).key != usual.key


@pytest.mark.parametrize(
    "constants",
    [
        pytest.param((th.zeros(4), th.ones(4)), id="values"),
        pytest.param((th.zeros(4), th.zeros(2, 2)), id="shapes"),
        pytest.param((th.zeros(4), th.zeros(4, dtype=th.int32)), id="types"),
    ],
)
def test_another_program_is_needed_for_another_constant(constants: tuple[th.Tensor, th.Tensor]) -> None:
    parts = GraphParts.of(graph_of(with_constant, example()))
    assert list(parts.constants) == ["_tensor_constant0"]
    keys = {Blueprint(GraphParts(parts.nodes, {"_tensor_constant0": value}), (), False).key for value in constants}
    assert len(keys) == 2


@pytest.mark.parametrize("value", [th.tensor(2.0, dtype=th.bfloat16), th.ones(3).bool(), th.empty(0)])
def test_constant_of_any_type_has_a_name(value: th.Tensor) -> None:
    graph = graph_of(with_constant, example())
    parts = GraphParts(GraphParts.of(graph).nodes, {"_tensor_constant0": value})
    assert Blueprint(parts, (), False).key


def test_examples_of_inputs_have_their_strides() -> None:
    tensor = th.zeros(3, 2, dtype=th.float64).t()
    empty = InputSpec.of(tensor).empty()
    assert (empty.shape, empty.stride(), empty.dtype) == (tensor.shape, tensor.stride(), tensor.dtype)


def test_blueprint_of_a_step_knows_all_of_its_inputs() -> None:
    traced = trace_ppo(algorithm())
    assert [spec.shape for spec in blueprint_of(traced).inputs] == [tuple(tensor.shape) for tensor in traced.inputs]
