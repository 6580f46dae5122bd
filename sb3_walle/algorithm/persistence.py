"""Saving, loading and copying an asynchronous algorithm."""

import io
import pathlib
import warnings
from collections.abc import Iterable
from typing import Any

from sb3_walle.algorithm.environments import Environments
from sb3_walle.algorithm.pickling import state_without_samplers
from sb3_walle.backends.protocol import Backend
from sb3_walle.backends.supervision import supervision_of
from sb3_walle.env_sources import LOCKSTEP, EnvSource, in_samplers
from sb3_walle.saving import model_path, written_whole
from sb3_walle.wrappers import wrapped_samplers


class Persistence(Environments):
    """The part of :class:`~sb3_walle.algorithm.mixin.AsyncMixin` by which a model outlives its samplers."""

    @classmethod
    def load(
        cls,
        path: str | pathlib.Path | io.BufferedIOBase,
        env: EnvSource = None,
        *args: Any,
        n_samplers: int | None = None,
        envs_per_sampler: int = 1,
        backend: str | Backend = "process",
        on_failure: str | None = None,
        max_restarts: int | None = None,
        step_timeout: float | None = None,
        close_timeout: float | None = None,
        samplers_give_way: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """
        Load a model that was saved by this algorithm, or by SB3's own.

        :param path: where it was saved
        :param env: environments to go on training with, as for the constructor
        :param args: SB3's other arguments
        :param n_samplers: as for the constructor
        :param envs_per_sampler: as for the constructor
        :param backend: as for the constructor
        :param on_failure: as for the constructor
        :param max_restarts: as for the constructor
        :param step_timeout: as for the constructor
        :param close_timeout: as for the constructor
        :param samplers_give_way: as for the constructor
        :param kwargs: SB3's other arguments; whatever is left replaces what was saved, e.g. ``mode="sync"``
        :return: the model
        """
        if kwargs.get("mode", "free") != "free":
            # The bound that was saved belongs to the mode that was saved.
            kwargs.setdefault("max_policy_lag", None)
        if "normalize" in kwargs:
            raise ValueError(
                "load() takes no normalize: the policy was trained with the statistics that were saved beside it. "
                "Pass env=VecNormalize.load(path_of_the_statistics, SamplerVecEnv(...))."
            )
        if "actor" in kwargs:
            kwargs["sampler_actor"] = kwargs.pop("actor")
        supervision = supervision_of(on_failure, max_restarts, step_timeout, close_timeout, samplers_give_way)
        with in_samplers(env, n_samplers, envs_per_sampler, backend, supervision=supervision) as samplers:
            with warnings.catch_warnings():
                # SB3 constructs the model first, and so asks again for what was just found impossible.
                warnings.filterwarnings("ignore", message=LOCKSTEP)
                model = super().load(path, samplers, *args, **kwargs)
            wrapped_samplers(model.env)
        model._note_normalization()
        return model

    def save(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """
        As in SB3, but the file appears under its path only when it is complete. Whatever ends the saving before that,
        be it an exception or a kill, leaves the model that was there.

        :param path: where to save, or a file to write to
        :param exclude: names of attributes that should be left out in addition to those that are by default
        :param include: names of attributes that should be saved though they are left out by default
        """
        if not isinstance(path, str | pathlib.Path):
            super().save(path, exclude, include)
            return
        with written_whole(model_path(path)) as file:
            super().save(file, exclude, include)

    def __getstate__(self) -> dict[str, Any]:
        return state_without_samplers(self)

    def _excluded_save_params(self) -> list[str]:
        own = ["_collector", "_collector_key", "_samplers_seed", "_is_learning", "_infos", "_learn_seconds", "_updates"]
        return [*super()._excluded_save_params(), *own, "_policy_settings"]
