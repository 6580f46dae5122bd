"""
The networks of an off-policy algorithm as vectors, one for each optimizer and one for each target.

Parameters and moments become views of these vectors, so that nothing has to be copied between a compiled step, which
changes the vectors, and whoever looks at the parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch as th

from sb3_walle.learners.adam import AdamSettings, AdamState
from sb3_walle.learners.flat import FlatLayout


@dataclass(frozen=True)
class GroupSpec:
    """
    Parameters that change together.

    :param name: what the step calls them
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
        """Number of vectors: that of the parameters, and one for each moment."""
        return 1 if self.adam is None else 1 + len(self.adam.moments)


@dataclass(frozen=True)
class GroupState:
    """
    What a step changes of a group.

    :param vector: the parameters, ``[n]``
    :param moments: the optimizer's moments, ``[n]`` each
    """

    vector: th.Tensor
    moments: tuple[th.Tensor, ...] = ()

    def tensors(self) -> list[th.Tensor]:
        """:return: all of them, in this order"""
        return [self.vector, *self.moments]


class Group:
    """
    A group of an algorithm.

    :param spec: what is known of it beforehand
    :param parameters: its parameters
    :param optimizer: what trains them; ``None`` for targets
    """

    def __init__(
        self, spec: GroupSpec, parameters: Sequence[th.Tensor], optimizer: th.optim.Optimizer | None = None
    ) -> None:
        self.spec, self.optimizer = spec, optimizer
        self._parameters = list(parameters)
        self._state: GroupState | None = None
        self._n_steps = 0

    @property
    def n_steps(self) -> int:
        """Number of steps that the optimizer has made."""
        return self._n_steps

    @property
    def learning_rate(self) -> float:
        """The optimizer's learning rate at present."""
        assert self.optimizer is not None
        return float(self.optimizer.param_groups[0]["lr"])

    def adopt(self) -> GroupState:
        """
        Have parameters and moments share the memory of vectors, unless they do already.

        :return: the vectors
        :raises Unsupported: if not all parameters have made as many steps
        """
        if self._state is None or not self._is_adopted(self._state):
            self._state = self._adopted()
        if self.optimizer is not None:
            self._n_steps = int(self.optimizer.state[self._parameters[0]]["step"])
        return self._state

    def count_steps(self, n_steps: int) -> None:
        """
        Note that the optimizer has made further steps.

        :param n_steps: how many
        """
        self._n_steps += n_steps
        if self.optimizer is not None:
            for parameter in self._parameters:
                self.optimizer.state[parameter]["step"].fill_(self._n_steps)

    def _is_adopted(self, state: GroupState) -> bool:
        """Whether nobody has exchanged a tensor since, as by loading what was saved."""
        if not _share_memory(self._parameters, state.vector):
            return False
        if self.optimizer is None or self.spec.adam is None:
            return True
        kept = [self.optimizer.state.get(parameter, {}) for parameter in self._parameters]
        return all(
            all(name in entry for entry in kept) and _share_memory([entry[name] for entry in kept], moment)
            for name, moment in zip(self.spec.adam.moments, state.moments, strict=True)
        )

    def _adopted(self) -> GroupState:
        layout, vector = self.spec.layout, FlatLayout.flatten(self._parameters)
        moments: tuple[th.Tensor, ...] = ()
        if self.optimizer is not None and self.spec.adam is not None:
            state = AdamState(self.optimizer, self._parameters, layout)
            n_steps, moments = state.read()
            # So that there is something to be shared, even if no step was made yet.
            state.write(n_steps, moments, even_if_none=True)
            for name, moment in zip(self.spec.adam.moments, moments, strict=True):
                for parameter, view in zip(self._parameters, layout.views(moment), strict=True):
                    self.optimizer.state[parameter][name] = view
        for parameter, view in zip(self._parameters, layout.views(vector), strict=True):
            parameter.data = view
        return GroupState(vector, moments)


def _share_memory(parts: Sequence[th.Tensor], vector: th.Tensor) -> bool:
    """Whether tensors lie side by side in the memory of a vector."""
    place = vector.data_ptr()
    for part in parts:
        if part.data_ptr() != place or not part.is_contiguous():
            return False
        place += part.numel() * part.element_size()
    return True
