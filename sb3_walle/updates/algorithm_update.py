"""What an algorithm declares of its update, so that it can be traced, compiled, compared and made."""

import weakref
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.preprocessing import get_action_dim

from sb3_walle.updates.adam import AdamSettings
from sb3_walle.updates.parameter_groups import ParameterGroup
from sb3_walle.updates.step import UpdateStep
from sb3_walle.updates.tracing import has_hooks


class Inputs(NamedTuple):
    """
    :param program: name of the program that makes the minibatch
    :param rows: the tensors of its samples
    :param numbers: random numbers if the step takes any, and its coefficients
    """

    program: str
    rows: list[th.Tensor]
    numbers: list[th.Tensor]


@dataclass
class Progress:
    """
    How far an update is.

    :param groups: the algorithm's groups of parameters
    :param statistics: what each minibatch has returned
    :param programs: which program has made it
    :param step: the last one as a function that calls the policy
    :param inputs: all inputs of the last one
    :param is_refused: whether the last one has changed no weights
    :param n_in_last_epoch: number of minibatches of the last epoch
    """

    groups: Sequence[ParameterGroup] = ()
    statistics: list[th.Tensor] = field(default_factory=list)
    programs: list[str] = field(default_factory=list)
    step: UpdateStep | None = None
    inputs: list[th.Tensor] = field(default_factory=list)
    is_refused: bool = False
    n_in_last_epoch: int = 0

    @property
    def n_steps(self) -> int:
        """Number of minibatches that have changed the weights."""
        return len(self.statistics) - self.is_refused


class AlgorithmUpdate(ABC):
    """
    What an algorithm declares of its update.

    :param algorithm: the algorithm
    """

    #: what SB3 takes at least for a minibatch, in seconds, as long as nothing has been measured
    eager_seconds: ClassVar[float]
    #: what the compiled update does. A class in between, or a program that replaces it, may do something else
    sb3_train: ClassVar[Any]
    #: one minibatch
    step_class: ClassVar[type[UpdateStep]]
    #: after so many compiled minibatches, the first of the next update is compared with an eager one
    minibatches_per_comparison: ClassVar[int]
    #: comparisons that may fail, one after the other
    n_doubts: ClassVar[int] = 0

    def __init__(self, algorithm: BaseAlgorithm) -> None:
        # The algorithm has this object. If it were known here, too, it would outlive its last user.
        self._reference = weakref.ref(algorithm)
        self._kind: dict[str, Any] | None = None

    @property
    def algorithm(self) -> Any:
        algorithm = self._reference()
        assert algorithm is not None
        return algorithm

    @property
    @abstractmethod
    def batch_size(self) -> int:
        """Samples of a minibatch."""

    @abstractmethod
    def check(self) -> None:
        """:raises Unsupported: if the algorithm does something that its steps do not"""

    @abstractmethod
    def optimizers(self) -> list[th.optim.Optimizer]:
        """All that step in an update."""

    @abstractmethod
    def make_groups(self) -> list[ParameterGroup]:
        """:raises Unsupported: if the parameters are not trained as SB3 does"""

    @property
    @abstractmethod
    def buffer(self) -> Any:
        """The algorithm's rollout or replay buffer."""

    def observation_keys(self) -> tuple[str, ...] | None:
        """Keys of ``Dict`` observations, otherwise ``None``."""
        observations = self.buffer.observations
        return tuple(observations) if isinstance(observations, dict) else None

    @abstractmethod
    def example_rows(self, n_samples: int) -> list[th.Tensor]:
        """A minibatch of ``n_samples`` zeros, in types and shapes as :meth:`minibatches` has them."""

    def expect(self, gradient_steps: int) -> None:  # noqa: B027
        """Note the number of gradient steps of the next updates, where the algorithm does not determine it."""

    def look_again(self) -> None:  # noqa: B027
        """Look at all that programs depend on before the next update, where it is not done before each."""

    @abstractmethod
    def n_minibatches(self) -> int:
        """Number of minibatches of an update, at most."""

    @abstractmethod
    def n_minibatches_made(self) -> int:
        """Number of minibatches of all updates so far, as the algorithm counts them."""

    @abstractmethod
    def minibatches(self, progress: Progress) -> Iterator[Inputs]:
        """
        The minibatches of an update, drawn as SB3 draws them.

        :param progress: how far the update is; when the next minibatch is drawn, it includes the one before
        """

    @abstractmethod
    def finish(self, number: int, progress: Progress) -> None:
        """Log what SB3 logs, of update ``number`` (from 1)."""

    def programs(self) -> dict[str, tuple[str, ...]]:
        """For each program of an update, by name, the stages that it makes."""
        return {"update": tuple(stage.name for stage in self.step_class.stages)}

    def action_dim(self) -> int:
        return get_action_dim(self.algorithm.action_space)

    def variant(self) -> Hashable:
        """What of the loss is not a number."""
        return None

    def is_comparable(self) -> bool:
        """Whether a compiled and an eager minibatch agree but for rounding, at present."""
        return True

    def key(self) -> Hashable:
        """
        What the traced steps depend on: if it changes, others are needed.

        :raises Unsupported: if the update cannot be traced
        """
        self.check()
        policy, self._kind = self.algorithm.policy, None
        # One sample tells the types and shapes.
        kinds = tuple((tensor.dtype, tensor.shape) for tensor in self.example_rows(1))
        return (
            id(policy),
            tuple((id(optimizer), AdamSettings.of(optimizer)) for optimizer in self.optimizers()),
            self.variant(),
            self.batch_size,
            self.observation_keys(),
            kinds,
            tuple((id(parameter), parameter.requires_grad) for parameter in policy.parameters()),
            has_hooks(policy),
            policy.device,
        )

    def tensor(self, values: Sequence[float] | np.ndarray) -> th.Tensor:
        """Numbers in the type and on the device of the policy's parameters."""
        return th.as_tensor(np.asarray(values), **self._kind_of_numbers())

    def numbers(self, *shape: int) -> th.Tensor:
        """Zeros in the type and on the device of the policy's parameters."""
        return th.zeros(shape, **self._kind_of_numbers())

    def _kind_of_numbers(self) -> dict[str, Any]:
        # To look for the first parameter takes as long as a small layer.
        if self._kind is None:
            first = next(self.algorithm.policy.parameters())
            self._kind = {"dtype": first.dtype, "device": first.device}
        return self._kind
