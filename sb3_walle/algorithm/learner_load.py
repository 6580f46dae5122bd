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
    space = policy.observation_space
    parts = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
    shapes = [part.shape or () for part in parts]
    n_parameters = sum(parameter.numel() for parameter in policy.parameters())
    has_images = any(len(shape) >= IMAGE_AXES for shape in shapes)
    return is_large(batch_size, shapes) and (has_images or n_parameters * samples_per_step >= MANY)
