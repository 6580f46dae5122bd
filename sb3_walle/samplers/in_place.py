"""How an environment moves to a sampler of the same process: as the object that it is."""

import gymnasium as gym

from sb3_walle.samplers.factories import EnvFactory, factory_from_env


class InPlaceEnv:
    """
    Hands over an environment of this process itself, so that its owner can look at it while the sampler steps it. A
    sampler that dies has closed it; the one that takes its place gets a copy, as samplers in other processes do.
    """

    def __init__(self, env: gym.Env) -> None:
        self._env: gym.Env | None = env
        #: builds copies, or why there can be none
        self._copies: EnvFactory | TypeError
        try:
            # Now, because a copy that is made later does not begin where the original began.
            self._copies = factory_from_env(env)
        except TypeError as error:
            self._copies = error

    def __call__(self) -> gym.Env:
        if self._env is not None:
            env, self._env = self._env, None
            return env
        if isinstance(self._copies, TypeError):
            raise self._copies
        return self._copies()
