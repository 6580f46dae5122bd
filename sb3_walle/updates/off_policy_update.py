"""What the updates of SB3's off-policy algorithms have in common."""

from abc import abstractmethod
from collections.abc import Hashable, Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from torch.nn import functional

from sb3_walle.sb3_private import add_updates, n_updates, vec_normalize_of
from sb3_walle.updates.algorithm_update import AlgorithmUpdate, Inputs, Progress
from sb3_walle.updates.parameter_groups import GroupState
from sb3_walle.updates.replay_samples import check_buffer, check_kinds, example_samples, tensors_of
from sb3_walle.updates.step import Minibatch, Observations, Stage, State, UpdateStep
from sb3_walle.updates.unsupported import Unsupported

# Updates of few gradient steps are many. Looking at all that a program depends on takes a tenth of one.
UPDATES_PER_LOOK = 100


class ReplayRows(NamedTuple):
    """
    A minibatch of B samples of a replay buffer.

    :param observations: ``[B, ...]``, or a dictionary of such tensors
    :param actions: ``[B, action_dim]``
    :param next_observations: as the observations
    :param dones: whether the episode ended there, and not because of a time limit, ``[B, 1]``
    :param rewards: ``[B, 1]``
    :param discounts: discount factor of what comes next, ``[B, 1]`` or ``[1]``
    :param weights: by how much samples count in the loss, ``[B, 1]``, or ``[1]``: 1 for all of them. Only algorithms
        that learn from weights look at them
    """

    observations: Observations
    actions: th.Tensor
    next_observations: Observations
    dones: th.Tensor
    rewards: th.Tensor
    discounts: th.Tensor
    weights: th.Tensor

    def targets(self, next_values: th.Tensor) -> th.Tensor:
        """What the values of the observations should be, ``[B, 1]``."""
        return self.rewards + (1 - self.dones) * self.discounts * next_values


class OffPolicyStep(UpdateStep):
    """One gradient step of an off-policy algorithm."""

    rows: ClassVar[Any] = ReplayRows
    #: after which stage targets follow, and for each target the group that it follows
    followers: ClassVar[tuple[str, dict[str, str]]] = ("", {})

    def apply(self, stage: Stage, state: State, gradient: Any, minibatch: Any) -> tuple[State, dict[str, th.Tensor]]:
        new, statistics = super().apply(stage, state, gradient, minibatch)
        when, leaders = self.followers
        if stage.name == when:
            tau = minibatch.coefficients["tau"]
            for target, leader in leaders.items():
                vector = state.groups[target].vector * (1.0 - tau) + tau * new.groups[leader].vector
                new.groups[target] = GroupState(vector)
        return new, statistics


class OffPolicyUpdate(AlgorithmUpdate):
    """Does what SB3's ``train()`` does."""

    # Gradient steps are many, and each is worth a millisecond or more.
    minibatches_per_comparison: ClassVar[int] = 1_000
    # Where most actions are at their bounds, rounding may be more than the gradient. A policy that computes something
    # else fails all comparisons.
    n_doubts: ClassVar[int] = 2

    def __init__(self, algorithm: Any) -> None:
        super().__init__(algorithm)
        self._gradient_steps = 1
        self._seen: tuple = ()
        self._key: Hashable = None
        self._kinds: list[th.Tensor] = []
        self._n_updates_since_look = 0

    @property
    def buffer(self) -> ReplayBuffer:
        return self.algorithm.replay_buffer

    @property
    def batch_size(self) -> int:
        return int(self.algorithm.batch_size)

    def expect(self, gradient_steps: int) -> None:
        self._gradient_steps = gradient_steps

    def look_again(self) -> None:
        self._seen = ()

    def key(self) -> Hashable:
        algorithm = self.algorithm
        seen = (id(algorithm.policy), id(algorithm.replay_buffer), id(vec_normalize_of(algorithm)))
        self._n_updates_since_look += 1
        if seen != self._seen or self._n_updates_since_look >= UPDATES_PER_LOOK:
            self._key = super().key()
            self._kinds = self.example_rows(self.batch_size)
            self._seen, self._n_updates_since_look = seen, 0
        return self._key

    def check(self) -> None:
        algorithm = self.algorithm
        policy = algorithm.policy
        if getattr(algorithm, "check_nan", False):
            raise Unsupported("check_nan looks at every gradient")
        check_buffer(self.buffer)
        if any(True for _ in policy.buffers()):
            raise Unsupported("the policy has buffers, as those of batch normalization")
        if len({(parameter.dtype, parameter.device) for parameter in policy.parameters()}) != 1:
            raise Unsupported("the parameters are of several kinds")
        critic: Any = getattr(policy, "critic", None)
        extractor = critic.features_extractor if getattr(critic, "share_features_extractor", False) else None
        if extractor is not None and any(True for _ in extractor.parameters()):
            raise Unsupported("actor and critics share what extracts features")

    def action_dim(self) -> int:
        return int(self.buffer.action_dim)

    def example_rows(self, n_samples: int) -> list[th.Tensor]:
        return example_samples(self.buffer, n_samples, self.algorithm.get_vec_normalize_env())

    def n_minibatches(self) -> int:
        return self._gradient_steps

    def n_minibatches_made(self) -> int:
        return n_updates(self.algorithm)

    def minibatches(self, progress: Progress) -> Iterator[Inputs]:
        gamma, one = self.tensor([self.algorithm.gamma]), self.tensor([1.0])
        # Whether the policy is in training mode makes no difference to what can be traced.
        for index in range(self._gradient_steps):
            samples = self.sample()
            rows = tensors_of(samples, gamma, one)
            if index == 0:
                check_kinds(rows, self._kinds)
            yield Inputs(self.program(index), rows, [*self.noise(samples.actions), self.coefficients(index)])
            self.learned_from(samples, progress.statistics[-1])

    def finish(self, number: int, progress: Progress) -> None:
        columns: dict[str, list[float]] = {}
        stages = {stage.name: stage.statistics for stage in self.step_class.stages}
        names = {
            program: [name for stage in made for name in stages[stage]] for program, made in self.programs().items()
        }
        for program, values in zip(progress.programs, progress.statistics, strict=True):
            # Errors of samples may come after the statistics.
            for name, value in zip(names[program], values.tolist(), strict=False):
                columns.setdefault(name, []).append(value)
        add_updates(self.algorithm, len(progress.statistics))
        self.algorithm.logger.record("train/n_updates", n_updates(self.algorithm), exclude="tensorboard")
        self.record({name: np.mean(column) for name, column in columns.items()})

    def program(self, index: int) -> str:
        """Name of the program that makes gradient step ``index`` of this update."""
        return "update"

    def sample(self) -> Any:
        """A minibatch of the replay buffer, drawn as SB3 draws it."""
        return self.buffer.sample(self.batch_size, env=vec_normalize_of(self.algorithm))

    def learned_from(self, samples: Any, found: th.Tensor) -> None:
        """Called with each minibatch, and what its program has returned."""

    def noise(self, actions: th.Tensor) -> list[th.Tensor]:
        """Random numbers for a minibatch, drawn as SB3 draws them."""
        return []

    @abstractmethod
    def coefficients(self, index: int) -> th.Tensor:
        """The numbers that the step names, for gradient step ``index`` of this update."""

    @abstractmethod
    def record(self, means: dict[str, Any]) -> None:
        """Log the mean of each statistic over the gradient steps."""


def smallest_value(critic: Any, observations: Observations, actions: th.Tensor) -> th.Tensor:
    """The smallest of the critics' values, ``[B, 1]``."""
    return th.cat(critic(observations, actions), dim=1).min(dim=1, keepdim=True).values


def squared_errors(values: tuple[th.Tensor, ...], targets: th.Tensor, minibatch: Minibatch) -> th.Tensor:
    """The sum of the critics' mean squared errors."""
    errors = [functional.mse_loss(value, targets, reduction="none") for value in values]
    return th.stack([minibatch.mean(error) for error in errors]).sum()
