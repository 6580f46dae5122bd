"""The environments of an asynchronous algorithm, and exchanging them."""

from typing import TYPE_CHECKING, TypeVar

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_walle.backends.protocol import Backend
from sb3_walle.collection.collector import Collector
from sb3_walle.env_sources import EnvSource, in_samplers
from sb3_walle.user_warning import warn_user
from sb3_walle.vec_env import SamplerVecEnv
from sb3_walle.wrappers import wrapped_samplers

# Stands in front of an algorithm of SB3. Type checkers are told that it is one.
if TYPE_CHECKING:
    _Base = BaseAlgorithm
else:
    _Base = object

SelfEnvironments = TypeVar("SelfEnvironments", bound="Environments")


class Environments(_Base):
    """The part of :class:`~sb3_walle.algorithm.mixin.AsyncMixin` that has to do with the training environments."""

    _collector: Collector | None
    _collector_key: tuple | None
    _is_learning: bool
    #: whether the policy learns from normalised observations or rewards
    is_normalized: bool

    def set_env(self, env: EnvSource, force_reset: bool = True) -> None:
        """
        Go on with other environments. Between two calls of ``learn()`` there may be more of them than before, or fewer.

        :param env: as for the constructor; where it does not say how many environments there are, as many as before
        :param force_reset: as in SB3
        :raises ValueError: if their spaces are others; nothing has changed then
        :raises RuntimeError: if their number is another one during ``learn()``
        """
        n_samplers: int | None = self.n_envs
        envs_per_sampler, supervision = 1, None
        backend: str | Backend = "process"
        present = None if self.env is None else self.env.unwrapped
        if isinstance(present, SamplerVecEnv):
            n_samplers, envs_per_sampler, backend = present.n_samplers, present.envs_per_sampler, present.backend
            supervision = present.samplers.supervision
        if isinstance(env, VecEnv):
            # It says itself how many there are, and what happens when they fail.
            n_samplers, envs_per_sampler, supervision = None, 1, None
        with in_samplers(env, n_samplers, envs_per_sampler, backend, supervision=supervision) as samplers:
            wrapped_samplers(samplers)
            self._set_env(samplers, force_reset)
        self._note_normalization()

    def _set_env(self, env: VecEnv | None, force_reset: bool) -> None:
        env_before, n_envs_before = self.env, self.n_envs
        if env is not None:
            if self._is_learning and env.num_envs != n_envs_before:
                raise RuntimeError(
                    f"The number of environments cannot change during learn(): there are {n_envs_before}, and "
                    f"{env.num_envs} were given. Call set_env() between two calls of learn()."
                )
            if env.num_envs != n_envs_before:
                self._check_n_envs(env.num_envs)
            # SB3 insists on as many as before.
            self.n_envs = env.num_envs
        try:
            super().set_env(env, force_reset)  # type: ignore[arg-type]
        except BaseException:
            self.n_envs = n_envs_before
            raise
        if self.env is not env_before:
            # They keep the samplers of the environments before alive.
            self._collector = self._collector_key = None
        if self.n_envs != n_envs_before:
            self._last_obs = None
            self._renew_buffer()

    def _check_n_envs(self, n_envs: int) -> None:
        """
        :param n_envs: a new number of environments
        :raises ValueError: if the algorithm cannot go on with as many
        """

    def _renew_buffer(self) -> None:
        """Make a buffer for the present number of environments."""
        raise NotImplementedError

    def _note_normalization(self) -> None:
        """Warn if the policy does not find the normalised environments any more that it has learned in."""
        found = self._vec_normalize_env is not None
        if self.is_normalized and self.env is not None and not found:
            warn_user(
                "The policy has learned in environments inside of a VecNormalize, but these are in none. "
                "Wrap them with the statistics that belong to the policy: VecNormalize.load(path, SamplerVecEnv(...))."
            )
        if self.env is not None:
            self.is_normalized = found

    def __enter__(self: SelfEnvironments) -> SelfEnvironments:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.env is not None:
            self.env.close()
