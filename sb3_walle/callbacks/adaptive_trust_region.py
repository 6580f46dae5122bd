"""A trust region and a number of steps that follow how training gets on."""

from typing import Any, cast

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, CallbackList

ADAPTATIONS = ("kl", "steps", "both")
# The attribute of a model that holds the callback's state, so that it is saved with the model: plain numbers, which a
# program without this package loads, too.
STATE = "trust_region_state"


class AdaptiveTrustRegion(BaseCallback):
    """
    Changes ``target_kl``, ``target_steps`` or both while an on-policy algorithm learns, by the rules of Frans & Hafner
    (2016, "Parallel Trust Region Policy Optimization with Multiple Actors"). After every ten iterations it compares the
    mean return of their episodes with that of the ten before. If the policy does not improve, iterations get more steps
    and updates a smaller trust region; if it does, iterations get fewer steps and updates a larger one.

    ``target_kl`` is what the algorithm makes of it: TRPO's trust region, the divergence at which PPO ends an update, or
    the one that ``objective="kl_penalty"`` aims at. The model keeps the state: a saved one continues where it was.

    .. code-block:: python

        model = AsyncPPO("MlpPolicy", "HalfCheetah-v4", rollout="episodes", target_steps=1_200, target_kl=0.001)
        model.learn(1_000_000, callback=AdaptiveTrustRegion("both"))

    :param adapt: what to change: ``"kl"``, ``"steps"`` or ``"both"``
    :param every: number of iterations from one comparison to the next
    :param margin: by which share of the mean return before the policy has to improve; the paper's variant with a margin
        has 0.05
    :param kl_bounds: smallest and largest ``target_kl``. A value outside of them stays until a change leads towards
        them
    :param kl_increment: by how much ``target_kl`` changes
    :param steps_bounds: smallest and largest ``target_steps``, likewise
    :param steps_increment: by how much ``target_steps`` changes
    :param verbose: 1 for a line about each change
    :raises ValueError: if one of these is wrong; when training begins, if the algorithm has not what is to change,
        there are several such callbacks, or another callback than a list calls it
    """

    def __init__(
        self,
        adapt: str = "both",
        every: int = 10,
        margin: float = 0.0,
        kl_bounds: tuple[float, float] = (0.001, 0.01),
        kl_increment: float = 0.0005,
        steps_bounds: tuple[int, int] = (1_200, 20_000),
        steps_increment: int = 300,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        if adapt not in ADAPTATIONS:
            raise ValueError(f"adapt must be one of {ADAPTATIONS}, got {adapt!r}")
        if not isinstance(every, int | np.integer) or every < 1:
            raise ValueError(f"every must be an integer of at least 1, got {every!r}")
        for name, (lowest, highest) in (("kl_bounds", kl_bounds), ("steps_bounds", steps_bounds)):
            if not 0 < lowest <= highest:
                raise ValueError(f"{name} must be two numbers above 0 in their order, got {(lowest, highest)}")
        if kl_increment < 0 or margin < 0:
            raise ValueError(f"kl_increment and margin must not be negative, got {kl_increment} and {margin}")
        if not all(isinstance(number, int | np.integer) for number in (*steps_bounds, steps_increment)):
            raise ValueError(
                f"steps_bounds and steps_increment must be integers, got {steps_bounds} and {steps_increment}"
            )
        if steps_increment < 0:
            raise ValueError(f"steps_increment must not be negative, got {steps_increment}")
        self.adapts_kl, self.adapts_steps = adapt in ("kl", "both"), adapt in ("steps", "both")
        self.every, self.margin = every, margin
        self.kl_bounds, self.kl_increment = kl_bounds, kl_increment
        self.steps_bounds, self.steps_increment = steps_bounds, steps_increment
        self._returns: list[float] = []

    @property
    def state(self) -> dict[str, Any]:
        """
        What the model keeps: ``"returns"``, the mean returns of the iterations since the last comparison;
        ``"n_iterations"``, how many of these there were; and ``"before"``, the mean return at the last comparison.
        """
        return vars(self.model).setdefault(STATE, {"n_iterations": 0, "returns": [], "before": None})

    def _on_training_start(self) -> None:
        if self.parent is not None:
            raise ValueError(
                f"AdaptiveTrustRegion follows iterations, and {type(self.parent).__name__} does not tell it of them. "
                "Give it to learn() itself, alone or in a list."
            )
        if _n_adaptive(self.locals.get("callback", self)) > 1:
            raise ValueError(
                "learn() was given several AdaptiveTrustRegion, and a model has the state of one. Give it one, with "
                "adapt='both' to change target_kl and target_steps."
            )
        if self.adapts_kl and getattr(self.model, "target_kl", None) is None:
            raise ValueError(
                f"AdaptiveTrustRegion changes target_kl, and this {type(self.model).__name__} has none. Give it one, "
                "as in target_kl=0.001, or use adapt='steps'."
            )
        if self.adapts_steps and getattr(self.model, "target_steps", None) is None:
            raise ValueError(
                f"AdaptiveTrustRegion changes target_steps, and this {type(self.model).__name__} has none. Give it "
                "rollout='episodes' and target_steps, or use adapt='kl'."
            )

    def _on_step(self) -> bool:
        if self.locals["dones"].any():
            self._returns += [float(info["episode"]["r"]) for info in self.locals["infos"] if "episode" in info]
        return True

    def _on_rollout_end(self) -> None:
        state, model = self.state, cast(Any, self.model)
        state["n_iterations"] += 1
        if self._returns:
            state["returns"].append(float(np.mean(self._returns)))
            self._returns = []
        if self.adapts_kl:
            model.logger.record("train/target_kl", model.target_kl)
        if self.adapts_steps:
            model.logger.record("rollout/target_steps", model.target_steps)

    def _on_rollout_start(self) -> None:
        # After the update: what changes is that of the next iteration. Where no episode has ended, nothing is known.
        state = self.state
        if state["n_iterations"] < self.every or not state["returns"]:
            return
        found, before = float(np.mean(state["returns"])), state["before"]
        state.update(n_iterations=0, returns=[], before=found)
        # There is nothing to compare the first with. The paper takes it for an improvement.
        self._adapt(before is None or found >= before + self.margin * abs(before))

    def _adapt(self, improves: bool) -> None:
        model, now = cast(Any, self.model), []
        if self.adapts_kl:
            change = self.kl_increment if improves else -self.kl_increment
            model.target_kl = _moved(model.target_kl, change, self.kl_bounds)
            now.append(f"target_kl={model.target_kl:.4g}")
        if self.adapts_steps:
            change = -self.steps_increment if improves else self.steps_increment
            model.target_steps = _moved(model.target_steps, change, self.steps_bounds)
            now.append(f"target_steps={model.target_steps}")
        if self.verbose >= 1:
            print(f"The policy {'improves' if improves else 'does not improve'}: {', '.join(now)}")


def _n_adaptive(callback: BaseCallback) -> int:
    """:return: how many callbacks adapt the trust region, of those in a list or of a single one"""
    if isinstance(callback, CallbackList):
        return sum(map(_n_adaptive, callback.callbacks))
    return int(isinstance(callback, AdaptiveTrustRegion))


def _moved(value: Any, change: Any, bounds: tuple[Any, Any]) -> Any:
    """:return: a value after a change, as far as that leads towards the bounds or stays within them"""
    lowest, highest = bounds
    if change > 0:
        return max(value, min(value + change, highest))
    return min(value, max(value + change, lowest))
