"""A SubprocVecEnv, which cannot give its environments away, and what to write in its place."""

import re

import gymnasium as gym
from stable_baselines3.common.vec_env import SubprocVecEnv

# How Gymnasium's text of an environment ends, whatever its wrappers: <Monitor<TimeLimit<CartPoleEnv<CartPole-v1>>>>
_ID_IN_TEXT = re.compile(r"<([^<>]+)>+$")


def what_to_write_instead(venv: SubprocVecEnv) -> str:
    """:return: how samplers collect from as many of the same environments, as far as these tell what they are"""
    n_envs, env_id = venv.num_envs, _common_id(venv)
    if env_id is None:
        return (
            f"Replace SubprocVecEnv by SamplerVecEnv: make_vec_env(..., n_envs={n_envs}, vec_env_cls=SamplerVecEnv), "
            f"or SamplerVecEnv(env_fns) with the same {n_envs} functions."
        )
    return (
        f'Replace SubprocVecEnv by SamplerVecEnv: make_vec_env("{env_id}", n_envs={n_envs}, '
        f'vec_env_cls=SamplerVecEnv), or pass env="{env_id}", n_envs={n_envs} to the algorithm.'
    )


def _common_id(venv: SubprocVecEnv) -> str | None:
    """The id of the environments, ``None`` if it is unknown, or not the same for all of them."""
    if venv.closed or venv.waiting:
        # They do not answer, or answer the step first.
        return None
    try:
        # Not their spec: a process that cannot pickle it ends.
        texts = venv.env_method("__str__")
    except (EOFError, OSError):
        # One of the processes is dead.
        return None
    ids = {found.group(1) if (found := _ID_IN_TEXT.search(str(text))) else None for text in texts}
    env_id = ids.pop() if len(ids) == 1 else None
    return env_id if env_id in gym.registry else None
