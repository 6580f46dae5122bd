"""Machine code: it does what the graph does, and is replaced where it is broken."""

import contextlib
import io
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import pytest
import torch as th
from native_helpers import (
    FakeBuild,
    algorithm,
    blueprint_of,
    cart_pole,
    skip_without_compiler,
    tiny_blueprint,
    trace_ppo,
)
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_walle import AsyncPPO
from sb3_walle.updates import program_compiler
from sb3_walle.updates.native import compile_process, products
from sb3_walle.updates.native.program import NativeProgram
from sb3_walle.updates.native.store import DIRECTORY_VARIABLE, ProgramStore
from sb3_walle.updates.ppo_update import DONE, KL_TOO_LARGE, NOT_FINITE
from sb3_walle.updates.program_compiler import ProgramCompiler
from sb3_walle.updates.traced_step import TracedStep
from sb3_walle.updates.unsupported import Unsupported


class Compiled(NamedTuple):
    """
    A step that was really compiled, for a training, with products that oneDNN makes.

    :param traced: the step
    :param path: the program
    :param temporary: directory of temporary files of the process that has compiled
    :param weights: those of the policy after some updates with the program
    :param output: what the training has printed
    """

    traced: TracedStep
    path: Path
    temporary: Path
    weights: dict[str, th.Tensor]
    output: str


WIDTH = 130


class Products(BaseFeaturesExtractor):
    """
    Features in which oneDNN makes products of matrices as they lie in memory, transposed, and repeated or with gaps,
    which are no matrices in memory; and products that it does not make.
    """

    def __init__(self, observation_space: gym.Space) -> None:
        n_products = 8
        super().__init__(observation_space, WIDTH + n_products)
        self.first, self.second = nn.Linear(4, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        values = th.tanh(self.first(observations))
        weight, bias = self.second.weight, self.second.bias
        wide, half = values.reshape(WIDTH, len(values)), len(values) // 2
        others = (bias.expand(WIDTH, WIDTH), bias[:, None].expand(WIDTH, WIDTH), wide[:, ::2], wide[:, half:])
        products = [values @ other for other in others]
        # What oneDNN does not make: other sums than with a vector, double precision, and what is small.
        products += [th.addmm(values, values, weight), th.addmm(bias, values, weight, beta=0.5)]
        products += [(values.double() @ weight.double()).float(), values @ weight[:, :2]]
        return th.cat([self.second(values), *(product.mean(1, keepdim=True) for product in products)], 1)


# Large enough for oneDNN: also the products with half of the samples.
LARGE: dict[str, Any] = {
    "n_steps": 64,
    "batch_size": 128,
    "n_epochs": 2,
    "policy_kwargs": {"net_arch": [8], "features_extractor_class": Products},
    "device": "cpu",
    "seed": 0,
}


def trained(learner: str) -> AsyncPPO:
    """An algorithm of two rollouts, each of which is a minibatch."""
    return AsyncPPO("MlpPolicy", cart_pole, learner=learner, n_samplers=2, backend="inline", verbose=1, **LARGE).learn(
        256
    )


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    skip_without_compiler()
    folder, temporary = tmp_path_factory.mktemp("compiled"), tmp_path_factory.mktemp("temporary")
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
        patch.setenv("TMPDIR", str(temporary))
        patch.setenv(DIRECTORY_VARIABLE, str(folder))
        # What calls the kernels need not be fast.
        patch.setenv("AOT_INDUCTOR_COMPILE_WRAPPER_OPT_LEVEL", "O0")
        patch.setattr(products, "are_faster", lambda: True)
        weights = trained("compiled").policy.state_dict()
    (path,) = folder.iterdir()
    return Compiled(
        trace_ppo(algorithm(**{**LARGE, "n_steps": LARGE["batch_size"]})), path, temporary, weights, output.getvalue()
    )


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProgramStore:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "store"))
    return ProgramStore()


def test_training_with_the_program_gives_what_sb3s_update_gives(compiled: Compiled) -> None:
    """From the environment to machine code and back."""
    assert compiled.output.count("Updates are compiled from number 1 on (compiled within ") == 1
    key = replace(blueprint_of(compiled.traced), uses_onednn=True).key
    assert compiled.path.name == ProgramStore().path(key).name
    expected = trained("eager").policy.state_dict()
    for name, weights in compiled.weights.items():
        th.testing.assert_close(weights, expected[name], rtol=1e-3, atol=1e-5)


def test_the_program_asks_onednn(compiled: Compiled) -> None:
    assert b"linear_pointwise" in compiled.path.read_bytes()


def minibatch(traced: TracedStep, seed: int, limits: tuple[float, float, float]) -> list[th.Tensor]:
    """What the step takes, with numbers as they are in the middle of a training."""
    random = th.Generator().manual_seed(seed)
    n_samples = traced.batch_size
    parameters = traced.inputs[0].clone()
    first = 0.1 * th.randn(parameters.shape, generator=random)
    root = 0.05 + 0.1 * th.rand(parameters.shape, generator=random)
    observations = th.randn(n_samples, 4, generator=random)
    actions = th.randint(2, (n_samples, 1), generator=random).float()
    values, advantages, returns = th.randn(3, n_samples, generator=random).unbind()
    log_probs = -0.7 + 0.1 * th.randn(n_samples, generator=random)
    coefficients = (th.tensor([0.2, 0.8, 1.2, 0.0, 0.01, 0.5, *limits]), th.tensor([3e-3, 0.03, 1.0]))
    state = (parameters, first, root.square(), th.zeros_like(parameters))
    numbers = th.cat([actions, th.stack([values, log_probs, advantages, returns], dim=1)], dim=1)
    found = [*state, observations, numbers, *coefficients]
    assert [tensor.shape for tensor in found] == [tensor.shape for tensor in traced.inputs]
    return found


@pytest.mark.parametrize(
    ("limits", "outcome"),
    [
        pytest.param((float("inf"), 0.0, 0.5), DONE, id="done"),
        pytest.param((float("inf"), 0.0, 0.01), DONE, id="clipped"),
        pytest.param((0.0, 0.0, 0.5), KL_TOO_LARGE, id="divergence too large"),
    ],
)
def test_program_does_what_the_graph_does(limits: tuple[float, float, float], outcome: int, compiled: Compiled) -> None:
    program, traced = NativeProgram(compiled.path), compiled.traced
    inputs, others = (minibatch(traced, 0, limits) for _ in range(2))
    # What it has done once must not show in what it does next.
    for _ in range(3):
        found, expected = program(inputs), traced.graph(*others)[0]
        assert int(found[-1]) == outcome
        th.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        th.testing.assert_close(inputs, others, rtol=1e-4, atol=1e-6)
    is_changed = not th.equal(inputs[0], traced.inputs[0])
    assert is_changed == (outcome == DONE)


def test_program_refuses_what_is_not_finite_as_the_graph_does(compiled: Compiled) -> None:
    program, traced = NativeProgram(compiled.path), compiled.traced
    inputs = minibatch(traced, 0, (float("inf"), 1.0, 0.5))
    inputs[traced.n_in_place + 1][3, -2] = float("nan")
    before = [tensor.clone() for tensor in inputs]
    statistics = program(inputs)
    assert int(statistics[-1]) == int(traced.graph(*before)[0][-1]) == NOT_FINITE
    th.testing.assert_close(inputs, before, rtol=0, atol=0, equal_nan=True)


def test_program_does_not_change_with_what_it_has_given(compiled: Compiled) -> None:
    """Statistics are kept until the end of an update."""
    program = NativeProgram(compiled.path)
    first, second = (minibatch(compiled.traced, seed, (float("inf"), 0.0, 0.5)) for seed in (0, 1))
    found = program(first)
    kept = found.clone()
    assert not th.equal(program(second), kept)
    assert th.equal(found, kept)


def test_one_program_may_be_loaded_twice(compiled: Compiled) -> None:
    """As by two models of one process."""
    programs = [NativeProgram(compiled.path) for _ in range(2)]
    results = [program(minibatch(compiled.traced, 0, (float("inf"), 0.0, 0.5))) for program in programs]
    assert th.equal(*results)


def test_nothing_but_the_program_is_left(compiled: Compiled) -> None:
    assert list(compiled.temporary.iterdir()) == []
    assert list(compiled.path.parent.iterdir()) == [compiled.path]


# What is on disk


def beginning_of(path: Path) -> bytes:
    return path.read_bytes()[:100]


def most_of(path: Path) -> bytes:
    """Enough for the dynamic loader to begin with, which would not survive the rest."""
    return path.read_bytes()[:100_000]


def other_than(path: Path) -> bytes:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    return bytes(content)


def text(path: Path) -> bytes:
    return b"no program"


def nothing(path: Path) -> bytes:
    return b""


@pytest.mark.parametrize("content", [beginning_of, most_of, other_than, text, nothing])
def test_broken_program_is_replaced(
    content: Any, compiled: Compiled, store: ProgramStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Copied(FakeBuild):
        """A compiler that is through at once."""

        begun = []  # noqa: RUF012

        def is_done(self, wait: bool = False) -> bool:
            shutil.copyfile(compiled.path, self._path)
            return True

    monkeypatch.setattr(program_compiler, "Build", Copied)
    path = store.path(blueprint_of(compiled.traced).key)
    path.write_bytes(content(compiled.path))
    found = ProgramCompiler({"update": compiled.traced})
    assert not found.is_begun and not path.exists()
    found.begin()
    programs = found.programs(wait=False)
    assert programs is not None and len(Copied.begun) == 1
    program = programs["update"]
    assert int(program(minibatch(compiled.traced, 0, (float("inf"), 0.0, 0.5)))[-1]) == DONE


def test_program_on_disk_is_not_compiled_again(
    compiled: Compiled, store: ProgramStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program_compiler, "Build", lambda *_: pytest.fail("it is compiled again"))
    path = store.path(blueprint_of(compiled.traced).key)
    shutil.copyfile(compiled.path, path)
    os.utime(path, (0, 0))
    found = ProgramCompiler({"update": compiled.traced})
    found.begin()
    assert found.is_begun and found.programs(wait=False) is not None
    assert found.seconds is None
    # It is one of those that are still needed.
    assert path.stat().st_mtime > 0


def test_program_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"the compiled update cannot be loaded: .*gone\.so"):
        NativeProgram(tmp_path / "gone.so")


# The compiler


def test_torch_works_in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    By default it names the folder after the graph. Runs that are started together compile the same, and would take
    away each other's files.
    """
    import torch._inductor

    options_given: list[dict[str, Any]] = []

    def aot_compile(graph: Any, inputs: Any, options: dict[str, Any]) -> str:
        options_given.append(options)
        return str(Path(options["aot_inductor.output_path"], "program.so"))

    monkeypatch.setattr(torch._inductor, "aot_compile", aot_compile)
    assert compile_process.compile_program(tiny_blueprint(), tmp_path) == tmp_path / "program.so"
    assert options_given == [{"cpp.dynamic_threads": False, "aot_inductor.output_path": str(tmp_path)}]
