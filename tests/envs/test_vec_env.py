"""SamplerVecEnv is a VecEnv like SB3's own."""

import gc
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from toy_envs import (
    DictEnv,
    FailingEnv,
    Locked,
    RandomWalk,
    StampedEnv,
    locked_env_with_a_limit,
    randomly_stamped_env,
)

from sb3_walle import AsyncPPO, SamplerError, SamplerVecEnv

BACKENDS = ["inline", "process", "ray"]


def compare(found: Any, expected: Any) -> None:
    """Recursively, apart from the wall-clock time of an episode, which differs between any two runs."""
    if isinstance(expected, dict):
        assert isinstance(found, dict) and found.keys() == expected.keys()
        for key in expected.keys() - {"t"}:
            compare(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            compare(one, other)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("env", "backend"),
    [
        ("CartPole-v1", "inline"),
        ("Pendulum-v1", "process"),
        (RandomWalk, "inline"),
        *((DictEnv, backend) for backend in BACKENDS),
    ],
)
def test_lockstep_equals_dummy_vec_env(env: Any, backend: str) -> None:
    # Enough for ends of episodes: those of Pendulum have 200 steps, those of DictEnv nine.
    n_steps = 60 if backend == "ray" else 230
    settings = {"envs_per_sampler": 2, "backend": backend}
    ours = make_vec_env(env, 4, seed=5, vec_env_cls=SamplerVecEnv, vec_env_kwargs=settings)
    oracle = make_vec_env(env, 4, seed=5)
    rng = np.random.default_rng(0)
    assert ours.num_envs == 4
    assert (ours.observation_space, ours.action_space) == (oracle.observation_space, oracle.action_space)
    assert ours.render_mode == oracle.render_mode
    compare(ours.reset(), oracle.reset())
    for _ in range(n_steps):
        oracle.action_space.seed(int(rng.integers(1000)))
        actions = np.stack([oracle.action_space.sample() for _ in range(4)])
        compare(ours.step(actions), oracle.step(actions))
    compare(ours.reset_infos, oracle.reset_infos)
    ours.set_options({"wind": 3})
    oracle.set_options({"wind": 3})
    compare(ours.reset(), oracle.reset())
    compare(ours.reset_infos, oracle.reset_infos)
    ours.close()


@pytest.mark.parametrize("backend", ["inline", "process"])
def test_attributes_and_methods_reach_the_environments(backend: str) -> None:
    with SamplerVecEnv([partial(StampedEnv, i) for i in range(6)], envs_per_sampler=2, backend=backend) as env:
        assert env.get_attr("identity") == list(range(6))
        assert env.get_attr("identity", indices=[4, 1, 5]) == [4, 1, 5]
        assert env.get_attr("identity", indices=-1) == [5]
        assert env.env_method("set_difficulty", 3, indices=[0, 3]) == [0, 0]
        assert env.get_attr("difficulty") == [3, 0, 0, 3, 0, 0]
        assert env.env_method("set_difficulty", difficulty=1) == [3, 0, 0, 3, 0, 0]
        env.set_attr("colour", "red", indices=2)
        assert env.get_attr("colour", indices=2) == ["red"]
        assert env.has_attr("identity") and not env.has_attr("colour")
        with pytest.raises(AttributeError, match="no_such_thing"):
            env.get_attr("no_such_thing")
        assert env.env_is_wrapped(Monitor) == [True] * 6
        assert env.env_is_wrapped(gym.wrappers.TimeLimit, indices=[0, 1]) == [False] * 2
        env.reset()
        assert env.step(np.zeros(6, dtype=int))[0].shape == (6, 3)


class Painting(StampedEnv):
    """Shows its identity as a colour."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012
    render_mode = "rgb_array"

    def render(self) -> np.ndarray:
        return np.full((2, 2, 3), self.identity, dtype=np.uint8)


def test_images_of_all_environments_are_tiled() -> None:
    with SamplerVecEnv([lambda i=i: Painting(i) for i in range(4)], backend="inline") as env:
        image = env.render("rgb_array")
        assert image is not None and image.shape == (4, 4, 3) and set(image.ravel()) == {0, 1, 2, 3}


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_exception_arrives_with_the_samplers_number_and_traceback(backend: str) -> None:
    with SamplerVecEnv([StampedEnv, StampedEnv, partial(FailingEnv, fails_at=2)], backend=backend) as env:
        env.reset()
        env.step(np.zeros(3, dtype=int))
        with pytest.raises(SamplerError, match=r"Sampler 2 failed while stepping") as caught:
            env.step(np.zeros(3, dtype=int))
        assert "in step\n    raise ArithmeticError" in str(caught.value)
        assert isinstance(caught.value.__cause__, ArithmeticError)
        # The samplers are still there.
        assert env.reset().shape == (3, 3)


@pytest.mark.parametrize("backend", ["inline", "process"])
def test_a_factory_that_raises_fails_the_constructor_with_its_own_traceback(backend: str) -> None:
    def no_such_robot() -> gym.Env:
        raise FileNotFoundError("robot.xml")

    with pytest.raises(SamplerError, match=r"Sampler 1 failed while building") as caught:
        SamplerVecEnv([StampedEnv, no_such_robot], backend=backend)
    assert "in no_such_robot" in str(caught.value)
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_what_cannot_be_pickled_is_an_error_in_a_sentence_and_not_the_end() -> None:
    with SamplerVecEnv([Locked], backend="process") as env:
        with pytest.raises(SamplerError, match="while sending its answer") as caught:
            env.get_attr("lock")
        assert isinstance(caught.value.__cause__, TypeError)
        assert str(caught.value.__cause__).startswith(
            "The attribute 'lock' is of <class '_thread.lock'> and cannot be pickled, which it must be to leave the "
            "sampler's process: cannot pickle '_thread.lock' object. Let a method of the environment return the parts"
        )
        with pytest.raises(SamplerError, match=r"What the method 'get_lock' returned is of <class '_thread.lock'>"):
            env.env_method("get_lock")
        assert env.get_attr("identity") == [0]


@pytest.mark.parametrize("backend", ["inline", "process"])
def test_whether_there_is_an_attribute_is_asked_and_nothing_is_fetched(backend: str) -> None:
    oracle = make_vec_env(locked_env_with_a_limit, 2)
    with SamplerVecEnv([locked_env_with_a_limit] * 2, backend=backend) as ours:
        for env in (oracle, ours):
            env.set_attr("of_one", 1, indices=[1])
        names = ("lock", "identity", "of_wrapper", "of_one", "step", "spec", "missing", "broken", "_max_episode_steps")
        expected = {name: oracle.has_attr(name) for name in names}
        assert {name: ours.has_attr(name) for name in names} == expected
        assert {VecNormalize(ours).has_attr(name) for name in ("lock", "identity")} == {True}
    assert {name for name, has in expected.items() if not has} == {"of_one", "missing", "broken"}


@pytest.mark.parametrize(
    ("env_fns", "kwargs", "message"),
    [
        ([], {}, "env_fns must be"),
        (["CartPole-v1"], {}, "env_fns must be"),
        ([StampedEnv] * 3, {"envs_per_sampler": 2}, "cannot be divided"),
        ([StampedEnv], {"envs_per_sampler": 0}, "cannot be divided"),
        ([StampedEnv], {"backend": "cloud"}, "backend must be one of"),
    ],
)
def test_wrong_arguments_fail_at_once(env_fns: list, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplerVecEnv(env_fns, **kwargs)


def test_spaces_must_agree() -> None:
    with pytest.raises(ValueError, match="same spaces"):
        SamplerVecEnv([StampedEnv, RandomWalk], backend="inline")


@pytest.mark.parametrize("backend", ["inline", "process"])
def test_a_closed_environment_says_so(backend: str) -> None:
    env = SamplerVecEnv([StampedEnv], backend=backend)
    env.close()
    env.close()
    with pytest.raises(SamplerError, match="closed"):
        env.reset()


def test_garbage_collection_ends_the_processes() -> None:
    """The fixture in conftest.py looks for processes that are left."""
    env: VecEnv | None = SamplerVecEnv([StampedEnv] * 2)
    model: AsyncPPO | None = AsyncPPO("MlpPolicy", env, n_steps=64)
    model.learn(128)
    del env, model
    gc.collect()


def test_samplers_draw_different_random_numbers() -> None:
    with SamplerVecEnv([randomly_stamped_env] * 4) as env:
        assert len(set(env.get_attr("identity"))) == 4


@pytest.mark.parametrize("backend", ["inline", "process"])
def test_a_trained_model_can_be_evaluated_on_its_own_environments(backend: str) -> None:
    env = SamplerVecEnv([RandomWalk] * 2, backend=backend)
    model = AsyncPPO("MlpPolicy", env, n_steps=64)
    model.learn(128)
    rewards, lengths = evaluate_policy(model, model.get_env(), n_eval_episodes=4, return_episode_rewards=True)
    assert len(rewards) == 4 and all(0 < length <= 20 for length in lengths)
    model.learn(256)
    assert model.num_timesteps == 256
    env.close()
