"""The private names of torch that this package takes are there."""

import ast
from pathlib import Path

import pytest
import torch as th
from torch import nn

from sb3_walle.updates import torch_private

ROOM = Path(torch_private.__file__).parent
PRIVATE = ("torch._", "torch.utils._", "torch.fx.experimental", "th._", "th.nn.modules.module._")


def test_all_names_are_there() -> None:
    from torch._inductor import aot_compile

    assert callable(aot_compile) and callable(th._C._aoti.AOTIModelContainerRunnerCpu)
    assert not torch_private.has_hooks_on_all_modules() and torch_private.distributions_are_checked()
    layer = nn.BatchNorm1d(2)
    assert [list(held) for held in torch_private.held_tensors(layer)] == [
        [name for name, _ in layer.named_parameters()],
        [name for name, _ in layer.named_buffers()],
    ]
    graph = torch_private.make_graph(lambda values: (values + 1,), [th.zeros(2)])
    called = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert called == [th.ops.aten.add.Tensor] and torch_private.is_operator(called[0])
    assert torch_private.map_arguments(lambda leaf: leaf + 1, (1, [2, {"three": 3}])) == (2, [3, {"three": 4}])


@pytest.mark.parametrize("name", torch_private._HOOKS)
def test_hooks_have_the_names_that_are_looked_for(name: str) -> None:
    layer = nn.Linear(1, 1)
    weight = layer.weight
    weight.register_post_accumulate_grad_hook(print)
    parts = [layer, weight, th.optim.Adam(layer.parameters())]
    assert any(hasattr(part, name) for part in parts)


def test_no_other_file_of_the_room_takes_private_names() -> None:
    for path in ROOM.rglob("*.py"):
        if path.name == "torch_private.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            found = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            imported = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = [name for name in (found, imported) if name.startswith(PRIVATE) and "__" not in name]
            assert not names, path
