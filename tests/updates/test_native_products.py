"""Matrix products that oneDNN makes: which ones they are. test_native_program.py compiles some."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch as th
from native_helpers import tiny_blueprint

from sb3_walle.updates.native import compile_process, products
from sb3_walle.updates.torch_private import products_by_onednn


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
