"""Adam and AdamW on a flat vector, and the state of torch's own optimizers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch as th

from sb3_walle.updates.flat import FlatLayout
from sb3_walle.updates.unsupported import Unsupported

Moments: TypeAlias = tuple[th.Tensor, ...]


@dataclass(frozen=True)
class AdamSettings:
    """
    What torch's ``Adam`` and ``AdamW`` can be told, but for the learning rate, which may change at any time.

    :param decoupled: whether weights decay by themselves (Loshchilov & Hutter, 2019) rather than through the gradient
    :param amsgrad: whether the largest second moment so far counts (Reddi et al., 2018)
    """

    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    decoupled: bool
    amsgrad: bool
    maximize: bool

    @classmethod
    def of(cls, optimizer: th.optim.Optimizer) -> "AdamSettings":
        """:raises Unsupported: if the optimizer is not torch's own Adam or AdamW with one group of parameters"""
        if type(optimizer) not in (th.optim.Adam, th.optim.AdamW):
            raise Unsupported(f"the optimizer is {type(optimizer).__name__}, not Adam or AdamW")
        if len(optimizer.param_groups) != 1:
            raise Unsupported(f"the optimizer has {len(optimizer.param_groups)} groups of parameters")
        group = optimizer.param_groups[0]
        beta1, beta2 = (float(beta) for beta in group["betas"])
        decoupled = group.get("decoupled_weight_decay", isinstance(optimizer, th.optim.AdamW))
        return cls(
            beta1, beta2, group["eps"], group["weight_decay"], decoupled, group["amsgrad"], group.get("maximize", False)
        )

    @property
    def moments(self) -> tuple[str, ...]:
        """Names of what the optimizer keeps for each parameter, apart from the number of steps."""
        return ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if self.amsgrad else ("exp_avg", "exp_avg_sq")

    def coefficients(self, learning_rate: float, n_steps_before: int, n_steps: int) -> np.ndarray:
        """
        What depends on the number of the step (Kingma & Ba, 2015, algorithm 1, in the order of section 2).

        :return: for each of the next ``n_steps`` steps the step size, the square root of the second bias correction,
            and the factor by which decoupled weight decay shrinks weights; ``[n_steps, 3]``, float64
        """
        steps = np.arange(n_steps_before + 1, n_steps_before + n_steps + 1, dtype=np.float64)
        step_sizes = learning_rate / (1 - self.beta1**steps)
        decays = np.full(n_steps, 1 - learning_rate * self.weight_decay)
        return np.stack([step_sizes, np.sqrt(1 - self.beta2**steps), decays], axis=1)

    def step(
        self, parameters: th.Tensor, gradient: th.Tensor, moments: Moments, coefficients: th.Tensor
    ) -> tuple[th.Tensor, Moments]:
        """
        One step. It changes nothing in place.

        :param parameters: ``[n]``
        :param gradient: ``[n]``
        :param moments: what :attr:`moments` names, ``[n]`` each
        :param coefficients: one row of :meth:`coefficients`
        :return: the new parameters, and the new moments
        """
        step_size, root_of_correction, decay = coefficients.unbind()
        if self.maximize:
            gradient = -gradient
        if self.weight_decay != 0:
            if self.decoupled:
                parameters = parameters * decay
            else:
                gradient = gradient + self.weight_decay * parameters
        first = moments[0] + (gradient - moments[0]) * (1 - self.beta1)
        second = moments[1] * self.beta2 + gradient * gradient * (1 - self.beta2)
        # Of the second moments: the one that counts is the last.
        seconds = (second, th.maximum(moments[2], second)) if self.amsgrad else (second,)
        denominator = seconds[-1].sqrt() / root_of_correction + self.eps
        return parameters - step_size * (first / denominator), (first, *seconds)


def moments_of(optimizer: th.optim.Optimizer, parameters: Sequence[th.Tensor]) -> tuple[int, Moments]:
    """
    :param parameters: those parameters of the optimizer that have a gradient
    :return: number of steps so far, and copies of the moments as vectors
    :raises Unsupported: if not all parameters have made as many steps
    """
    names = AdamSettings.of(optimizer).moments
    states = [optimizer.state.get(parameter, {}) for parameter in parameters]
    n_steps = {int(state["step"]) if state else 0 for state in states}
    if len(n_steps) != 1:
        raise Unsupported("the optimizer has made more steps with some parameters than with others")
    if not all(states):
        return 0, tuple(th.zeros_like(FlatLayout.flatten(parameters)) for _ in names)
    return n_steps.pop(), tuple(FlatLayout.flatten([state[name] for state in states]) for name in names)


def new_state(optimizer: th.optim.Optimizer, parameter: th.Tensor) -> dict[str, Any]:
    """The state that an Adam or AdamW of torch would make for a parameter in its first step."""
    group = optimizer.param_groups[0]
    on_device = group.get("capturable") or group.get("fused")
    # Counted as floating point, in double precision only where that is torch's default.
    dtype = th.float64 if th.get_default_dtype() == th.float64 and not group.get("fused") else th.float32
    step = th.zeros((), dtype=dtype, device=parameter.device if on_device else "cpu")
    return {"step": step, **{name: th.zeros_like(parameter).detach() for name in AdamSettings.of(optimizer).moments}}
