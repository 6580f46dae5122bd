"""Algorithms of sb3-contrib on samplers."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from off_policy_pairs import Walk, tiny
from oracle import assert_same_policies
from sb3_contrib import QRDQN, TQC, CrossQ
from stable_baselines3.common.env_util import make_vec_env

from sb3_walle import AsyncCrossQ, AsyncPPO, AsyncQRDQN, AsyncSAC, AsyncTQC, AsyncTRPO
from sb3_walle.backends.supervision import Supervision
from sb3_walle.collection.modes import MODES
from sb3_walle.samplers.actors.numpy_exploring_export import why_not_numpy
from sb3_walle.samplers.actors.predictor_choice import predictor_spec

PAIRS = {
    "TQC": (TQC, AsyncTQC, Walk),
    "QR-DQN": (QRDQN, AsyncQRDQN, "CartPole-v1"),
    "CrossQ": (CrossQ, AsyncCrossQ, Walk),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_they_learn_in_every_mode(pair: tuple[Any, Any, Any], mode: str) -> None:
    _, ours, env = pair
    with ours("MlpPolicy", env, n_samplers=3, mode=mode, backend="inline", **tiny()) as model:
        model.learn(90)
        assert model._n_updates > 0 and model.num_timesteps >= 90


def test_crossq_is_always_eager() -> None:
    with pytest.raises(ValueError, match="AsyncCrossQ has no compiled update"):
        AsyncCrossQ("MlpPolicy", Walk, n_samplers=1, backend="inline", learner="compiled", **tiny())


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_models_are_saved_and_loaded_in_both_directions(pair: tuple[Any, Any, Any], tmp_path: Path) -> None:
    original, ours, env = pair
    choices: dict[str, Any] = {"n_samplers": 2, "backend": "inline"}
    with ours("MlpPolicy", env, **choices, **tiny()) as model:
        model.learn(40).save(tmp_path / "ours")
    theirs = original.load(tmp_path / "ours", env=make_vec_env(env, 2))
    assert type(theirs) is original
    assert_same_policies(model, theirs)
    theirs.learn(40, reset_num_timesteps=False).save(tmp_path / "theirs")
    with ours.load(tmp_path / "theirs", env=env, **choices) as loaded:
        assert_same_policies(theirs, loaded)
        assert loaded.learn(40, reset_num_timesteps=False).num_timesteps == 120


@pytest.mark.parametrize("pair", [PAIRS["TQC"], PAIRS["QR-DQN"]], ids=["TQC", "QR-DQN"])
def test_numpy_chooses_the_actions_of_the_policy(pair: tuple[Any, Any, Any]) -> None:
    original, _, env = pair
    policy = original("MlpPolicy", make_vec_env(env, 1), **tiny()).policy
    assert why_not_numpy(policy, None) is None
    predictor = predictor_spec(policy, "auto", True, 0.0, ()).build(100, 0)
    observations = 20 * np.random.default_rng(0).normal(size=(100, *policy.observation_space.shape)).astype(np.float32)
    expected, _ = policy.predict(observations, deterministic=True)
    found = predictor.predict(observations, np.zeros(100, dtype=bool))
    assert "NumPy" in type(predictor).__name__ and len(np.unique(found, axis=0)) > 1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_numpy_says_which_part_it_cannot_run() -> None:
    policy = CrossQ("MlpPolicy", make_vec_env(Walk, 1), **tiny()).policy
    assert "CrossQPolicy is none of SACPolicy, TD3Policy, DQNPolicy, TQCPolicy, QRDQNPolicy" in why_not_numpy(
        policy, None
    )
    policy = TQC("MlpPolicy", make_vec_env(Walk, 1), use_sde=True, **tiny()).policy
    assert why_not_numpy(policy, None) == "it uses gSDE"


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
        (AsyncTQC, {}, False),
        (AsyncTQC, {"use_sde": True}, True),
        (AsyncTRPO, {}, False),
        (AsyncCrossQ, {}, True),
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
