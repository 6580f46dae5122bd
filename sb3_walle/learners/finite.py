"""Stopping an update before a loss or a gradient that is not finite reaches the weights."""

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NoReturn

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy

from sb3_walle.errors import NonFiniteError
from sb3_walle.learners.policy_copy import optimizers_of

# Names enough to see where it began; a large network has hundreds of parameters.
MAX_NAMES = 3
ADVICE = (
    "The weights are those of the last good step: save the model. Before training goes on, lower the learning rate, "
    "and check that observations and rewards are finite and not huge."
)


@contextlib.contextmanager
def finite_updates(policy: ActorCriticPolicy, update: int) -> Iterator[None]:
    """
    Around an algorithm's ``train()``, stops it before an optimizer step whose loss or gradients are not finite.

    The optimizer step of that minibatch does not take place, so that the policy and its optimizer stay as the step
    before has left them. The gradients remain for a debugger to look at.

    Neither the algorithm nor torch is patched. The values of the policy are handed out as a tensor that knows when
    ``backward()`` is called on what was computed from it, which is the loss. That is the one moment at which gradients
    are as they were computed: SB3 clips them next, which makes all of them NaN if one is, and zero if their norm is
    infinite. Of a policy without SB3's ``value_net``, the clipped gradients are checked.

    :param policy: the policy that is updated
    :param update: number of the update, from 1
    :raises NonFiniteError: if the loss, a gradient, or the norm of all gradients is NaN or infinite
    """
    watch = _UpdateWatch(policy, update, minibatch=1)
    value_net = getattr(policy, "value_net", None)
    with contextlib.ExitStack() as stack:
        stack.callback(policy.optimizer.register_step_pre_hook(watch.before_step).remove)
        if isinstance(value_net, th.nn.Module):
            stack.callback(value_net.register_forward_hook(_as_watched).remove)
        stack.callback(_watch.reset, _watch.set(watch))
        yield


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
        reason = _why_not_finite(self._parameters)
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
    watch = _UpdateWatch(policy, update, minibatch)
    policy.optimizer.zero_grad()
    value = loss()
    watch.before_backward(value)
    value.backward()
    watch.after_backward()
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
        self._parameters = dict(policy.named_parameters())
        self._buffers = list(policy.buffers())
        self._good_buffers = [buffer.clone() for buffer in self._buffers]
        self._gradients_are_checked = False

    def before_backward(self, loss: th.Tensor) -> None:
        value = loss.item()
        if not math.isfinite(value):
            self.stop(f"the loss is {value}")

    def after_backward(self) -> None:
        self._check_gradients()
        self._gradients_are_checked = True

    def before_step(self, *_: Any) -> None:
        if not self._gradients_are_checked:
            self._check_gradients()
        self._gradients_are_checked = False
        self._good_buffers = [buffer.clone() for buffer in self._buffers]
        self._minibatch += 1

    def _check_gradients(self) -> None:
        reason = _why_not_finite(self._parameters)
        if reason is not None:
            self.stop(reason)

    def stop(self, reason: str) -> NoReturn:
        # Batch normalization notes what it sees in the forward pass already.
        with th.no_grad():
            for buffer, good in zip(self._buffers, self._good_buffers, strict=True):
                buffer.copy_(good)
        raise NonFiniteError(
            f"Update {self._update} was stopped before minibatch {self._minibatch} could change the weights: {reason}. "
            f"{ADVICE}"
        )


# Not shared between threads, each of which may train a model of its own.
_watch: ContextVar[_UpdateWatch | None] = ContextVar("_watch", default=None)


class _WatchedTensor(th.Tensor):
    """
    A tensor like any other, but for the update hearing of its ``backward()``. A tensor that is computed from it, and
    through which gradients flow, is one, too.
    """

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if len(types) > 1 and not all(issubclass(cls, kind) for kind in types):
            # There is a tensor of somebody else's, which knows better what to do.
            return NotImplemented
        watch = _watch.get() if func is th.Tensor.backward else None
        with th._C.DisableTorchFunctionSubclass():
            if watch is not None:
                watch.before_backward(args[0])
            result = func(*args, **(kwargs or {}))
            if watch is not None:
                watch.after_backward()
        return result.as_subclass(cls) if type(result) is th.Tensor and result.requires_grad else result


def _as_watched(module: th.nn.Module, inputs: Any, output: Any) -> Any:
    # Another kind of tensor may need what its own class does. The output may be the input, which is the policy's own.
    return output.as_subclass(_WatchedTensor) if type(output) is th.Tensor else output


def _why_not_finite(parameters: dict[str, th.nn.Parameter]) -> str | None:
    """What is wrong with the gradients of some parameters; None if nothing is."""
    gradients = {name: found.grad for name, found in parameters.items() if found.grad is not None}
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
