"""Environments of which Gymnasium pickles the constructor's arguments only travel with what was changed in them."""

import random
import threading
import types
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.utils import EzPickle

from sb3_walle.samplers.factories import PickledEnv, factory_from_env
from sb3_walle.samplers.factories.edits import reduce_with_edits
from sb3_walle.samplers.refusals import EditedEnvError


def supported(env_id: str) -> bool:
    try:
        gym.make(env_id).close()
    except ImportError:
        return False
    return True


MUJOCO_IDS = [
    env_id
    for env_id, spec in gym.registry.items()
    if isinstance(spec.entry_point, str) and "mujoco" in spec.entry_point and supported(env_id)
]
pytestmark = pytest.mark.filterwarnings("ignore:.*out of date")


def copy_of(env: gym.Env) -> gym.Env:
    factory = factory_from_env(env)
    assert isinstance(factory, PickledEnv)
    return factory()


def edited(env: gym.Env) -> set[str]:
    """What travels in addition to the arguments of the constructor."""
    edits = reduce_with_edits(env.unwrapped)[2] or []
    return {".".join(edit.path) for edit in edits}


def life(env: gym.Env, seed: int | None = 3) -> list[np.ndarray]:
    observations = [env.reset(seed=seed)[0]]
    actions = np.random.default_rng(0)
    space = env.action_space
    for _ in range(10):
        action = actions.integers(2) if isinstance(space, gym.spaces.Discrete) else actions.uniform(-1, 1, space.shape)
        observations.append(env.step(action)[0])
    return observations


def test_there_are_mujoco_environments() -> None:
    assert {"HalfCheetah-v4", "HalfCheetah-v5", "Ant-v5", "Humanoid-v5", "Pusher-v5"} <= set(MUJOCO_IDS)


@pytest.mark.parametrize("env_id", MUJOCO_IDS)
def test_environments_that_were_made_reset_and_stepped_were_not_edited(env_id: str) -> None:
    env = gym.make(env_id)
    harmless = {"spec", "mujoco_renderer.default_cam_config"}
    assert edited(env) <= harmless
    env.reset(seed=1)
    # Where the robot begins, and the space that it draws random actions from.
    harmless |= {"_np_random", "_np_random_seed", "goal", "goal_pos", "cylinder_pos", "init_qpos", "action_space"}
    assert edited(env) <= harmless
    for _ in range(20):
        env.step(env.action_space.sample())
    assert edited(env) <= harmless
    copy = copy_of(env)
    np.testing.assert_array_equal(life(copy), life(gym.make(env_id)))
    assert copy.unwrapped.spec == env.unwrapped.spec and str(copy) == str(env)


def test_random_stream_of_the_original_continues_in_its_first_copy() -> None:
    env = gym.make("HalfCheetah-v5")
    env.reset(seed=1)
    copy = copy_of(env)
    np.testing.assert_array_equal(life(copy, seed=None), life(env, seed=None))


def set_gravity(env: Any) -> None:
    env.model.opt.gravity[:] = (0, 0, -3)


def set_timestep(env: Any) -> None:
    env.model.opt.timestep = 0.002


def set_masses(env: Any) -> None:
    env.model.body_mass *= 1.5


def set_friction(env: Any) -> None:
    env.model.geom_friction[:, 0] = 0.1


def set_actuators(env: Any) -> None:
    env.model.actuator_gear[:, 0] *= 0.5


def set_initial_position(env: Any) -> None:
    env.init_qpos = env.init_qpos + 0.1


def set_frame_skip(env: Any) -> None:
    env.frame_skip = 2


def set_weight(env: Any) -> None:
    env._ctrl_cost_weight = 7.0


def set_method(env: Any) -> None:
    def step(self: Any, action: Any) -> Any:
        observation, *others = type(self).step(self, action)
        return observation + self.frame_skip, *others

    env.step = types.MethodType(step, env)


EDITS = (
    set_gravity,
    set_timestep,
    set_masses,
    set_friction,
    set_actuators,
    set_initial_position,
    set_frame_skip,
    set_weight,
    set_method,
)


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("env_id", ["HalfCheetah-v4", "HalfCheetah-v5"])
def test_what_was_changed_travels(env_id: str, edit: Callable[[Any], None]) -> None:
    env = gym.make(env_id)
    edit(env.unwrapped)
    copy = copy_of(env)
    assert copy.unwrapped is not env.unwrapped
    np.testing.assert_array_equal(life(copy), life(env))
    # The model stays one object, for the renderer, too.
    assert copy.unwrapped.mujoco_renderer.model is copy.unwrapped.model
    np.testing.assert_array_equal(copy.unwrapped.model.geom_friction, env.unwrapped.model.geom_friction)
    assert copy.unwrapped._ctrl_cost_weight == env.unwrapped._ctrl_cost_weight


def test_another_model_is_an_error_that_asks_for_a_function() -> None:
    env = gym.make("HalfCheetah-v5")
    env.unwrapped.model = gym.make("Hopper-v5").unwrapped.model
    with pytest.raises(EditedEnvError, match=r"its attribute model\..* Pass a function that builds the environment"):
        factory_from_env(env)


def test_another_kind_of_native_object_is_an_error() -> None:
    env = gym.make("HalfCheetah-v5")
    env.unwrapped.data = threading.Lock()
    with pytest.raises(EditedEnvError, match=r"its attribute data "):
        factory_from_env(env)


class Native:
    """A simulation that does not pickle."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.friction = 1.0


class Boxes(gym.Env, EzPickle):
    """Makes native objects when it is reset, as Box2D's environments do."""

    observation_space = gym.spaces.Box(-9, 9, (1,), np.float64)
    action_space = gym.spaces.Discrete(2)
    n_made = 0

    def __init__(self, gravity: float = -10.0) -> None:
        EzPickle.__init__(self, gravity)
        Boxes.n_made += 1
        self.gravity, self.world, self.lander, self.bodies = gravity, Native(), None, []
        self.settings, self.handle, self.wind = {"fps": 50}, Boxes.n_made, 0.5
        self.dice = random.Random(5)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.lander, self.bodies, self.late = Native(), [Native()], Native()
        return np.array([self.dice.random()]), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        return np.array([self.dice.random()]), 0.0, False, False, {}


def test_what_is_made_late_or_differs_from_one_environment_to_the_next_is_no_edit() -> None:
    env = Boxes(-9.0)
    assert edited(env) == {"dice"}
    env.reset()
    assert edited(env) <= {"dice", "_np_random", "_np_random_seed"}
    copy = copy_of(env)
    assert (copy.gravity, copy.lander, copy.bodies) == (-9.0, None, []) and copy.handle != env.handle


def test_values_of_every_depth_travel() -> None:
    env = Boxes()
    env.settings["fps"], env.world.friction, env.extra = 20, 3.0, [1, "two"]
    del env.wind
    copy = copy_of(env)
    assert (copy.settings, copy.world.friction, copy.extra) == ({"fps": 20}, 3.0, [1, "two"])
    assert not hasattr(copy, "wind")
    assert copy.world is not env.world


def test_environment_inside_of_another_one_travels_with_its_edits() -> None:
    class Holder(gym.Env):
        def __init__(self) -> None:
            self.inner = gym.make("HalfCheetah-v5")

    env = Holder()
    env.inner.unwrapped.model.opt.gravity[2] = -1.0
    assert copy_of(env).inner.unwrapped.model.opt.gravity[2] == -1.0


def test_constructor_that_does_not_take_its_own_arguments_falls_back_to_the_spec() -> None:
    class Odd(Boxes):
        def __init__(self, first: int, second: int) -> None:
            super().__init__(-5.0)

    with pytest.raises(TypeError, match=r"cannot be moved to a sampler.*'second'"):
        factory_from_env(Odd(1, 2))


def test_models_hold_nothing_but_what_can_be_compared() -> None:
    """What a new version of MuJoCo adds to its model has to be of these kinds."""
    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
    kinds = {
        type(getattr(model, name)) for name in dir(type(model)) if isinstance(getattr(type(model), name), property)
    }
    structs = {type(model.opt), type(model.stat), type(model.vis)}
    assert kinds <= {int, bool, float, bytes, str, np.ndarray} | structs
