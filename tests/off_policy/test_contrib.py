"""Algorithms of sb3-contrib on samplers."""

from collections.abc import Iterable
from typing import Any, ClassVar

import pytest
from off_policy_pairs import Walk, tiny
from oracle import assert_same_policies
from sb3_contrib import QRDQN, TQC
from stable_baselines3.common.env_util import make_vec_env

from sb3_walle import AsyncOffPolicyMixin, AsyncPPO, AsyncSAC
from sb3_walle.backends.supervision import Supervision
from sb3_walle.collection.modes import MODES


class AsyncTQC(AsyncOffPolicyMixin, TQC):
    pass


class AsyncQRDQN(AsyncOffPolicyMixin, QRDQN):
    pass


PAIRS = {"TQC": (TQC, AsyncTQC, Walk), "QR-DQN": (QRDQN, AsyncQRDQN, "CartPole-v1")}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_training_equals_that_of_sb3_contrib(pair: tuple[Any, Any, Any]) -> None:
    original, ours, env = pair
    oracle = original("MlpPolicy", make_vec_env(env, 2), **tiny()).learn(120)
    with ours("MlpPolicy", env, n_samplers=1, envs_per_sampler=2, mode="sync", backend="inline", **tiny()) as model:
        model.learn(120)
        assert_same_policies(oracle, model)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_they_learn_in_every_mode(pair: tuple[Any, Any, Any], mode: str) -> None:
    _, ours, env = pair
    with ours("MlpPolicy", env, n_samplers=3, mode=mode, backend="inline", **tiny()) as model:
        model.learn(90)
        assert model._n_updates > 0 and model.num_timesteps >= 90
    with pytest.raises(ValueError, match=f"{ours.__name__} has no compiled update"):
        ours("MlpPolicy", env, n_samplers=1, backend="inline", learner="compiled", **tiny())


class Launch(Exception):
    """Tells what samplers would have been launched with."""


class BackendThatTells:
    shares_objects: ClassVar[bool] = False

    def n_cpus(self) -> float:
        return 1

    def launch(self, n_samplers: int, preload: Iterable[str], supervision: Supervision) -> Any:
        raise Launch(set(preload))


@pytest.mark.parametrize(
    ("algorithm", "arguments", "loads_torch"),
    [
        (AsyncTQC, {}, True),
        (AsyncSAC, {}, False),
        (AsyncSAC, {"use_sde": True}, True),
        (AsyncPPO, {}, False),
        (AsyncPPO, {"actor": "torch"}, True),
    ],
)
def test_torch_is_loaded_once_for_all_samplers_unless_numpy_runs_the_policy(
    algorithm: Any, arguments: dict[str, Any], loads_torch: bool
) -> None:
    with pytest.raises(Launch) as launch:
        algorithm("MlpPolicy", "Pendulum-v1", n_samplers=2, backend=BackendThatTells(), **arguments)
    assert ("torch" in launch.value.args[0]) == loads_torch
