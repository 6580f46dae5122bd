"""
The parameters of an algorithm as vectors, one for each optimizer and one for each target network.

Parameters and moments become views of these vectors, so that nothing is copied between a compiled step, which changes
the vectors, and the policy and optimizer that SB3 and the user know.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch as th

from sb3_walle.updates.adam import AdamSettings, moments_of, new_state
from sb3_walle.updates.flat import FlatLayout
from sb3_walle.updates.unsupported import Unsupported


@dataclass(frozen=True)
class GroupSpec:
    """
    Parameters that change together.

    :param names: their names in the policy; none if they do not belong to it
    :param layout: their places in the vector
    :param adam: how their optimizer is set; ``None`` for targets, which follow others
    """

    name: str
    names: tuple[str, ...]
    layout: FlatLayout
    adam: AdamSettings | None

    @property
    def n_tensors(self) -> int:
        """Number of vectors: the parameters, and where they are trained, their gradient and one for each moment."""
        return 1 if self.adam is None else 2 + len(self.adam.moments)


@dataclass(frozen=True)
class GroupState:
    """
    What a step changes of a group: the parameters and, where they are trained, the optimizer's moments and the gradient
    that it has taken last, ``[n]`` each.
    """

    vector: th.Tensor
    moments: tuple[th.Tensor, ...] = ()
    gradient: th.Tensor | None = None

    @classmethod
    def of(cls, tensors: Sequence[th.Tensor]) -> "GroupState":
        """The inverse of :meth:`tensors`."""
        return cls(tensors[0]) if len(tensors) == 1 else cls(tensors[0], tuple(tensors[1:-1]), tensors[-1])

    def tensors(self) -> list[th.Tensor]:
        return [self.vector, *self.moments, *([] if self.gradient is None else [self.gradient])]


class ParameterGroup:
    """
    A group of an algorithm.

    :param parameters: its parameters
    :param names: their names in the policy; none if they do not belong to it
    :param optimizer: what trains them; ``None`` for targets
    :raises Unsupported: if the optimizer is not torch's Adam or AdamW
    """

    def __init__(
        self,
        name: str,
        parameters: Sequence[th.Tensor],
        names: Sequence[str] = (),
        optimizer: th.optim.Optimizer | None = None,
    ) -> None:
        adam = None if optimizer is None else AdamSettings.of(optimizer)
        self.spec = GroupSpec(name, tuple(names), FlatLayout(parameters), adam)
        self.optimizer = optimizer
        self.parameters = list(parameters)
        self._state: GroupState | None = None
        self._home: GroupState | None = None
        self._n_steps = 0

    def copied_state(self) -> GroupState | None:
        """A copy of what :meth:`adopt` has returned, if parameters and moments still share its memory."""
        if self._state is None or not self._is_adopted(self._state):
            return None
        return GroupState.of([tensor.clone() for tensor in self._state.tensors()])

    def move_to(self, home: GroupState) -> None:
        """
        :param home: vectors to use from the next :meth:`adopt` on, instead of such as it makes itself
        """
        self._state, self._home = None, home

    def replace(self, state: GroupState) -> None:
        """Have parameters and moments share the memory of these vectors, which have their values."""
        self._state, self._home = state, None
        self._share(state)

    def adopt(self) -> GroupState:
        """
        Have parameters and moments share the memory of vectors, unless they do already, and return these.

        :raises Unsupported: if not all parameters have made as many steps
        """
        if self._state is None or not self._is_adopted(self._state):
            self._state = self._adopted()
        if self.optimizer is not None:
            self._n_steps = int(self.optimizer.state[self.parameters[0]]["step"])
        return self._state

    def adam_coefficients(self, n_steps: int) -> Any:
        """:meth:`AdamSettings.coefficients` of the next ``n_steps`` steps."""
        assert self.optimizer is not None and self.spec.adam is not None
        learning_rate = float(self.optimizer.param_groups[0]["lr"])
        return self.spec.adam.coefficients(learning_rate, self._n_steps, n_steps)

    def count_steps(self, n_steps: int) -> None:
        """Note that the optimizer has made ``n_steps`` further steps."""
        if self.optimizer is None:
            return
        self._n_steps += n_steps
        for parameter in self.parameters:
            if self._n_steps > 0:
                self.optimizer.state[parameter]["step"].fill_(self._n_steps)
            else:
                # torch keeps nothing before the first step.
                self.optimizer.state.pop(parameter, None)

    def leave_gradients(self) -> None:
        """Give each parameter the gradient that its optimizer has taken last, and all others of the optimizer none."""
        assert self.optimizer is not None and self._state is not None and self._state.gradient is not None
        self.optimizer.zero_grad()
        for parameter, gradient in zip(self.parameters, self.spec.layout.views(self._state.gradient), strict=True):
            parameter.grad = gradient

    def _is_adopted(self, state: GroupState) -> bool:
        """Whether all tensors are still views of the vectors. Loading what was saved exchanges some."""
        if not _share_memory(self.parameters, state.vector):
            return False
        if self.optimizer is None or self.spec.adam is None:
            return True
        kept = [self.optimizer.state.get(parameter, {}) for parameter in self.parameters]
        return all(
            all(name in entry for entry in kept) and _share_memory([entry[name] for entry in kept], moment)
            for name, moment in zip(self.spec.adam.moments, state.moments, strict=True)
        )

    def _adopted(self) -> GroupState:
        state = GroupState(FlatLayout.flatten(self.parameters))
        if self.optimizer is not None:
            n_steps, moments = moments_of(self.optimizer, self.parameters)
            state = GroupState(state.vector, moments, th.zeros_like(state.vector))
            for parameter in self.parameters:
                kept = self.optimizer.state[parameter]
                if not kept:
                    # So that there is something to be shared, even if no step was made yet.
                    kept.update(new_state(self.optimizer, parameter))
                kept["step"].fill_(n_steps)
        if self._home is not None:
            for place, tensor in zip(self._home.tensors(), state.tensors(), strict=True):
                place.copy_(tensor)
            state = self._home
        self._share(state)
        return state

    def _share(self, state: GroupState) -> None:
        layout = self.spec.layout
        for parameter, view in zip(self.parameters, layout.views(state.vector), strict=True):
            parameter.data = view
        if self.optimizer is not None and self.spec.adam is not None:
            for name, moment in zip(self.spec.adam.moments, state.moments, strict=True):
                for parameter, view in zip(self.parameters, layout.views(moment), strict=True):
                    self.optimizer.state[parameter][name] = view


def network_group(policy: Any, name: str, optimizer: th.optim.Optimizer | None = None) -> ParameterGroup:
    """
    The parameters of one of a policy's networks.

    :param optimizer: what trains them; ``None`` for a target, which follows another network
    :raises Unsupported: if the optimizer does not train exactly these
    """
    network = getattr(policy, name)
    named = dict(network.named_parameters())
    group = ParameterGroup(name, list(named.values()), [f"{name}.{key}" for key in named], optimizer)
    if optimizer is None:
        return group
    if {id(p) for p in optimizer.param_groups[0]["params"]} != {id(p) for p in named.values()}:
        raise Unsupported(f"the optimizer of the {name} does not train exactly its parameters")
    if not all(parameter.requires_grad for parameter in named.values()):
        raise Unsupported(f"parameters of the {name} are frozen")
    return group


def _share_memory(parts: Sequence[th.Tensor], vector: th.Tensor) -> bool:
    """Whether tensors lie side by side in the memory of a vector."""
    place = vector.data_ptr()
    for part in parts:
        if part.data_ptr() != place or not part.is_contiguous():
            return False
        place += part.numel() * part.element_size()
    return True
