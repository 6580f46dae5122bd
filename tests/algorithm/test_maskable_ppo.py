"""AsyncMaskablePPO: sb3-contrib's MaskablePPO, with samplers that ask environments which actions are valid."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from contrib_pairs import assert_same_training
from gymnasium import spaces
from masked_env import MASKABLE, MaskedEnv, sizes_of
from oracle import TINY, assert_same_policies
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer
from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize
from toy_envs import RandomWalk

from sb3_walle import AsyncEvalCallback, AsyncMaskablePPO, SamplerError, SamplerVecEnv
from sb3_walle.collection.modes import MODES

DISCRETE = partial(MaskedEnv, MASKABLE["discrete"])
SAME = partial(assert_same_training, MaskablePPO, AsyncMaskablePPO, further_arrays=["action_masks"])


def ours(env: Any = DISCRETE, policy: str = "MlpPolicy", **arguments: Any) -> AsyncMaskablePPO:
    return AsyncMaskablePPO(policy, env, **{**TINY, "n_samplers": 2, "backend": "inline", **arguments})


def masker(env: MaskedEnv) -> np.ndarray:
    return env.action_masks()


def hidden_masks() -> ActionMasker:
    """An environment whose masks have another name, and come from a wrapper."""
    return ActionMasker(DISCRETE(), masker)


@pytest.mark.parametrize("name", MASKABLE)
def test_training_equals_that_of_sb3_contrib(name: str) -> None:
    SAME("MlpPolicy", partial(MaskedEnv, MASKABLE[name]))


def test_training_equals_on_dictionaries_in_another_process() -> None:
    parts = spaces.Dict({"a": spaces.Box(-1, 1, (2,), np.float32), "b": spaces.Discrete(3)})
    SAME("MultiInputPolicy", partial(MaskedEnv, MASKABLE["several discrete"], parts), backend="process")


def test_training_equals_with_an_action_masker() -> None:
    SAME("MlpPolicy", hidden_masks)


class DoublingBuffer(MaskableRolloutBuffer):
    """A buffer class of a user's own, whose ``add()`` changes what it is given."""

    def add(self, *args: Any, action_masks: np.ndarray | None = None, **kwargs: Any) -> None:
        observation, action, reward, *rest = args
        assert action_masks is not None
        super().add(observation, action, 2 * reward, *rest, action_masks=action_masks, **kwargs)


def test_training_equals_with_a_buffer_of_ones_own() -> None:
    SAME("MlpPolicy", DISCRETE, rollout_buffer_class=DoublingBuffer)


@pytest.mark.parametrize("actor", ["torch", "numpy"])
def test_masks_reach_through_vec_normalize(actor: str) -> None:
    with ours(hidden_masks, actor=actor, normalize=True) as model:
        assert isinstance(model.get_env(), VecNormalize)
        model.learn(48)
        assert 0.2 < model.rollout_buffer.action_masks.mean() < 0.9


class EqualEpisodes(MaskedEnv):
    """All of six steps."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, _, is_over, info = super().step(action)
        return observation, reward, False, is_over, info


EPISODES: dict[str, Any] = {"rollout": "episodes", "target_steps": 12, "max_episode_steps": 7}


def test_training_equals_with_whole_episodes() -> None:
    SAME("MlpPolicy", partial(EqualEpisodes, MASKABLE["bits"]), n_envs=1, in_place_of_n_steps=EPISODES)


def test_a_last_minibatch_of_one_sample_does_no_harm() -> None:
    """sb3-contrib divides its advantage by a deviation that is not a number."""
    settings = {**TINY, **EPISODES, "target_steps": 6, "batch_size": 5, "mode": "sync", "n_samplers": 2}
    assert_learns_finite_weights(settings)


@pytest.mark.parametrize("mode", ["sync", "pipelined"])
def test_a_rollout_of_one_sample_does_no_harm(mode: str) -> None:
    settings = {**TINY, **EPISODES, "target_steps": 1, "max_episode_steps": 1, "mode": mode, "n_samplers": 2}
    with pytest.warns(UserWarning, match="within 1 steps and was truncated"):
        assert_learns_finite_weights(settings)


def assert_learns_finite_weights(settings: dict[str, Any]) -> None:
    del settings["n_steps"]
    env = partial(EqualEpisodes, MASKABLE["discrete"])
    with AsyncMaskablePPO("MlpPolicy", env, backend="inline", **settings) as model:
        before = copy.deepcopy(model.policy.state_dict())
        model.learn(2 * settings["target_steps"])
        assert model.batch_size == settings["batch_size"] and model.normalize_advantage
        for name, weights in model.policy.state_dict().items():
            assert th.isfinite(weights).all() and not th.equal(weights, before[name])


def test_training_without_masks_equals() -> None:
    def learn(model: Any, callback: BaseCallback) -> None:
        model.learn(3 * model.n_steps * 2, callback, use_masking=False)

    SAME("MlpPolicy", partial(MaskedEnv, MASKABLE["bits"], is_strict=False), learn=learn)


class Checked(AsyncMaskablePPO):
    """For a learning rate of 0, with which all policies are the same."""

    n_lagging = 0

    def _correct_for_policy_lag(self) -> None:
        behaviour = self.rollout_buffer.log_probs.copy()
        super()._correct_for_policy_lag()
        self.n_lagging += 1
        np.testing.assert_allclose(behaviour, self.rollout_buffer.log_probs, atol=1e-4)
        assert behaviour.std() > 0.1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MASKABLE)
def test_numpy_takes_valid_actions_with_the_probabilities_of_the_policy(name: str, mode: str) -> None:
    """MaskedEnv refuses any other action; log-probabilities and values are those that the policy computes."""
    with Checked(
        "MlpPolicy",
        partial(MaskedEnv, MASKABLE[name]),
        **{**TINY, "n_samplers": 2, "envs_per_sampler": 2, "backend": "inline", "learning_rate": 0.0, "mode": mode},
    ) as model:
        model.sampler_actor = "numpy"
        model.learn(4 * 12 * 4)
        assert model.n_lagging == (0 if mode == "sync" else 3) or mode == "free"
        buffer = model.rollout_buffer
        assert buffer.action_masks.shape[-1] == sum(sizes_of(MASKABLE[name])) and 0.2 < buffer.action_masks.mean() < 0.9


@pytest.mark.parametrize("mode", [gym.vector.AutoresetMode.SAME_STEP, gym.vector.AutoresetMode.NEXT_STEP])
def test_vectorised_environments_are_asked_row_by_row(mode: gym.vector.AutoresetMode) -> None:
    def vectorised(n_envs: int) -> gym.vector.VectorEnv:
        return gym.vector.SyncVectorEnv([DISCRETE] * n_envs, autoreset_mode=mode)

    with ours(vectorised, envs_per_sampler=3) as model:
        model.learn(2 * 12 * 6)
        assert 0.2 < model.rollout_buffer.action_masks.mean() < 0.9


class NoneValid(MaskedEnv):
    """Calls no action valid. For sb3-contrib, each is as likely then."""

    def action_masks(self) -> np.ndarray:
        return np.zeros(sum(sizes_of(self.action_space)), bool)


@pytest.mark.parametrize("actor", ["torch", "numpy"])
def test_where_no_action_is_valid_each_is_as_likely(actor: str) -> None:
    space = MASKABLE["several discrete"]
    with ours(lambda: NoneValid(space, is_strict=False), actor=actor, n_steps=100, mode="sync") as model:
        with th.no_grad():
            model.policy.action_net.bias.copy_(th.arange(9.0))
        model.learn(200)
        actions = model.rollout_buffer.actions.reshape(-1, 3)
    for part, size in enumerate(sizes_of(space)):
        shares = np.bincount(actions[:, part].astype(int), minlength=size) / len(actions)
        np.testing.assert_allclose(shares, 1 / size, atol=0.15)


def test_what_numpy_cannot_run_torch_does() -> None:
    image = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    with ours(lambda: MaskedEnv(MASKABLE["discrete"], image), policy="CnnPolicy", mode="sync") as model:
        assert model.learn(24).num_timesteps == 24
    with (
        pytest.raises(ValueError, match=r"actor='numpy' cannot run this policy: its features extractor is a NatureCNN"),
        ours(lambda: MaskedEnv(MASKABLE["discrete"], image), policy="CnnPolicy", actor="numpy"),
    ):
        pass


def test_an_environment_without_masks_gets_the_error_of_sb3_contrib() -> None:
    class Unmasked(RandomWalk):
        action_space = spaces.Discrete(2)

    with ours(Unmasked) as model, pytest.raises(ValueError, match=r"Consider using ActionMasker wrapper"):
        model.learn(24)


class Short(MaskedEnv):
    def action_masks(self) -> np.ndarray:
        return super().action_masks()[1:]


def test_masks_of_another_length_are_an_error_that_names_both() -> None:
    with (
        ours(lambda: Short(MASKABLE["discrete"])) as model,
        pytest.raises(SamplerError, match=r"action_masks\(\) of environment \d returned 4 values.* needs 5"),
    ):
        model.learn(24)


class Shown(BaseCallback):
    """Keeps the masks that callbacks are shown."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[Any] = []

    def _on_step(self) -> bool:
        self.masks.append(copy.deepcopy(self.locals["action_masks"]))
        return True


def test_callbacks_are_shown_the_masks() -> None:
    with ours() as model:
        model.learn(24, callback=(shown := Shown()))
        learned = model.rollout_buffer.action_masks.reshape(2, 12, 5)
    np.testing.assert_array_equal(np.stack(shown.masks, axis=1), learned)


class ShownEpisodes(Shown):
    """Those of the last rollout, and which steps were made."""

    def _on_rollout_start(self) -> None:
        self.masks, self.made = [], list[np.ndarray]()

    def _on_step(self) -> bool:
        self.made.append(self.locals["step_made"].copy())
        return super()._on_step()


def test_masks_of_whole_episodes_are_shown_and_learned_from() -> None:
    settings = {**TINY, **EPISODES, "n_samplers": 3, "backend": "inline", "learning_rate": 0.0, "actor": "numpy"}
    del settings["n_steps"]
    with Checked("MlpPolicy", partial(MaskedEnv, MASKABLE["several discrete"]), **settings) as model:
        model.learn(80, callback=(shown := ShownEpisodes()))
        learned = model.rollout_buffer.action_masks.reshape(-1, 9)
    assert model.n_lagging > 2
    masks, made = np.stack(shown.masks, axis=1), np.stack(shown.made, axis=1)
    np.testing.assert_array_equal(masks[made], learned)
    assert not masks[~made].any()


def inline() -> SamplerVecEnv:
    return SamplerVecEnv([DISCRETE], backend="inline")


@pytest.mark.parametrize("deterministic", [True, False])
def test_evaluation_uses_masks(deterministic: bool, tmp_path: Path) -> None:
    """MaskedEnv refuses what a policy without masks would do."""
    callbacks = [
        MaskableEvalCallback(make_vec_env(DISCRETE, 1), eval_freq=6, verbose=0, deterministic=deterministic),
        AsyncEvalCallback(inline(), eval_freq=6, verbose=0, deterministic=deterministic),
    ]
    with ours() as model:
        model.learn(48, callback=callbacks)
        assert evaluate_policy(model, make_vec_env(DISCRETE, 1), warn=False)[1] >= 0
    assert all(np.isfinite(callback.last_mean_reward) for callback in callbacks)


def test_models_load_in_sb3_contrib_and_the_other_way_round(tmp_path: Path) -> None:
    with ours() as model:
        model.learn(24).save(tmp_path / "ours")
        theirs = MaskablePPO.load(tmp_path / "ours", make_vec_env(DISCRETE, 2))
        assert_same_policies(model, theirs)
    theirs.learn(24).save(tmp_path / "theirs")
    with AsyncMaskablePPO.load(tmp_path / "theirs", DISCRETE, n_samplers=2, backend="inline") as back:
        assert_same_policies(theirs, back)
        assert back.learn(24).num_timesteps == 24


def test_it_trains_without_samplers_as_sb3_contrib() -> None:
    class Foreign(type(make_vec_env(DISCRETE, 1))):  # type: ignore[misc]
        """A VecEnv that stays where it is."""

    def trained(algorithm: Any) -> Any:
        np.random.seed(0)
        env = Foreign([DISCRETE] * 2)
        env.seed(1)
        return algorithm("MlpPolicy", env, **TINY).learn(48)

    assert_same_policies(trained(MaskablePPO), trained(AsyncMaskablePPO))
