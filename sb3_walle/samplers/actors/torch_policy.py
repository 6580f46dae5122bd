"""Moving a policy of SB3 to a sampler."""

import io
from copy import copy
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import cloudpickle
import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.utils import obs_as_tensor

from sb3_walle.samplers.actors.policy_hooks import (
    HookIds,
    forward_hook_ids,
    hooks_that_do_not_pickle,
    only_hooks,
    watching_hooks,
)
from sb3_walle.sb3_private import constructor_parameters
from sb3_walle.transport.chunk import Observations
from sb3_walle.transport.layout import ALIGNMENT
from sb3_walle.user_warning import warn_user

# What was found out of a policy with these hooks on its forward pass: which of them stay.
_staying: WeakKeyDictionary[BasePolicy, tuple[HookIds, HookIds]] = WeakKeyDictionary()


def dump_policy(policy: BasePolicy) -> bytes:
    """
    Pickle a policy, without its optimizer and without hooks that stay at the learner.

    The object itself travels rather than its constructor's arguments: it may have been changed since it was built.
    Only where the object cannot be pickled, as with parametrizations and TorchScript, the arguments do.

    :param policy: the learner's policy, on any device
    :return: what :func:`load_policy` takes
    :raises TypeError: if it can be moved in neither way
    """
    travelling = hooks_for_samplers(policy)
    for hook in hooks_that_do_not_pickle(policy).values():
        warn_user(
            f"A forward hook cannot be moved to samplers, and stays with the learner: {hook}. If it changes what its "
            "module returns, actions are chosen without it."
        )
    with only_hooks(policy, travelling):
        return _dump_object_or_recipe(policy)


def staying_hooks(policy: BasePolicy) -> HookIds:
    """
    :param policy: the learner's policy
    :return: the hooks of its forward pass that stay with the learner: those that only watch, and those that cannot be
        moved
    """
    present = forward_hook_ids(policy)
    if not present:
        return present
    known, staying = _staying.get(policy, (None, HookIds()))
    if known != present:
        unmovable = HookIds(hooks_that_do_not_pickle(policy))
        try:
            with only_hooks(policy, present - unmovable):
                copied = load_policy(_dump(_without_optimizer(policy)))
        except Exception:
            # dump_policy() says why, or builds the policy anew, and has to leave hooks behind.
            staying = present
        else:
            staying = unmovable | watching_hooks(copied)
        _staying[policy] = (present, staying)
    return staying


def hooks_for_samplers(policy: BasePolicy) -> HookIds:
    """
    :param policy: the learner's policy
    :return: the hooks of its forward pass that samplers need to choose its actions
    """
    present = forward_hook_ids(policy)
    return present - staying_hooks(policy) if present else present


def _without_optimizer(policy: BasePolicy) -> BasePolicy:
    without_optimizer = copy(policy)
    without_optimizer.__dict__ = {name: value for name, value in vars(policy).items() if name != "optimizer"}
    return without_optimizer


def _dump_object_or_recipe(policy: BasePolicy) -> bytes:
    try:
        return _dump(_without_optimizer(policy))
    except Exception as error:
        try:
            recipe = _recipe(policy)
            _check_same_weights(policy, recipe.build())
            return _dump(recipe)
        except Exception as second_error:
            raise TypeError(
                f"The policy cannot be moved to samplers. Pickling it failed with {_in_words(error)}. Building it anew "
                f"from what {type(policy).__name__}._get_constructor_parameters() returns failed with "
                f"{_in_words(second_error)}. Make sure that one of the two works."
            ) from error


def load_policy(payload: bytes) -> BasePolicy:
    """
    :param payload: what :func:`dump_policy` returned
    :return: the policy, on the CPU and in evaluation mode
    """
    policy = th.load(io.BytesIO(payload), map_location="cpu", weights_only=False)
    if isinstance(policy, _Recipe):
        policy = policy.build()
    policy.set_training_mode(False)
    _align(policy)
    return policy


def aligned_tensors(observations: Observations) -> PyTorchObs:
    """
    Copy observations to memory that begins where torch's own begins. The row of a chunk begins anywhere, and on some
    processors a matrix product rounds otherwise where its input begins elsewhere.

    :param observations: ``[B, ...]``, or a dictionary of such arrays
    :return: the same as tensors, at multiples of ``ALIGNMENT`` bytes
    """
    tensors = obs_as_tensor(observations, th.device("cpu"))
    if isinstance(tensors, dict):
        return {key: tensor.clone() for key, tensor in tensors.items()}
    return tensors.clone()


def _align(policy: BasePolicy) -> None:
    """Compiled updates keep parameters as parts of one vector, of which most begin anywhere."""
    for tensor in (*policy.parameters(), *policy.buffers()):
        if tensor.data_ptr() % ALIGNMENT:
            tensor.data = tensor.data.clone()


@dataclass(frozen=True)
class _Recipe:
    """How to build a policy of the same structure."""

    policy_class: type[BasePolicy]
    kwargs: dict[str, Any]

    def build(self) -> BasePolicy:
        # Initial weights are random, and draw from a stream that belongs to others.
        with th.random.fork_rng(devices=[]):
            return self.policy_class(**self.kwargs).to("cpu")


def _recipe(policy: BasePolicy) -> _Recipe:
    kwargs = constructor_parameters(policy)
    if getattr(policy, "share_features_extractor", True) is False:
        # SB3 leaves this one out.
        kwargs["share_features_extractor"] = False
    return _Recipe(type(policy), kwargs)


def _check_same_weights(policy: BasePolicy, other: BasePolicy) -> None:
    expected, found = _weight_shapes(policy), _weight_shapes(other)
    if expected != found:
        different = sorted(name for name, _ in expected.items() ^ found.items())
        raise ValueError(f"other weights: {', '.join(different)}")


def _weight_shapes(policy: BasePolicy) -> dict[str, tuple[int, ...]]:
    state = policy.state_dict()
    return {name: tuple(value.shape) for name, value in state.items() if isinstance(value, th.Tensor)}


def _dump(value: Any) -> bytes:
    buffer = io.BytesIO()
    # cloudpickle: the policy's class may have been defined in the user's main module.
    th.save(value, buffer, pickle_module=cloudpickle)
    return buffer.getvalue()


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(".")
