"""Whether the learner has so much to compute that samplers mostly wait for it."""

from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy

from sb3_walle.updates.minibatch_size import IMAGE_AXES, is_large

# Parameters times samples that are learned from for each step of an environment. An update takes as long for so many
# as MuJoCo for a step, some 50 microseconds.
MANY = 1e6


def needs_threads(policy: BasePolicy, batch_size: int, samples_per_step: float) -> bool:
    """
    :param batch_size: samples of a minibatch
    :param samples_per_step: samples that are learned from for each step of an environment
    :return: whether the learner has more to compute than samplers, in pieces that are worth several threads
    """
    has_images = any(len(shape) >= IMAGE_AXES for shape in _shapes(policy))
    return is_for_threads(policy, batch_size) and (has_images or is_busy(policy, samples_per_step))


def is_for_threads(policy: BasePolicy, batch_size: int) -> bool:
    """Whether minibatches are worth several threads."""
    return is_large(batch_size, _shapes(policy))


def is_busy(policy: BasePolicy, samples_per_step: float) -> bool:
    """Whether an update takes longer than the steps of environments that are learned from."""
    return n_parameters(policy) * samples_per_step >= MANY


def n_parameters(policy: BasePolicy) -> int:
    return sum(parameter.numel() for parameter in policy.parameters())


def _shapes(policy: BasePolicy) -> list[tuple[int, ...]]:
    space = policy.observation_space
    parts = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
    return [part.shape or () for part in parts]
