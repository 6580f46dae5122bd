"""Which actions are valid, as environments tell it with the ``action_masks()`` of sb3-contrib."""

import numpy as np
from gymnasium import spaces

from sb3_walle.samplers.layers import InnermostEnvs
from sb3_walle.transport.layout import Field

#: name of the environments' method, and of the field of a chunk
ACTION_MASKS = "action_masks"


def n_mask_values(action_space: spaces.Space) -> int:
    """
    :param action_space: one that sb3-contrib can mask
    :return: how many values the mask of one environment has: one for each action of each part of the space
    """
    if isinstance(action_space, spaces.Discrete):
        return int(action_space.n)
    if isinstance(action_space, spaces.MultiDiscrete):
        return int(action_space.nvec.sum())
    assert isinstance(action_space, spaces.MultiBinary) and isinstance(action_space.n, int)
    return 2 * action_space.n


def action_masks_field(n_steps: int, n_envs: int, n_values: int) -> Field:
    """
    :param n_steps: most steps that a chunk can hold, T
    :param n_envs: environments of a sampler, B
    :param n_values: how many values the mask of one environment has
    :return: the array that an actor records masks in, ``[T, B, n_values]``
    """
    return Field(ACTION_MASKS, (n_steps, n_envs, n_values), "|b1")


class EnvMasks:
    """
    Asks the environments of a sampler for their masks.

    :param envs: the environments
    """

    def __init__(self, envs: InnermostEnvs) -> None:
        self._envs, self._all = envs, range(envs.n_envs)

    def read(self, masks: np.ndarray) -> None:
        """
        :param masks: receives the masks of what the environments show at present, ``[B, n_values]``
        :raises ValueError: if an environment tells of more actions than there are, or of fewer
        """
        told = self._envs.env_method(ACTION_MASKS, (), {}, self._all)
        for env, mask in enumerate(told):
            values = np.asarray(mask, dtype=bool).reshape(-1)
            if len(values) != masks.shape[1]:
                raise ValueError(
                    f"action_masks() of environment {self._envs.first_env + env} returned {len(values)} values, but "
                    f"its action space {self._envs.action_space} needs {masks.shape[1]}: one for each action of each "
                    "of its parts"
                )
            masks[env] = values
