"""The step of Adam on a vector, against torch's own optimizers."""

import copy
from typing import Any

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_walle.updates.adam import AdamSettings, moments_of, new_state
from sb3_walle.updates.flat import FlatLayout
from sb3_walle.updates.unsupported import Unsupported

SHAPES: tuple[tuple[int, ...], ...] = ((4, 3), (4,), (), (2, 1, 2))
SETTINGS = st.fixed_dictionaries(
    {
        "betas": st.tuples(st.floats(0.0, 0.99), st.floats(0.0, 0.9999)),
        "eps": st.floats(1e-8, 1e-2),
        "weight_decay": st.sampled_from([0.0, 1e-3, 0.5]),
        "amsgrad": st.booleans(),
        "maximize": st.booleans(),
    }
)
CLASSES: tuple[type[th.optim.Optimizer], ...] = (th.optim.Adam, th.optim.AdamW)


def random_parameters(dtype: th.dtype = th.float64) -> list[th.nn.Parameter]:
    generator = th.Generator().manual_seed(0)
    return [th.nn.Parameter(th.randn(shape, generator=generator, dtype=dtype)) for shape in SHAPES]


def random_gradients(n_steps: int, seed: int) -> list[list[th.Tensor]]:
    """One list for each step; each gradient is of another size."""
    generator = th.Generator().manual_seed(seed)
    return [
        [th.randn(shape, generator=generator, dtype=th.float64) * 10.0 ** (index - 2) for shape in SHAPES]
        for index in range(n_steps)
    ]


def torch_steps(optimizer: th.optim.Optimizer, gradients: list[list[th.Tensor]], rates: list[float]) -> None:
    """Step as torch does."""
    for step_gradients, rate in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        for parameter, gradient in zip(optimizer.param_groups[0]["params"], step_gradients, strict=True):
            parameter.grad = gradient.to(parameter.dtype)
        optimizer.step()


def flat_steps(optimizer: th.optim.Optimizer, gradients: list[list[th.Tensor]], rates: list[float]) -> None:
    """Step on vectors, and put the results where torch would have them."""
    parameters = optimizer.param_groups[0]["params"]
    layout, adam = FlatLayout(parameters), AdamSettings.of(optimizer)
    n_steps, moments = moments_of(optimizer, parameters)
    vector = FlatLayout.flatten(parameters)
    for step_gradients, rate in zip(gradients, rates, strict=True):
        gradient = FlatLayout.flatten(step_gradients).to(vector.dtype)
        coefficients = th.as_tensor(adam.coefficients(rate, n_steps, 1), dtype=vector.dtype)[0]
        vector, moments = adam.step(vector, gradient, moments, coefficients)
        n_steps += 1
    views = zip(*(layout.views(part) for part in (vector, *moments)), strict=True)
    for parameter, (value, *values) in zip(parameters, views, strict=True):
        parameter.data.copy_(value)
        state = optimizer.state[parameter] = new_state(optimizer, parameter)
        state["step"].fill_(n_steps)
        state.update(zip(adam.moments, values, strict=True))


def assert_same_optimizers(found: th.optim.Optimizer, expected: th.optim.Optimizer, tolerance: float) -> None:
    """That parameters and states agree, and also the order of what is in them."""
    th.testing.assert_close(
        found.param_groups[0]["params"], expected.param_groups[0]["params"], rtol=tolerance, atol=tolerance
    )
    found_state, expected_state = found.state_dict()["state"], expected.state_dict()["state"]
    assert [list(entry) for entry in found_state.values()] == [list(entry) for entry in expected_state.values()]
    th.testing.assert_close(found_state, expected_state, rtol=tolerance, atol=tolerance**2)


@settings(max_examples=80, deadline=None)
@given(
    optimizer_class=st.sampled_from(CLASSES),
    kwargs=SETTINGS,
    rates=st.lists(st.floats(1e-5, 0.1), min_size=1, max_size=5),
    n_torch_steps=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_steps_are_those_of_torch(
    optimizer_class: Any, kwargs: dict[str, Any], rates: list[float], n_torch_steps: int, seed: int
) -> None:
    """Also after steps that torch has made, and before others. In double precision, in which rounding is no excuse."""
    expected, found = (optimizer_class(random_parameters(), **kwargs) for _ in range(2))
    before = random_gradients(n_torch_steps, seed + 1)
    gradients = random_gradients(len(rates), seed)
    for optimizer, steps in ((expected, torch_steps), (found, flat_steps)):
        torch_steps(optimizer, before, [0.01] * n_torch_steps)
        steps(optimizer, gradients, rates)
        torch_steps(optimizer, before, [0.01] * n_torch_steps)
    assert_same_optimizers(found, expected, tolerance=1e-11)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("optimizer_class", CLASSES)
def test_steps_agree_in_single_precision_after_many_steps(optimizer_class: Any, amsgrad: bool) -> None:
    kwargs = {"amsgrad": amsgrad, "eps": 1e-5, "weight_decay": 0.01}
    expected, found = (optimizer_class(random_parameters(th.float32), **kwargs) for _ in range(2))
    gradients = random_gradients(5, 3) * 40
    torch_steps(expected, gradients, [1e-3] * 200)
    flat_steps(found, gradients, [1e-3] * 200)
    assert_same_optimizers(found, expected, tolerance=1e-5)


def test_coefficients_of_many_steps_are_those_of_each_step() -> None:
    adam = AdamSettings.of(th.optim.AdamW(random_parameters(), betas=(0.8, 0.99), weight_decay=0.1))
    together = adam.coefficients(0.01, 5, 7)
    apart = np.concatenate([adam.coefficients(0.01, 5 + index, 1) for index in range(7)])
    np.testing.assert_array_equal(together, apart)


def test_nothing_is_changed_in_place() -> None:
    adam = AdamSettings.of(th.optim.Adam(random_parameters(), amsgrad=True, weight_decay=0.1, maximize=True))
    tensors = [th.randn(6) for _ in range(2)] + [th.rand(6) for _ in range(3)]
    before = copy.deepcopy(tensors)
    adam.step(tensors[0], tensors[1], tuple(tensors[2:]), th.tensor([0.1, 0.2, 0.3]))
    th.testing.assert_close(tensors, before, rtol=0, atol=0)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_moments_are_copies_of_those_of_the_optimizer(amsgrad: bool) -> None:
    parameters = random_parameters(th.float32)
    optimizer = th.optim.Adam(parameters, amsgrad=amsgrad)
    n_steps, moments = moments_of(optimizer, parameters)
    assert n_steps == 0 and len(moments) == (3 if amsgrad else 2) and not any(moment.any() for moment in moments)
    for _ in range(3):
        for parameter in parameters:
            parameter.grad = th.rand_like(parameter)
        optimizer.step()
    n_steps, moments = moments_of(optimizer, parameters)
    assert n_steps == 3
    expected = [optimizer.state[parameter]["exp_avg"] for parameter in parameters]
    assert th.equal(moments[0], FlatLayout.flatten(expected))
    moments[0].zero_()
    assert all(moment.any() for moment in expected)


@pytest.mark.parametrize("settings", [{}, {"amsgrad": True}, {"fused": True}])
def test_a_new_state_is_the_one_that_the_optimizer_makes(settings: dict[str, Any]) -> None:
    parameters = random_parameters(th.float32)
    optimizer = th.optim.Adam(parameters, lr=0.0, betas=(0.0, 0.0), **settings)
    found = new_state(optimizer, parameters[0])
    for parameter in parameters:
        parameter.grad = th.zeros_like(parameter)
    optimizer.step()
    expected = optimizer.state[parameters[0]]
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape) and not found[name].any()


def test_parameters_with_different_numbers_of_steps_are_refused() -> None:
    """As when some of them were frozen for a while."""
    parameters = random_parameters()
    optimizer = th.optim.Adam(parameters)
    parameters[0].grad = th.ones_like(parameters[0])
    optimizer.step()
    with pytest.raises(Unsupported, match="has made more steps with some parameters than with others"):
        moments_of(optimizer, parameters)


def test_decoupled_weight_decay_is_recognised() -> None:
    parameters = random_parameters()
    assert not AdamSettings.of(th.optim.Adam(parameters)).decoupled
    assert AdamSettings.of(th.optim.AdamW(parameters)).decoupled
