"""
Hooks on the modules of a policy: which of them decide its actions, and so have to be where the actions are chosen.

A forward pre-hook may change what a module is given, or the module. A forward hook may change what the module returns;
most only watch, for a log. Hooks on gradients have no part in choosing actions.
"""

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, TypeAlias

import cloudpickle
import numpy as np
import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import nn

#: torch numbers hooks, and gives no number twice
HookIds: TypeAlias = frozenset[int]

FORWARD_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
BACKWARD_HOOKS = ("_backward_hooks", "_backward_pre_hooks")

# A hook may look at values before it changes any.
N_TRIALS = 3


def forward_hook_ids(policy: BasePolicy) -> HookIds:
    """:return: all hooks of a policy's forward pass"""
    found: list[int] = []
    # By hand: named_modules() would take several times as long.
    stack: list[nn.Module | None] = [policy]
    while stack:
        module = stack.pop()
        if module is not None:
            found.extend(module._forward_hooks)
            found.extend(module._forward_pre_hooks)
            stack.extend(module._modules.values())
    return frozenset(found)


def hooks_that_do_not_pickle(policy: BasePolicy) -> dict[int, str]:
    """:return: these hooks of a policy's forward pass, and why they do not"""
    found = {}
    for kind in FORWARD_HOOKS:
        for name, module in policy.named_modules():
            for number, hook in getattr(module, kind).items():
                try:
                    cloudpickle.dumps(hook)
                except Exception as error:
                    found[number] = f"{hook!r} on {name or 'the policy'}: {type(error).__name__}: {error}"
    return found


@contextmanager
def only_hooks(policy: BasePolicy, kept: HookIds) -> Iterator[None]:
    """
    Take hooks off a policy for a while.

    :param kept: those of its forward pass that stay
    """
    before = [
        (module, kind, getattr(module, kind))
        for module in policy.modules()
        for kind in (*FORWARD_HOOKS, *BACKWARD_HOOKS)
        if getattr(module, kind)
    ]
    try:
        for module, kind, hooks in before:
            setattr(module, kind, OrderedDict((number, hook) for number, hook in hooks.items() if number in kept))
        yield
    finally:
        for module, kind, hooks in before:
            setattr(module, kind, hooks)


def watching_hooks(copied: BasePolicy) -> HookIds:
    """
    Try which forward hooks change nothing.

    :param copied: a copy of a policy, with the hooks' copies. The hooks themselves would count what they are shown
    :return: those that were called, returned nothing, and left what the module returns as it was
    """
    trials = {}
    for module in copied.modules():
        for number, hook in module._forward_hooks.items():
            trials[number] = module._forward_hooks[number] = _Trial(hook)
    space = deepcopy(copied.observation_space)
    space.seed(0)
    try:
        with random_states_kept(), th.no_grad():
            for _ in range(N_TRIALS):
                copied(copied.obs_to_tensor(space.sample())[0])
    except Exception:
        # The policy or a hook fails on examples. In samplers it is seen whether it fails there, too.
        return frozenset()
    return frozenset(number for number, trial in trials.items() if trial.only_watches)


def hooks_on_policy(policy: BasePolicy, numbers: HookIds) -> list[Callable[[Any, Any], Any]]:
    """
    :param numbers: some hooks of its forward pass
    :return: those of them that are called after the policy as a whole; they take its inputs and outputs
    """
    return [
        _with_arguments(policy, hook, number in policy._forward_hooks_with_kwargs)
        for number, hook in policy._forward_hooks.items()
        if number in numbers
    ]


class _Trial:
    """A forward hook that is being tried."""

    def __init__(self, hook: Callable[..., Any]) -> None:
        self._hook = hook
        self.was_called = self.has_changed = False

    @property
    def only_watches(self) -> bool:
        return self.was_called and not self.has_changed

    def __call__(self, *arguments: Any) -> Any:
        before = [tensor.clone() for tensor in _tensors(arguments[-1])]
        result = self._hook(*arguments)
        after = _tensors(arguments[-1])
        is_same = all(th.equal(one, other) for one, other in zip(before, after, strict=True))
        self.was_called = True
        self.has_changed |= result is not None or not is_same
        return result


def _tensors(value: Any) -> list[th.Tensor]:
    if isinstance(value, th.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _with_arguments(policy: BasePolicy, hook: Callable[..., Any], takes_keywords: bool) -> Callable[[Any, Any], Any]:
    if takes_keywords:
        return lambda inputs, outputs: hook(policy, inputs, {}, outputs)
    return lambda inputs, outputs: hook(policy, inputs, outputs)


@contextmanager
def random_states_kept() -> Iterator[None]:
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with th.random.fork_rng(devices=[]):
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
