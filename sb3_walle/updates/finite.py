"""Stopping an update before a gradient that is not finite reaches the weights."""

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy

from sb3_walle.errors import NonFiniteError
from sb3_walle.updates.policy_copy import optimizers_of

# Names enough to see where it began; a large network has hundreds of parameters.
MAX_NAMES = 3
ADVICE = (
    "The weights are those of the last good step: save the model. Before you continue, lower the learning rate, "
    "and check that observations and rewards are finite and not huge."
)


@contextlib.contextmanager
def finite_updates(policy: ActorCriticPolicy, update: int) -> Iterator[None]:
    """
    Around an algorithm's ``train()``, stops it before an optimizer step whose gradients are not finite.

    The optimizer step of that minibatch does not take place, so that the policy and its optimizer stay as the step
    before has left them. The gradients remain for a debugger to look at.

    Hooks copy each gradient when ``backward()`` has computed it. SB3 clips gradients next, which makes all of them NaN
    if one is, and zero if their norm is infinite.

    :param policy: the policy that is updated
    :param update: number of the update, from 1
    :raises NonFiniteError: if a gradient, or the norm of all gradients, is NaN or infinite
    """
    with _UpdateWatch(policy, update, minibatch=1) as watch:
        handle = policy.optimizer.register_step_pre_hook(watch.before_step)
        try:
            yield
        finally:
            handle.remove()


@contextlib.contextmanager
def finite_steps(policy: BasePolicy, first_step: int) -> Iterator[None]:
    """
    Around the ``train()`` of an algorithm with several optimizers, stops it before any of them steps with a gradient
    that is not finite.

    :param policy: the policy that is updated
    :param first_step: number of the first gradient step
    :raises NonFiniteError: if a gradient, or the norm of all gradients of an optimizer, is NaN or infinite
    """
    names = {parameter: name for name, parameter in policy.named_parameters()}
    with contextlib.ExitStack() as stack:
        for optimizer in optimizers_of(policy):
            watch = _StepWatch(optimizer, names, first_step)
            stack.callback(optimizer.register_step_pre_hook(watch.before_step).remove)
        yield


class _StepWatch:
    """
    Checks the gradients of one optimizer.

    :param optimizer: the optimizer
    :param names: names of the policy's parameters
    :param first_step: number of the first gradient step
    """

    def __init__(self, optimizer: th.optim.Optimizer, names: dict[th.nn.Parameter, str], first_step: int) -> None:
        self._parameters = {
            names.get(parameter, "a parameter"): parameter
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        self._step = first_step

    def before_step(self, *_: Any) -> None:
        reason = _why_not_finite({name: p.grad for name, p in self._parameters.items() if p.grad is not None})
        if reason is not None:
            raise NonFiniteError(
                f"Gradient step {self._step} was stopped before it could change the weights: {reason}. {ADVICE}"
            )
        self._step += 1


def stop_at_minibatch(
    policy: ActorCriticPolicy, update: int, minibatch: int, loss: Callable[[], th.Tensor]
) -> NoReturn:
    """
    Say of a minibatch, of which it is known that something is not finite in it, what that is.

    :param policy: the policy that is updated
    :param update: number of the update, from 1
    :param minibatch: number of the minibatch
    :param loss: computes the loss
    :raises NonFiniteError: always
    """
    policy.optimizer.zero_grad()
    with _UpdateWatch(policy, update, minibatch) as watch:
        loss().backward()
        watch.before_step()
        # Rounding may decide whether a number overflows.
        watch.stop("the loss or a gradient is not finite")


class _UpdateWatch:
    """
    Checks one minibatch of an update after the other.

    :param policy: the policy that is updated
    :param update: number of the update, from 1
    :param minibatch: number of the first minibatch
    """

    def __init__(self, policy: ActorCriticPolicy, update: int, minibatch: int) -> None:
        self._update, self._minibatch = update, minibatch
        self._trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
        self._gradients: dict[str, th.Tensor] = {}
        self._buffers = list(policy.buffers())
        self._good_buffers = [buffer.clone() for buffer in self._buffers]
        self._hooks = contextlib.ExitStack()

    def __enter__(self) -> "_UpdateWatch":
        for name, parameter in self._trained.items():
            hook = partial(self._after_gradient, name)
            self._hooks.callback(parameter.register_post_accumulate_grad_hook(hook).remove)
        return self

    def __exit__(self, *exception: object) -> None:
        self._hooks.close()

    def before_step(self, *_: Any) -> None:
        # In the order of the modules, not of the backward pass.
        reason = _why_not_finite({name: self._gradients[name] for name in self._trained if name in self._gradients})
        if reason is not None:
            self.stop(reason)
        self._gradients.clear()
        self._good_buffers = [buffer.clone() for buffer in self._buffers]
        self._minibatch += 1

    def stop(self, reason: str) -> NoReturn:
        with th.no_grad():
            # Batch normalization notes what it sees in the forward pass already.
            for buffer, good in zip(self._buffers, self._good_buffers, strict=True):
                buffer.copy_(good)
        for name, gradient in self._gradients.items():
            self._trained[name].grad = gradient
        raise NonFiniteError(
            f"Update {self._update} was stopped before minibatch {self._minibatch} could change the weights: {reason}. "
            f"{ADVICE}"
        )

    def _after_gradient(self, name: str, parameter: th.Tensor) -> None:
        if parameter.grad is not None:
            self._gradients[name] = parameter.grad.clone()


def _why_not_finite(gradients: dict[str, th.Tensor]) -> str | None:
    """What is wrong with some gradients; None if nothing is."""
    # One number for all of them: looking at each on its own would take several times as long.
    if not gradients or math.isfinite(_norm(list(gradients.values()))):
        return None
    names = [name for name, gradient in gradients.items() if not th.isfinite(gradient).all()]
    if names:
        return f"there are NaN or infinite numbers in the gradients of {_first_names(names)}"
    return "the norm of the gradients is infinite, though each of them is finite"


def _norm(tensors: list[th.Tensor]) -> float:
    return th.linalg.vector_norm(th.cat([tensor.reshape(-1) for tensor in tensors])).item()


def _first_names(names: list[str]) -> str:
    shown, n_more = ", ".join(names[:MAX_NAMES]), len(names) - MAX_NAMES
    return f"{shown} and {n_more} more" if n_more > 0 else shown
