"""Matrix products that oneDNN makes: which ones they are, and that nothing but their speed changes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch as th
from native_helpers import graph_of, skip_without_compiler, tiny_blueprint

from sb3_walle.updates.native import compile_process, products
from sb3_walle.updates.native.blueprint import Blueprint
from sb3_walle.updates.native.build import Build
from sb3_walle.updates.native.program import NativeProgram
from sb3_walle.updates.torch_private import products_by_onednn


def random(*shapes: tuple[int, ...], dtype: th.dtype = th.float32) -> tuple[th.Tensor, ...]:
    generator = th.Generator().manual_seed(0)
    return tuple(th.randn(*shape, generator=generator, dtype=dtype) for shape in shapes)


def layer(values: th.Tensor, weight: th.Tensor, bias: th.Tensor) -> tuple[th.Tensor, ...]:
    """What a layer computes, with a step down its gradient: products with each of the matrices transposed."""
    with th.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in (values, weight, bias)]
        hidden = th.relu(th.nn.functional.linear(*leaves))
        loss = th.nn.functional.linear(hidden, leaves[1]).square().mean()
        gradients = th.autograd.grad(loss, leaves)
    return (loss.detach(), *gradients)


LAYER = ((160, 96), (96, 96), (96,))


def in_one_tensor(*inputs: th.Tensor) -> tuple[th.Tensor]:
    """All that a layer computes, as programs give it, and products with matrices that are no matrices in memory."""
    values, bias = inputs[0], inputs[2]
    wide = values.reshape(96, 160)
    others = (bias.expand(96, 96), bias[:, None].expand(96, 96), wide[:, ::2], wide[:, 80:])
    products = [values @ other for other in others]
    # What oneDNN does not make: other sums than with a vector, double precision, and what is small.
    products += [th.addmm(values, values, inputs[1]), th.addmm(bias, values, inputs[1], beta=0.5)]
    products += [(values.double() @ inputs[1].double()).float(), values[:2] @ inputs[1]]
    return (th.cat([found.reshape(-1) for found in (*layer(*inputs), *products)]),)


def test_the_compiled_program_asks_onednn(tmp_path: Path) -> None:
    skip_without_compiler()
    inputs = random(*LAYER)
    graph, path = graph_of(in_one_tensor, inputs), tmp_path / "program.so"
    build = Build(replace(Blueprint.of(graph, inputs, is_parallel=False), uses_onednn=True), path)
    try:
        assert build.is_done(wait=True)
    finally:
        build.close()
    assert b"linear_pointwise" in path.read_bytes()
    th.testing.assert_close(NativeProgram(path)(list(inputs)), graph(*inputs)[0], rtol=1e-4, atol=1e-5)


def test_a_torch_that_has_no_such_parts_compiles_as_it_does_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import torch._inductor

    graphs: list[Any] = []

    def aot_compile(graph: Any, inputs: Any, options: dict[str, Any]) -> str:
        graphs.append(graph)
        return str(tmp_path / "program.so")

    def products_by_onednn(*_: Any) -> Any:
        raise ImportError("no mkldnn_ir here")

    monkeypatch.setattr(torch._inductor, "aot_compile", aot_compile)
    monkeypatch.setattr(compile_process, "products_by_onednn", products_by_onednn)
    blueprint = replace(tiny_blueprint(), uses_onednn=True)
    assert compile_process.compile_program(blueprint, tmp_path) == tmp_path / "program.so"
    assert len(graphs) == 1
    assert "ImportError: no mkldnn_ir here" in capfd.readouterr().err


def test_what_is_large() -> None:
    assert products.is_large(1024, 1025, 1) and products.is_large(4096, 17, 17)
    assert not products.is_large(1024, 32, 32)


def test_torch_is_left_as_it_was() -> None:
    from torch._inductor.lowering import lowerings

    operator = th.ops.aten.mm.default
    before = lowerings[operator]
    with products_by_onednn(products.is_large):
        assert lowerings[operator] is not before
    assert lowerings[operator] is before


@pytest.mark.parametrize(
    ("capability", "vendor", "family", "has_mkl", "faster"),
    [
        ("AVX512", "AuthenticAMD", "26", True, True),
        ("AVX512", "AuthenticAMD", "25", True, False),
        ("AVX512", "GenuineIntel", "26", True, False),
        ("AVX512", "", "", True, False),
        ("AVX512", "AuthenticAMD", "", True, False),
        ("AVX2", "AuthenticAMD", "26", True, False),
        ("AVX512", "AuthenticAMD", "26", False, False),
    ],
)
def test_what_decides_is_the_processor(
    capability: str, vendor: str, family: str, has_mkl: bool, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(th.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(th.backends.mkl, "is_available", lambda: has_mkl)
    monkeypatch.setattr(products, "_field", {"vendor_id": vendor, "cpu family": family}.get)
    assert products.are_faster() == faster
    # Programs are kept by name, and a home directory may be shared by machines of both kinds.
    assert tiny_blueprint().uses_onednn == faster


def test_programs_of_both_kinds_have_names_of_their_own() -> None:
    blueprint = tiny_blueprint()
    assert len({replace(blueprint, uses_onednn=uses).key for uses in (True, False)}) == 2
