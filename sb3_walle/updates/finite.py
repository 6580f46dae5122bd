"""Stopping an update before a gradient that is not finite reaches the weights."""

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch as th
from stable_baselines3.common.policies import BasePolicy

from sb3_walle.errors import NonFiniteError
from sb3_walle.updates.policy_copy import optimizers_of

# Names enough to see where it began; a large network has hundreds of parameters.
MAX_NAMES = 3
ADVICE = (
    "The weights are those of the last good step: save the model. Before you continue, lower the learning rate, "
    "and check that observations and rewards are finite and not huge."
)


@contextlib.contextmanager
def finite_updates(policy: BasePolicy, update: int) -> Iterator[None]:
    """
    Around an algorithm's ``train()``, stops it before an optimizer step whose gradients are not finite.

    The optimizer step of that minibatch does not take place, so that the policy and its optimizer stay as the step
    before has left them. The gradients remain for a debugger to look at.

    :param policy: the policy that is updated
    :param update: number of the update, from 1
    :raises NonFiniteError: if a gradient, or the norm of all gradients of an optimizer, is NaN or infinite
    """
    watch = _GradientWatch(policy, f"Update {update} was stopped before minibatch {{}} could change the weights")
    with watch.of_optimizers():
        yield


@contextlib.contextmanager
def finite_steps(policy: BasePolicy, first_step: int) -> Iterator[None]:
    """
    As :func:`finite_updates`, for algorithms that count gradient steps.

    :param policy: the policy that is updated
    :param first_step: number of the first gradient step
    :raises NonFiniteError: as :func:`finite_updates` says
    """
    watch = _GradientWatch(policy, "Gradient step {} was stopped before it could change the weights", first_step)
    with watch.of_optimizers():
        yield


def stop_at_minibatch(policy: BasePolicy, update: int, minibatch: int, loss: Callable[[], th.Tensor]) -> NoReturn:
    """
    Say what is not finite in a minibatch of which it is known that something is not.

    :param policy: the policy that is updated
    :param update: number of the update, from 1
    :param minibatch: number of the minibatch
    :param loss: computes the loss
    :raises NonFiniteError: always
    """
    (optimizer,) = optimizers_of(policy)
    optimizer.zero_grad()
    what = f"Update {update} was stopped before minibatch {{}} could change the weights"
    watch = _GradientWatch(policy, what, minibatch)
    with watch.of_gradients():
        loss().backward()
        watch.before_step(optimizer)
        # Rounding may decide whether a number overflows.
        watch.stop("the loss or a gradient is not finite")


class _GradientWatch:
    """
    Copies each gradient when ``backward()`` has computed it, and checks those of an optimizer before its step. SB3 may
    clip gradients in between, which makes all of them NaN if one is, and zero if their norm is infinite.

    :param what: what the error says, with a place for the number of the step
    :param first: number of the first step
    """

    def __init__(self, policy: BasePolicy, what: str, first: int = 1) -> None:
        self._policy, self._what, self._first = policy, what, first
        self._trained = {p: name for name, p in policy.named_parameters() if p.requires_grad}
        self._gradients: dict[th.nn.Parameter, th.Tensor] = {}
        # An actor may step less often than critics, and never before them.
        self._n_steps: Counter[th.optim.Optimizer] = Counter()
        self._note_buffers()

    @contextlib.contextmanager
    def of_gradients(self) -> Iterator[None]:
        handles = [p.register_post_accumulate_grad_hook(self._after_gradient) for p in self._trained]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextlib.contextmanager
    def of_optimizers(self) -> Iterator[None]:
        handles = [optimizer.register_step_pre_hook(self.before_step) for optimizer in optimizers_of(self._policy)]
        try:
            with self.of_gradients():
                yield
        finally:
            for handle in handles:
                handle.remove()

    def before_step(self, optimizer: th.optim.Optimizer, *_: Any) -> None:
        self._n_steps[optimizer] += 1
        stepping = {p for group in optimizer.param_groups for p in group["params"]}
        # In the order of the modules, not of the backward pass.
        gradients = {p: self._gradients.pop(p) for p in self._trained if p in stepping and p in self._gradients}
        reason = _why_not_finite({self._trained[p]: gradient for p, gradient in gradients.items()})
        if reason is not None:
            self._gradients |= gradients
            self.stop(reason)
        self._note_buffers()

    def stop(self, reason: str) -> NoReturn:
        with th.no_grad():
            # Batch normalization notes what it sees in the forward pass already.
            for buffer, good in self._good_buffers:
                buffer.copy_(good)
        for parameter, gradient in self._gradients.items():
            parameter.grad = gradient
        number = self._first + max(self._n_steps.values()) - 1
        raise NonFiniteError(f"{self._what.format(number)}: {reason}. {ADVICE}")

    def _note_buffers(self) -> None:
        self._good_buffers = [(buffer, buffer.clone()) for buffer in self._policy.buffers()]

    def _after_gradient(self, parameter: Any) -> None:
        if parameter.grad is not None:
            self._gradients[parameter] = parameter.grad.clone()


def _why_not_finite(gradients: dict[str, th.Tensor]) -> str | None:
    """What is wrong with some gradients; None if nothing is."""
    # One number for all of them: looking at each on its own would take several times as long.
    parts = [gradient.reshape(-1) for gradient in gradients.values()]
    if not parts or math.isfinite(th.linalg.vector_norm(th.cat(parts)).item()):
        return None
    names = [name for name, gradient in gradients.items() if not th.isfinite(gradient).all()]
    if names:
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        return f"there are NaN or infinite numbers in the gradients of {', '.join(names[:MAX_NAMES])}{more}"
    return "the norm of the gradients is infinite, though each of them is finite"
