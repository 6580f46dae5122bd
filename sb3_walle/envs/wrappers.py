"""What was put around a SamplerVecEnv, as something that samplers can do themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecEnv,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
    VecVideoRecorder,
    unwrap_vec_normalize,
)
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from sb3_walle.envs.normalization import normalizer_spec
from sb3_walle.envs.vec_env import SamplerVecEnv
from sb3_walle.samplers.normalizer import WHOLE
from sb3_walle.samplers.stack import LayerSpec
from sb3_walle.samplers.vec_wrappers import StockWrapper
from sb3_walle.samplers.video import VideoRecorderSpec

NormalizeArgument: TypeAlias = bool | dict[str, Any]


@dataclass(frozen=True)
class WrappedSamplers:
    """
    Samplers and what is around them.

    :param layers: what samplers do in place of the wrappers, from the inside to the outside
    :param observation_space: what the policy observes, with the data types that it comes in
    """

    vec_env: SamplerVecEnv
    layers: tuple[LayerSpec, ...]
    observation_space: spaces.Space
    vec_normalize: VecNormalize | None
    monitors: tuple[VecMonitor, ...]
    video_recorders: tuple[VecVideoRecorder, ...]


def chain_of(env: VecEnv) -> tuple[VecEnv, list[VecEnvWrapper]]:
    """:return: what is inside of all wrappers, and the wrappers from the inside to the outside"""
    wrappers: list[VecEnvWrapper] = []
    while isinstance(env, VecEnvWrapper):
        wrappers.insert(0, env)
        env = env.venv
    return env, wrappers


def put_around(wrapper: VecEnvWrapper, env: VecEnv) -> None:
    """Exchange what is inside of a wrapper."""
    wrapper.venv = env
    if isinstance(wrapper, VecVideoRecorder):
        # What it renders.
        wrapper.env = env


def wrapped_samplers(env: VecEnv | None) -> WrappedSamplers | None:
    """
    :return: the samplers and what is around them; ``None`` if there are no samplers inside
    :raises ValueError: if they are inside of a wrapper that samplers cannot run
    :raises TypeError: if a wrapper cannot be around the vectorised environments that samplers have
    """
    if env is None:
        return None
    samplers, wrappers = chain_of(env)
    if not isinstance(samplers, SamplerVecEnv):
        return None
    layers = layers_of(wrappers)
    if samplers.resets_late:
        for layer in layers:
            if isinstance(layer, StockWrapper):
                layer.check_late_resets()
    space = samplers.observation_space
    for wrapper in wrappers:
        space = _space_above(space, wrapper)
    return WrappedSamplers(
        samplers,
        layers,
        space,
        next((wrapper for wrapper in wrappers if isinstance(wrapper, VecNormalize)), None),
        tuple(wrapper for wrapper in wrappers if isinstance(wrapper, VecMonitor)),
        tuple(wrapper for wrapper in wrappers if isinstance(wrapper, VecVideoRecorder)),
    )


def layers_of(wrappers: list[VecEnvWrapper]) -> tuple[LayerSpec, ...]:
    """
    :param wrappers: from the inside to the outside
    :return: what samplers do in their place
    :raises ValueError: if samplers cannot run one of them
    """
    obstacle = why_not_in_samplers(wrappers)
    if obstacle is not None:
        raise ValueError(obstacle)
    return tuple(_LAYERS[type(wrapper)](wrapper) for wrapper in wrappers)


def why_not_in_samplers(wrappers: list[VecEnvWrapper]) -> str | None:
    """:return: why samplers cannot run these wrappers, and what to do; ``None`` if they can"""
    for wrapper in wrappers:
        name = type(wrapper).__name__
        if type(wrapper) not in _LAYERS:
            known = ", ".join(sorted(kind.__name__ for kind in _LAYERS))
            return (
                f"Samplers step their environments on their own, so they would have to run the {name} around them "
                f"themselves, which they can do with {known}. To run any other wrapper inside of samplers, pass "
                f"SamplerVecEnv(env_fns, vec_wrapper=lambda venv: {name}(venv, ...)), or wrap the environments in the "
                "functions that build them."
            )
    if sum(isinstance(wrapper, VecNormalize) for wrapper in wrappers) > 1:
        return "There is more than one VecNormalize around the samplers. Use one."
    return None


def normalized(env: VecEnv | None, normalize: NormalizeArgument) -> VecEnv | None:
    """
    Put a ``VecNormalize`` around environments, if there are any and the constructor's argument asks for it.

    :raises TypeError: if ``normalize`` is something else
    :raises ValueError: if there is a ``VecNormalize`` already, or it cannot normalise such observations
    """
    if not isinstance(normalize, bool | dict):
        raise TypeError(f"normalize must be True, False or a dictionary of VecNormalize's arguments, got {normalize!r}")
    if env is None or normalize is False:
        return env
    if unwrap_vec_normalize(env) is not None:
        raise ValueError(
            f"normalize={normalize!r} was given, but the environments are inside of a VecNormalize already"
        )
    return VecNormalize(env, **({} if normalize is True else normalize))


def takes_gamma_of_algorithm(normalize: NormalizeArgument) -> bool:
    """:return: whether the constructor's argument asks for a ``VecNormalize`` and gives no discount factor"""
    return normalize is True or (isinstance(normalize, dict) and "gamma" not in normalize)


def _stock(name: str, *argument_names: str) -> Callable[[Any], StockWrapper]:
    """For a wrapper that keeps its constructor's arguments under their names."""
    return lambda wrapper: StockWrapper(
        name, tuple((argument, getattr(wrapper, argument)) for argument in argument_names)
    )


def _frame_stack(wrapper: VecFrameStack) -> StockWrapper:
    stacked = wrapper.stacked_obs
    return StockWrapper("VecFrameStack", (("n_stack", stacked.n_stack), ("channels_order", _channels_order(stacked))))


def _channels_order(stacked: StackedObservations) -> Any:
    if isinstance(stacked.observation_space, spaces.Dict):
        return {key: _channels_order(inner) for key, inner in stacked.sub_stacked_observations.items()}
    return "first" if stacked.channels_first else "last"


def _monitor(wrapper: VecMonitor) -> StockWrapper:
    # No file: the learner's own wrapper writes it. The clock is the same for all processes of a machine.
    return StockWrapper(
        "VecMonitor", (("info_keywords", wrapper.info_keywords),), attributes=(("t_start", wrapper.t_start),)
    )


def _video_recorder(wrapper: VecVideoRecorder) -> VideoRecorderSpec:
    return VideoRecorderSpec(
        wrapper.video_folder,
        wrapper.record_video_trigger,
        wrapper.video_length,
        wrapper.name_prefix,
        cast(float, wrapper.frames_per_sec),
        wrapper.step_id,
        id(wrapper.record_video_trigger),
    )


_LAYERS: dict[type[VecEnvWrapper], Callable[[Any], LayerSpec]] = {
    VecCheckNan: _stock("VecCheckNan", "raise_exception", "warn_once", "check_inf"),
    VecExtractDictObs: _stock("VecExtractDictObs", "key"),
    VecFrameStack: _frame_stack,
    VecMonitor: _monitor,
    VecNormalize: normalizer_spec,
    VecTransposeImage: _stock("VecTransposeImage", "skip"),
    VecVideoRecorder: _video_recorder,
}


def _space_above(space: spaces.Space, wrapper: VecEnvWrapper) -> spaces.Space:
    """
    What a wrapper shows. Its own space tells the shapes, but not always the data types: those of normalised
    observations are not what ``VecNormalize`` declares.
    """
    if isinstance(wrapper, VecNormalize):
        parts = normalizer_spec(wrapper).parts
        return _with_dtypes(
            wrapper.observation_space, {**dtypes_of_parts(space), **dict.fromkeys(parts, np.dtype(np.float32))}
        )
    if isinstance(wrapper, VecFrameStack):
        return wrapper.observation_space
    if isinstance(wrapper, VecExtractDictObs) and isinstance(space, spaces.Dict):
        return space.spaces[wrapper.key]
    return _with_dtypes(wrapper.observation_space, dtypes_of_parts(space))


def dtypes_of_parts(space: spaces.Space) -> dict[str, Any]:
    """:return: the data types of a dictionary's observations, or of the one observation"""
    parts = space.spaces if isinstance(space, spaces.Dict) else {WHOLE: space}
    return {key: part.dtype for key, part in parts.items()}


def _with_dtypes(space: spaces.Space, dtypes: dict[str, Any]) -> spaces.Space:
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: _with_dtype(part, dtypes[key]) for key, part in space.spaces.items()})
    return _with_dtype(space, dtypes[WHOLE])


def _with_dtype(space: spaces.Space, dtype: Any) -> spaces.Space:
    if space.dtype == dtype or not isinstance(space, spaces.Box):
        return space
    return spaces.Box(-np.inf, np.inf, space.shape, dtype)
