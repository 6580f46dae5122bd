"""How samplers of off-policy algorithms explore."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from off_policy_pairs import Walk, tiny
from stable_baselines3 import DDPG, DQN, SAC, TD3
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.sac.policies import SACPolicy
from torch import nn

from sb3_walle import AsyncDDPG, AsyncDQN, AsyncSAC, AsyncTD3
from sb3_walle.off_policy.exploration_plan import ladder_noise, ladder_rate
from sb3_walle.off_policy.exploring_specs import choose_actor
from sb3_walle.samplers.actors.exploration import IS_RANDOM, RATE, TRAINING
from sb3_walle.samplers.actors.numpy_actor import NumPyActor
from sb3_walle.samplers.actors.numpy_exploring_export import export_numpy_actor, why_not_numpy
from sb3_walle.samplers.actors.numpy_noise import Noise, NoiseSpec
from sb3_walle.transport.chunk import Chunk, chunk_layout

N_ENVS = 2


def chunk_of(actor_spec: Any, observation_space: spaces.Space, n_steps: int, n_envs: int) -> Chunk:
    layout = chunk_layout(n_steps, n_envs, observation_space, actor_spec.fields(n_steps, n_envs))
    arrays = {field.name: np.zeros(field.shape, field.dtype) for field in layout.fields}
    return Chunk(arrays)


def plan(n_random: int, rate: float = 0.0, n_steps: int = 1, training: int = 1) -> dict[str, np.ndarray]:
    return {
        IS_RANDOM: np.arange(n_steps) < n_random,
        RATE: np.full(n_steps, rate),
        TRAINING: np.array(training),
    }


def exported(
    model: Any, noise: Any = None, fixed_rate: float | None = None, n_steps: int = 1, n_random: int = 0, rate: float = 0
) -> tuple[NumPyActor, Chunk]:
    """An actor for a model's policy, with its weights, and a chunk for it to record in."""
    spec = export_numpy_actor(model.policy, noise, fixed_rate, seed=(5,))
    actor = spec.build(N_ENVS)
    weights = {name: value.numpy() for name, value in model.policy.state_dict().items()}
    actor.load_weights({**weights, **plan(n_random, rate, n_steps)})
    chunk = chunk_of(spec, model.observation_space, n_steps, N_ENVS)
    actor.begin_chunk(chunk)
    return actor, chunk


ACTIVATIONS = [nn.ReLU, nn.Tanh, nn.ELU]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("algorithm", [DDPG, TD3])
def test_deterministic_policies_choose_in_numpy_what_they_choose_in_torch(algorithm: Any, activation: Any) -> None:
    model = algorithm("MlpPolicy", Walk(), policy_kwargs={"net_arch": [9, 5], "activation_fn": activation}, seed=1)
    actor, _ = exported(model)
    observations = np.random.default_rng(0).normal(size=(N_ENVS, 2)).astype(np.float32)
    expected = model.policy.scale_action(model.policy.predict(observations)[0])
    np.testing.assert_allclose(actor.act(observations, 0), expected, atol=1e-5)


def test_dqn_chooses_in_numpy_what_it_chooses_in_torch() -> None:
    model = DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [9, 5]}, seed=1)
    observations = np.random.default_rng(0).normal(size=(50, N_ENVS, 4)).astype(np.float32)
    actor, _ = exported(model, n_steps=50)
    for step, batch in enumerate(observations):
        assert np.array_equal(actor.act(batch, step), model.policy.predict(batch, deterministic=True)[0])


def test_sac_chooses_in_numpy_from_the_distribution_that_it_has_in_torch() -> None:
    model = SAC("MlpPolicy", Walk(), policy_kwargs={"net_arch": [9, 5]}, seed=1)
    n_steps = 4_000
    actor, chunk = exported(model, n_steps=n_steps)
    observations = np.array([[0.5, -1.0], [2.0, 0.1]], np.float32)
    for step in range(n_steps):
        actor.act(observations, step)
    mean, log_std, _ = model.actor.get_action_dist_params(th.from_numpy(observations))
    before_tanh = np.arctanh(np.clip(chunk.actions, -0.999999, 0.999999))
    # Quantiles, which the bounds of float32 do not disturb.
    np.testing.assert_allclose(np.median(before_tanh, axis=0), mean.detach().numpy(), atol=0.1)
    spread = np.subtract(*np.percentile(before_tanh, [75, 25], axis=0)) / 1.349
    np.testing.assert_allclose(spread, log_std.exp().detach().numpy(), rtol=0.1)


def test_actions_are_random_for_as_long_as_planned() -> None:
    model = TD3("MlpPolicy", Walk(), policy_kwargs={"net_arch": [4]}, seed=1)
    n_steps = 1_000
    actor, chunk = exported(model, n_steps=n_steps, n_random=n_steps - 1)
    observations = np.zeros((N_ENVS, 2), np.float32)
    for step in range(n_steps):
        actor.act(observations, step)
    random, last = chunk.actions[:-1], chunk.actions[-1]
    assert random.min() < -0.95 and random.max() > 0.95 and abs(random.mean()) < 0.05
    np.testing.assert_allclose(last, model.policy.scale_action(model.policy.predict(observations)[0]), atol=1e-5)


@pytest.mark.parametrize("fixed_rate", [None, 0.3])
def test_one_action_out_of_so_many_is_random(fixed_rate: float | None) -> None:
    model = DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [4]}, seed=1)
    n_steps, rate = 4_000, 0.6
    actor, chunk = exported(model, fixed_rate=fixed_rate, n_steps=n_steps, rate=rate)
    observations = np.zeros((N_ENVS, 4), np.float32)
    for step in range(n_steps):
        actor.act(observations, step)
    best = model.policy.predict(observations, deterministic=True)[0]
    # Half of the random ones are the best one, too.
    assert (chunk.actions != best).mean() == pytest.approx((fixed_rate or rate) / 2, abs=0.03)


@pytest.mark.parametrize("n_random", [0, 10**9])
def test_normal_noise_is_added_to_scaled_actions(n_random: int) -> None:
    model = TD3("MlpPolicy", Walk(), policy_kwargs={"net_arch": [4]}, seed=1)
    noise = NormalActionNoise(np.array([0.1, -0.1]), np.array([0.05, 0.2]))
    n_steps = 4_000
    actor, chunk = exported(model, noise, n_steps=n_steps, n_random=n_random)
    observations = np.zeros((N_ENVS, 2), np.float32)
    for step in range(n_steps):
        actor.act(observations, step)
    assert np.abs(chunk.actions).max() <= 1.0
    if n_random == 0:
        added = chunk.actions - model.policy.scale_action(model.policy.predict(observations)[0])
        np.testing.assert_allclose(added.mean(axis=(0, 1)), [0.1, -0.1], atol=0.02)
        np.testing.assert_allclose(added.std(axis=(0, 1)), [0.05, 0.2], rtol=0.1)


def test_noise_of_ornstein_and_uhlenbeck_moves_as_in_sb3() -> None:
    parameters: dict[str, Any] = {"theta": 0.3, "dt": 0.04}
    mean, sigma, initial = np.array([0.5, -0.5]), np.array([0.2, 0.1]), np.array([2.0, 0.0])
    sb3s = OrnsteinUhlenbeckActionNoise(mean, sigma, initial_noise=initial, **parameters)
    spec = NoiseSpec(tuple(mean), tuple(sigma), tuple(initial), **parameters)
    ours = Noise(spec, 1, np.random.default_rng(0))
    # The same normal numbers for both.
    normal = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np.random, "normal", lambda size: normal.standard_normal(size, dtype=np.float32))
        for step in range(20):
            if step == 12:
                sb3s.reset()
                ours.reset(np.array([True]))
            np.testing.assert_allclose(ours.next()[:, 0], sb3s(), atol=1e-5)


def test_noise_begins_anew_with_each_episode_of_its_environment_and_with_each_training() -> None:
    model = TD3("MlpPolicy", Walk(), policy_kwargs={"net_arch": [4]}, seed=1)
    noise = OrnsteinUhlenbeckActionNoise(
        np.zeros(2), np.full(2, 1e-9), initial_noise=np.full(2, 0.25), theta=3.0, dt=0.1
    )
    actor, chunk = exported(model, noise, n_steps=8)
    chunk.episode_starts[0] = True
    chunk.episode_starts[5, 1] = True
    observations = np.zeros((N_ENVS, 2), np.float32)
    for step in range(8):
        actor.act(observations, step)
    added = (chunk.actions - model.policy.scale_action(model.policy.predict(observations)[0]))[..., 0]
    decay = 0.25 * 0.7 ** np.arange(1, 9)
    np.testing.assert_allclose(added[:, 0], decay, atol=1e-4)
    np.testing.assert_allclose(added[:, 1], [*decay[:5], *decay[:3]], atol=1e-4)
    weights = {name: value.numpy() for name, value in model.policy.state_dict().items()}
    actor.load_weights({**weights, **plan(0, n_steps=8, training=2)})
    chunk.episode_starts[:] = False
    actor.act(observations, 0)
    assert (chunk.actions[0] - model.policy.scale_action(model.policy.predict(observations)[0]))[0, 0] == pytest.approx(
        decay[0], abs=1e-4
    )


class OverridesPredict(SACPolicy):
    def _predict(self, observation: Any, deterministic: bool = False) -> th.Tensor:
        return -super()._predict(observation, deterministic)


class OwnNoise(NormalActionNoise):
    pass


def nothing(policy: Any) -> None:
    pass


def scale(module: nn.Module) -> None:
    forward = module.forward
    module.forward = lambda *args: 0.5 * forward(*args)  # type: ignore[method-assign]


SOMETHING_ELSE = "it computes something else in torch than its layers do in NumPy"
REASONS: dict[str, tuple[Any, dict[str, Any], Any, Callable[[Any], object], str]] = {
    "gSDE": (SAC, {"use_sde": True}, None, nothing, "it uses gSDE"),
    "activation": (TD3, {"policy_kwargs": {"activation_fn": nn.Hardswish}}, None, nothing, "'Hardswish'"),
    "noise": (TD3, {}, OwnNoise(np.zeros(2), np.ones(2)), nothing, "its action noise is a OwnNoise"),
    "policy": (SAC, {"policy": OverridesPredict}, None, nothing, "OverridesPredict overrides _predict"),
    "own forward of the actor": (TD3, {}, None, lambda policy: scale(policy.actor), "Actor overrides forward"),
    "own forward of the features": (
        SAC,
        {},
        None,
        lambda policy: scale(policy.actor.features_extractor),
        SOMETHING_ELSE,
    ),
    "own forward of the net": (TD3, {}, None, lambda policy: scale(policy.actor.mu), SOMETHING_ELSE),
    "own forward of a layer": (SAC, {}, None, lambda policy: scale(policy.actor.log_std), SOMETHING_ELSE),
    "own forward of Q": (DQN, {"env": "CartPole-v1"}, None, lambda policy: scale(policy.q_net.q_net), SOMETHING_ELSE),
    "spectral norm": (
        SAC,
        {},
        None,
        lambda policy: nn.utils.parametrizations.spectral_norm(policy.actor.mu),
        "its actor.mu is a ParametrizedLinear, not a Linear",
    ),
}


@pytest.mark.parametrize("reason", REASONS.values(), ids=REASONS.keys())
def test_why_numpy_cannot_explore(reason: tuple[Any, dict[str, Any], Any, Callable[[Any], object], str]) -> None:
    algorithm, arguments, noise, change, message = reason
    model = algorithm(**{"policy": "MlpPolicy", "env": Walk(), "buffer_size": 100, **arguments})
    change(model.policy)
    assert message in str(why_not_numpy(model.policy, noise))


def test_rates_of_the_ladder_are_those_of_ape_x() -> None:
    rates = [ladder_rate(sampler, 8) for sampler in range(8)]
    assert rates[0] == pytest.approx(0.4) and rates[-1] == pytest.approx(0.4**8)
    assert np.allclose(np.diff(np.log(rates)), np.log(0.4))
    sigmas = [ladder_noise(sampler, 4, 2)._sigma for sampler in range(4)]
    assert np.allclose(np.transpose(sigmas), [0.05, 0.3, 0.55, 0.8])


@pytest.mark.parametrize("actor", ["numpy", "torch"])
def test_samplers_on_the_ladder_explore_to_different_degrees(actor: str) -> None:
    arguments = tiny(learning_starts=0, gradient_steps=0, backend="inline", actor=actor)
    with AsyncTD3("MlpPolicy", Walk, n_samplers=3, noise_ladder="apex", **arguments) as model:
        for parameter in model.policy.actor.parameters():
            parameter.data.zero_()
        model.learn(900)
        spread = model.replay_buffer.actions[:300].std(axis=(0, 2))
        # What is clipped at 1 varies less.
        np.testing.assert_allclose(spread, [0.05, 0.41, 0.64], atol=0.03)


@pytest.mark.parametrize(
    ("build", "actor"),
    [
        (lambda **kwargs: AsyncSAC("MlpPolicy", Walk, **kwargs), "numpy"),
        (lambda **kwargs: AsyncSAC("MlpPolicy", Walk, use_sde=True, **kwargs), "torch"),
        (lambda **kwargs: AsyncDDPG("MlpPolicy", Walk, **kwargs), "numpy"),
        (lambda **kwargs: AsyncDQN("MlpPolicy", "CartPole-v1", **kwargs), "numpy"),
    ],
)
def test_numpy_runs_what_it_can(build: Any, actor: str) -> None:
    with build(n_samplers=1, backend="inline", buffer_size=100) as model:
        assert choose_actor(model.sampler_actor, model) == actor
