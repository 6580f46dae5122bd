"""What the updates of SB3's on-policy algorithms have in common."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.buffers import RolloutBuffer

from sb3_walle.updates.algorithm_update import AlgorithmUpdate
from sb3_walle.updates.global_state import random_states_kept
from sb3_walle.updates.parameter_groups import ParameterGroup
from sb3_walle.updates.rollout_minibatches import RolloutMinibatches, check_buffer, example_minibatch
from sb3_walle.updates.step import Minibatch, StepSpec
from sb3_walle.updates.tracing import copied_policy
from sb3_walle.updates.unsupported import Unsupported, in_short


class RolloutUpdate(AlgorithmUpdate):
    """An update from the minibatches of a rollout buffer, by one optimizer."""

    eager_seconds: ClassVar[float] = 1e-3
    # Most updates have more minibatches than these, and those that have few, of many samples, do not lose what they
    # gain.
    minibatches_per_comparison: ClassVar[int] = 20

    @property
    def batch_size(self) -> int:
        if getattr(self.algorithm, "rollout", "steps") == "episodes":
            # Rollouts have any size: those that are smaller than a minibatch must not ask for another program each.
            return self.algorithm.batch_size
        return min(self.algorithm.batch_size, self._n_samples())

    @property
    def buffer(self) -> RolloutBuffer:
        return self.algorithm.rollout_buffer

    def check(self) -> None:
        check_buffer(self.buffer)

    def optimizers(self) -> list[th.optim.Optimizer]:
        return [self.algorithm.policy.optimizer]

    def example_rows(self, n_samples: int) -> list[th.Tensor]:
        return list(example_minibatch(self.buffer, n_samples, self.algorithm.policy.device))

    def minibatches_per_epoch(self) -> int:
        return -(-self._n_samples() // self.batch_size)

    def rollout(self) -> RolloutMinibatches:
        """The minibatches of the rollout, which are drawn as SB3 draws them."""
        return RolloutMinibatches(self.buffer, self.batch_size, self.algorithm.policy.device)

    def trained_group(self, name: str, names: Sequence[str]) -> ParameterGroup:
        """
        :param name: name of the group
        :param names: names of its parameters
        :raises Unsupported: if the optimizer does not train these, or not as vectors
        """
        policy = self.algorithm.policy
        parameters = dict(policy.named_parameters())
        trained = [parameters[name] for name in names]
        optimized = {id(parameter) for group in policy.optimizer.param_groups for parameter in group["params"]}
        if not {id(parameter) for parameter in trained} <= optimized:
            raise Unsupported("the optimizer does not train all parameters that get a gradient")
        kinds = {(parameter.dtype, parameter.device) for parameter in trained}
        if len(kinds) != 1 or not next(iter(kinds))[0].is_floating_point:
            found = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
            raise Unsupported(f"the parameters are of several or unusual kinds: {found}")
        return ParameterGroup(name, trained, names, policy.optimizer)

    def names_with_gradient(self, of: Callable[[Any, Minibatch], th.Tensor]) -> list[str]:
        """
        :param of: computes a number, ``[]``, of a step and a minibatch
        :return: names of the parameters that get a gradient when it is minimised
        """
        algorithm = self.algorithm
        copied = copied_policy(algorithm.policy)
        # As it is during an update. After a rollout it is in evaluation mode.
        copied.set_training_mode(True)
        spec = StepSpec((), observation_keys=self.observation_keys(), variant=self.variant())
        step = self.step_class(copied, spec, ())
        numbers = self.numbers(len(step.coefficients))
        _, minibatch = step.unpacked([*self.example_rows(self.batch_size), numbers])
        learnable = {name: parameter for name, parameter in copied.named_parameters() if parameter.requires_grad}
        try:
            with random_states_kept(algorithm.policy.device):
                gradients = th.autograd.grad(of(step, minibatch), list(learnable.values()), allow_unused=True)
        except Exception as error:
            # A policy may do anything, also refuse a minibatch of zeros.
            raise Unsupported(f"the policy does not evaluate a minibatch of zeros: {in_short(error)}") from error
        return [name for name, gradient in zip(learnable, gradients, strict=True) if gradient is not None]

    def _n_samples(self) -> int:
        return int(self.buffer.buffer_size * self.buffer.n_envs)
