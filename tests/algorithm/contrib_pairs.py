"""The same training with an on-policy algorithm of sb3-contrib and with ours."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

from oracle import BUFFER_ARRAYS, TINY, EnvOrId, assert_same, assert_same_weights, episodes
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

N_ROLLOUTS = 3


class Buffers(BaseCallback):
    """
    Keeps the rollout buffer of every rollout before it is trained on.

    :param names: the buffer's arrays
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names, self.kept = names, list[dict[str, Any]]()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.kept.append(copy.deepcopy({name: getattr(self.model.rollout_buffer, name) for name in self.names}))


def assert_same_training(
    original: Any,
    ours: Any,
    policy: str,
    env: EnvOrId,
    *,
    further_arrays: Sequence[str],
    n_envs: int = 2,
    backend: str = "inline",
    learn: Callable[[Any, BaseCallback], Any] | None = None,
    **settings: Any,
) -> None:
    """
    Train both, and compare to the last bit what rollout buffers, episodes and weights show.

    :param further_arrays: what the buffer has beyond that of SB3
    :param learn: trains a model, by default for some rollouts
    :param settings: arguments of both, added to those of ``TINY``
    """
    settings = {**TINY, **settings}
    learn = learn or (lambda model, callback: model.learn(N_ROLLOUTS * model.n_steps * n_envs, callback=callback))
    names = (*BUFFER_ARRAYS, *further_arrays)
    expected, found = Buffers(names), Buffers(names)
    oracle = original(policy, make_vec_env(env, n_envs), **copy.deepcopy(settings))
    learn(oracle, expected)
    choices = {"mode": "sync", "actor": "torch", "learner": "eager"}
    with ours(policy, env, n_samplers=1, envs_per_sampler=n_envs, backend=backend, **choices, **settings) as model:
        learn(model, found)
        assert model.num_timesteps == oracle.num_timesteps
        assert len(expected.kept) >= N_ROLLOUTS
        assert_same(expected.kept, found.kept, "rollout_buffer")
        assert episodes(model) == episodes(oracle) != []
        assert_same_weights(oracle, model)
