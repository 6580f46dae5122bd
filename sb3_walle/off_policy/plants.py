"""What users tell of plants in mode "realtime", checked."""

from numbers import Real
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_walle.algorithm.info_needs import called_by
from sb3_walle.backends import check_drives_plants
from sb3_walle.envs.vec_env import SamplerVecEnv
from sb3_walle.realtime.fallback import FallbackAction, check_fallback, check_fallback_in

#: what algorithms are told of plants
ARGUMENTS = ("control_hz", "fallback_action", "max_replay_ratio")


def check_realtime_arguments(is_realtime: bool, given: dict[str, Any]) -> None:
    """
    :param is_realtime: whether the mode is ``"realtime"``
    :param given: the arguments of that mode by name
    :raises ValueError: if one of them is wrong, or has no meaning in the mode
    """
    for name, value in given.items():
        if value is None:
            continue
        if not is_realtime:
            raise ValueError(
                f"{name} has a meaning with mode='realtime' only. Add that, or leave out {name}={value!r}."
            )
        if name != "fallback_action":
            _check_positive(name, value)
    if is_realtime:
        check_fallback(given["fallback_action"])


def _check_positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < float("inf"):
        raise ValueError(f"{name} must be a number above 0, or None, got {value!r}")


def check_plants(samplers: SamplerVecEnv | None, fallback_action: FallbackAction) -> None:
    """
    :param samplers: the environments, ``None`` if they are in no samplers
    :raises ValueError: if they cannot be acted on in real time
    """
    if samplers is None:
        raise ValueError(
            "mode='realtime' needs environments in samplers: pass an env id or a function that builds one."
        )
    if samplers.envs_per_sampler != 1:
        raise ValueError(
            f"In mode='realtime' each sampler acts on one plant, and here are envs_per_sampler="
            f"{samplers.envs_per_sampler}: the actions of one would wait for the steps of the others."
        )
    if samplers.is_vectorized:
        raise ValueError(
            "mode='realtime' acts on single environments, and this one is vectorised: pass a function without a "
            "number, which builds one environment."
        )
    check_drives_plants(samplers.backend)
    if samplers.on_failure is None or samplers.client.supervision.samplers_give_way:
        raise ValueError(
            "These samplers were not started for mode='realtime'. Pass two arguments to SamplerVecEnv: "
            "on_failure='raise', or 'restart' if a restart may reset an unattended plant; and samplers_give_way=False, "
            "because here the learner gives way."
        )
    check_fallback_in(samplers.action_space, fallback_action)


def check_callbacks(callback: BaseCallback, env: VecEnv | None) -> None:
    """
    :raises ValueError: if one of the callbacks evaluates on the plant that the model acts on
    """
    if isinstance(callback, EvalCallback) and env is not None and callback.eval_env.unwrapped is env.unwrapped:
        raise ValueError(
            f"{type(callback).__name__} would evaluate on the plant that mode='realtime' acts on, and there is only "
            "one of it: two policies would act on it in turn. Evaluate on a simulated plant, or after learn() with "
            "evaluate_policy(model, model.get_env())."
        )
    for inner in called_by(callback):
        check_callbacks(inner, env)
