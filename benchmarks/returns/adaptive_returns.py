"""A comparison of a fixed and an adaptive trust region, as Frans & Hafner make it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from benchmarks.contenders import AsyncContender, Trainee
from benchmarks.returns.returns_settings import ReturnsSettings
from sb3_walle import AdaptiveTrustRegion
from sb3_walle.cli.arguments import UsageError
from sb3_walle.cli.hyperparameter_choice import in_words

TARGET_KL = 0.001
TARGET_STEPS = 20_000


@dataclass(frozen=True)
class AdaptiveReturns(ReturnsSettings):
    """
    One of our algorithms with whole episodes and a fixed ``target_kl``, and the same with one that adapts.

    :param algorithm: name of its class
    :param adapt: what :class:`~sb3_walle.AdaptiveTrustRegion` changes: ``"kl"``, ``"steps"`` or ``"both"``
    :param arguments: further arguments of the algorithm
    """

    n_threads: ClassVar[int | None] = 1

    algorithm: str = "AsyncTRPO"
    adapt: str = "kl"
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def describe_algorithm(self) -> dict[str, Any]:
        """:return: what runs must have in common, of the algorithm alone"""
        return {"algorithm": self.algorithm, "adapt": self.adapt, **self._arguments()}

    def algorithm_in_words(self) -> list[str]:
        """:return: how the algorithm is set, in lines"""
        return [in_words(self._arguments()), f"all other arguments are the defaults of {self.algorithm}"]

    def trainees(self) -> tuple[Trainee, ...]:
        """
        :return: the fixed one first, and the adaptive one, in each mode
        :raises UsageError: if the algorithm is not there
        """
        samplers = AsyncContender(self.n_samplers, 1, algorithm=algorithm_named(self.algorithm))
        arguments = {**self._arguments(), "info_keys": ()}
        if self.normalize:
            arguments["normalize"] = self.normalize
        callbacks = {f"fixed {TARGET_KL}": None, f"adaptive {self.adapt}": partial(AdaptiveTrustRegion, self.adapt)}
        return tuple(
            Trainee(f"{samplers.name}, {mode}, {name}", samplers, mode, arguments, callback)
            for mode in dict.fromkeys(self.modes)
            for name, callback in callbacks.items()
        )

    def _arguments(self) -> dict[str, Any]:
        return {"rollout": "episodes", "target_steps": TARGET_STEPS, "target_kl": TARGET_KL, **self.arguments}


def algorithm_named(name: str) -> Any:
    """
    :return: one of our algorithms
    :raises UsageError: if the package that it needs is missing
    """
    import sb3_walle

    try:
        return getattr(sb3_walle, name)
    except (AttributeError, ImportError) as error:
        raise UsageError(str(error)) from error
