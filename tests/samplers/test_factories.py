"""Environments on their way to a sampler: what is built there is what was meant here."""

import copy
import csv
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.monitor import Monitor

from sb3_walle.samplers.factories import (
    EnvFactory,
    PickledEnv,
    SpecFactory,
    factory_from_env,
    factory_from_id,
    named_modules,
    packed,
)

ELSEWHERE = """
import json, pickle, sys
from gymnasium import Wrapper
factory = pickle.load(sys.stdin.buffer)
one, env = factory(), factory()
assert one.unwrapped is not env.unwrapped
observations = [env.reset(seed=3)[0]]
env.action_space.seed(4)
for _ in range(30):
    observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
    observations.append(observation)
    if terminated or truncated:
        break
print(json.dumps({"env": str(env), "mode": env.render_mode, "life": [list(map(float, row)) for row in observations]}))
"""


def life_elsewhere(factory: EnvFactory) -> dict[str, Any]:
    """What becomes of an environment that is built in another process, which has registered nothing."""
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], input=cloudpickle.dumps(factory), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def life_here(env: gym.Env) -> list[list[float]]:
    observations = [env.reset(seed=3)[0]]
    env.action_space.seed(4)
    for _ in range(30):
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        observations.append(observation)
        if terminated or truncated:
            break
    return [list(map(float, observation)) for observation in observations]


class Plain(gym.Env):
    """An environment without a spec. It has no render mode to ask for."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Discrete(2)

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.np_random.normal(size=2) + self.offset, {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.np_random.normal(size=2) + self.offset + action, 0.0, False, False, {}


@pytest.fixture(autouse=True)
def _classes_travel_whole() -> Iterator[None]:
    """Treats this file as cloudpickle treats a user's program, which other processes do not import."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def registered() -> Iterator[Callable[..., str]]:
    """Registers environments, and forgets them afterwards."""
    before = dict(gym.registry)

    def register(entry_point: Any, **kwargs: Any) -> str:
        gym.register("OnlyHere-v0", entry_point=entry_point, **kwargs)
        return "OnlyHere-v0"

    yield register
    gym.registry.clear()
    gym.registry.update(before)


class Ending(Plain):
    """Ends after 4 steps, and says how lucky it was."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.steps = 0
        return super().reset(seed=seed)

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return *super().step(action)[:2], self.steps == 4, False, {"luck": self.np_random.random()}


def local_class() -> type[Plain]:
    class Local(Plain):
        """No other process can import this."""

    return Local


# By spec


def test_id_is_rebuilt_in_another_process() -> None:
    life = life_elsewhere(factory_from_id("CartPole-v1"))
    assert life["life"] == life_here(gym.make("CartPole-v1"))
    assert life["mode"] == "rgb_array"


def test_id_that_is_registered_only_here_is_rebuilt_elsewhere(registered: Callable[..., str]) -> None:
    env_id = registered(local_class(), kwargs={"offset": 4.0}, max_episode_steps=12)
    life = life_elsewhere(factory_from_id(env_id))
    assert life["life"] == life_here(gym.make(env_id))
    assert len(life["life"]) == 13
    assert "TimeLimit" in life["env"]


@pytest.mark.filterwarnings("ignore:.*render_mode='rgb_array'")
def test_environment_that_cannot_render_is_built_all_the_same(registered: Callable[..., str]) -> None:
    assert factory_from_id(registered(Plain))().render_mode is None


def test_module_in_front_of_an_id_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registered: Callable[..., str]
) -> None:
    (tmp_path / "module_with_an_env.py").write_text(
        "import gymnasium as gym\n"
        "gym.register('InModule-v0', entry_point='gymnasium.envs.classic_control:PendulumEnv', max_episode_steps=3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert factory_from_id("module_with_an_env:InModule-v0")().spec.id == "InModule-v0"


def test_id_that_does_not_exist_is_gymnasium_s_own_error() -> None:
    with pytest.raises(gym.error.NameNotFound, match="NoSuchThing"):
        factory_from_id("NoSuchThing-v0")


@pytest.mark.filterwarnings("ignore:.*render_mode='rgb_array'")
def test_error_of_a_constructor_is_the_environment_s_own(registered: Callable[..., str]) -> None:
    with pytest.raises(TypeError, match="'colour'"):
        factory_from_id(registered(Plain, kwargs={"colour": "red"}))()


def test_recorded_wrappers_are_rebuilt_in_their_order() -> None:
    def build() -> gym.Env:
        env = gym.make("Pendulum-v1", max_episode_steps=17, g=9.0)
        env = gym.wrappers.RescaleAction(env, np.float32(-0.5), np.float32(0.5))
        return gym.wrappers.FlattenObservation(gym.wrappers.ClipAction(env))

    env = build()
    assert env.spec is not None
    life = life_elsewhere(SpecFactory(env.spec))
    assert life["env"] == str(build())
    assert life["life"] == life_here(build())
    assert len(life["life"]) == 18


def test_environment_keeps_its_render_mode() -> None:
    factory = factory_from_env(gym.make("CartPole-v1"))
    assert factory().render_mode is None
    factory = factory_from_env(gym.make("CartPole-v1", render_mode="rgb_array"))
    assert factory().render_mode == "rgb_array"


# By pickle


class Unrecorded(gym.ObservationWrapper):
    """A wrapper that does not record how it was made."""

    def __init__(self, env: gym.Env, factor: float) -> None:
        super().__init__(env)
        self.factor = factor

    def observation(self, observation: Any) -> Any:
        return observation * self.factor


@pytest.mark.parametrize(
    "build",
    [
        partial(Plain, offset=2.0),
        lambda: local_class()(offset=3.0),
        lambda: Unrecorded(gym.make("CartPole-v1"), 2.0),
        lambda: Monitor(gym.make("CartPole-v1")),
        lambda: gym.wrappers.TimeLimit(Unrecorded(gym.make("CartPole-v1"), 2.0), 3),
    ],
    ids=["no spec", "local class", "unrecorded wrapper", "Monitor", "unrecorded wrapper inside"],
)
def test_environment_without_a_complete_spec_travels_as_it_is(build: Callable[[], gym.Env]) -> None:
    env = build()
    factory = factory_from_env(env)
    assert isinstance(factory, PickledEnv)
    life = life_elsewhere(factory)
    assert life["env"] == str(env)
    assert life["life"] == life_here(build())


def test_a_copy_continues_the_monitor_file_of_the_original(tmp_path: Path) -> None:
    path = tmp_path / "0.monitor.csv"
    env = gym.wrappers.TimeLimit(Monitor(Ending(), str(path), info_keywords=("luck",)), 5)
    life_here(env)
    before = path.read_text()
    assert before.splitlines()[1] == "r,l,t,luck" and len(before.splitlines()) == 3

    factory = factory_from_env(env)
    assert path.read_text() == before
    life_elsewhere(factory)
    after = path.read_text()
    assert after.startswith(before)
    # The copy draws the same luck, at another time.
    (old,), (new,) = (list(csv.reader(text.splitlines()))[-1:] for text in (before, after))
    assert len(after.splitlines()) == 4 and (new[:2], new[3]) == (old[:2], old[3])
    assert float(new[2]) > float(old[2])

    life_here(env)
    assert path.read_text().startswith(after) and len(path.read_text().splitlines()) == 5


def test_environment_whose_monitor_file_is_closed_can_travel_all_the_same(tmp_path: Path) -> None:
    env = Monitor(Ending(), str(tmp_path / "0"))
    env.close()
    life_elsewhere(factory_from_env(env))
    assert len((tmp_path / "0.monitor.csv").read_text().splitlines()) == 3


IMPORTED = """
import pickle, sys
env = pickle.load(sys.stdin.buffer)()
from sb3_walle.samplers.monitor import is_wrapped
monitor = sys.modules["stable_baselines3.common.monitor"]
assert is_wrapped(env, monitor.Monitor) and type(env.results_writer) is monitor.ResultsWriter
print([name for name in sys.modules if name.startswith(("stable_baselines3", "torch"))])
"""


def test_monitored_environment_comes_back_without_the_rest_of_sb3_and_without_torch(tmp_path: Path) -> None:
    factory = factory_from_env(Monitor(gym.make("CartPole-v1"), str(tmp_path / "0")))
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED], input=cloudpickle.dumps(factory), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().strip() == "['stable_baselines3.common.monitor']"


def test_environments_of_one_pickle_are_independent() -> None:
    env = Plain(offset=1.0)
    factory = factory_from_env(env)
    one, other = factory(), factory()
    one.offset = 5.0
    assert (env.offset, other.offset) == (1.0, 1.0)


def test_environment_that_cannot_travel_is_an_error_that_says_what_to_do() -> None:
    env = Plain()
    env.lock = threading.Lock()
    with pytest.raises(
        TypeError, match=r"cannot be moved to a sampler: .*lock.* Pass a function that builds it"
    ) as error:
        factory_from_env(env)
    assert error.value.__cause__ is not None


def test_environment_that_does_not_pickle_is_rebuilt_from_its_spec_with_a_warning() -> None:
    env = gym.wrappers.ClipAction(gym.make("Pendulum-v1", max_episode_steps=9))
    env.unwrapped.lock = threading.Lock()
    with pytest.warns(
        UserWarning, match=r"cannot be pickled \(.*lock.*build it anew .* without what was changed in it"
    ):
        factory = factory_from_env(env)
    assert isinstance(factory, SpecFactory)
    rebuilt = factory()
    assert str(rebuilt) == str(env) and not hasattr(rebuilt.unwrapped, "lock")


class UnpicklableBits(BitFlippingEnv):
    """Its spec names no entry point."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def test_spec_that_names_no_class_is_no_way_to_travel() -> None:
    with pytest.raises(TypeError, match=r"lock.*no complete Gymnasium spec. Pass a function that builds it"):
        factory_from_env(UnpicklableBits())


# By a function that refers to environments


def packed_elsewhere(*factories: EnvFactory) -> list[EnvFactory]:
    """As they arrive in another process."""
    return [pickle.loads(cloudpickle.dumps(factory)) for factory in packed(factories).factories]


def test_environment_that_two_functions_return_is_refused() -> None:
    env = gym.make("CartPole-v1")
    for build in (lambda: env, lambda: Monitor(env), partial(Unrecorded, env, 2.0)):
        for factory in packed_elsewhere(build, build):
            with pytest.raises(ValueError, match="returned the same environment more than once"):
                factory()
        (alone,) = packed_elsewhere(build)
        assert alone().unwrapped.spec == env.unwrapped.spec


def test_functions_may_return_environments_that_no_other_one_refers_to() -> None:
    one, other = Plain(1.0), Plain(2.0)
    assert [factory().offset for factory in packed_elsewhere(lambda: one, lambda: other)] == [1.0, 2.0]


def test_functions_may_use_an_environment_that_others_use() -> None:
    model = Plain(3.0)

    def build() -> gym.Env:
        return copy.deepcopy(model)

    def build_another() -> gym.Env:
        return Plain(model.offset + 1)

    factories = packed_elsewhere(build, build, build_another)
    assert [factory().offset for factory in factories] == [3.0, 3.0, 4.0]


def test_environment_that_a_function_refers_to_travels_as_it_is(tmp_path: Path) -> None:
    env = Monitor(gym.make("HalfCheetah-v5"), str(tmp_path / "0"))
    env.unwrapped.model.opt.gravity[2] = -1.0
    (factory,) = packed_elsewhere(lambda: env)
    there = factory()
    assert there.unwrapped.model.opt.gravity[2] == -1.0
    assert there.results_writer.file_handler.name == str((tmp_path / "0.monitor.csv").resolve())
    there.close()
    env.close()


# What cannot be sent


class Simulator:
    """Holds what does not pickle."""

    def __init__(self) -> None:
        self.connection = {"lock": [threading.Lock()]}


A_LOCK = threading.Lock()


def uses_a_global() -> gym.Env:
    def later() -> Any:
        return A_LOCK

    return Plain(float(later().locked()))


class Builder:
    """Builds environments."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self) -> gym.Env:
        return Plain()

    def build(self) -> gym.Env:
        return Plain()


def unpicklable() -> dict[str, tuple[EnvFactory, str]]:
    simulator, lock, env = Simulator(), threading.Lock(), Plain()
    env.lock = threading.Lock()

    def inner() -> Any:
        return simulator

    return {
        "closure": (
            lambda: Plain(lock),
            r"the closure variable 'lock' of unpicklable.<locals>.<lambda> \(.*py:\d+\) is",
        ),
        "function in a closure": (
            lambda: Plain(inner()),
            "the item 0 of the item 'lock' of the attribute 'connection' of the closure variable 'simulator' of "
            "the closure variable 'inner' of unpicklable",
        ),
        "global": (uses_a_global, "the global variable 'A_LOCK' of uses_a_global"),
        "default": (lambda offset=lock: Plain(offset), "the default argument <unlocked _thread.lock.*> of"),
        "partial": (partial(Plain, lock), "the argument <unlocked .*> of the partial of Plain"),
        "callable": (Builder(), "the attribute 'lock' of <.*Builder object"),
        "method": (Builder().build, "the attribute 'lock' of the object of Builder.build"),
        "environment": (lambda: env, "the attribute 'lock' of the closure variable 'env' of"),
    }


@pytest.mark.parametrize("name", unpicklable())
def test_what_keeps_a_function_from_being_sent_is_named(name: str) -> None:
    factory, where = unpicklable()[name]
    with pytest.raises(TypeError, match=f"cannot be sent to a sampler: {where}") as error:
        packed([factory])
    assert "is of type 'lock', which cannot be pickled" in str(error.value)
    assert "Make it inside of the function" in str(error.value) and error.value.__cause__ is not None


# Modules to import before processes are forked


def modules_for(factories: list[EnvFactory]) -> set[str]:
    return packed(factories).modules


def test_modules_of_a_spec_are_those_of_the_environment_and_its_wrappers() -> None:
    env = gym.wrappers.ClipAction(gym.make("Pendulum-v1"))
    assert env.spec is not None
    modules = modules_for([SpecFactory(env.spec)])
    assert modules == {type(env.unwrapped).__module__, type(env).__module__}


def test_spec_of_a_class_names_no_module(registered: Callable[..., str]) -> None:
    assert modules_for([factory_from_id(registered(local_class()))]) == set()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_modules_that_a_pickle_refers_to_are_found(protocol: int) -> None:
    payload = pickle.dumps([json.dumps, np.random.default_rng, Path], protocol)
    assert {"json", "numpy.random"} <= named_modules(payload)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_modules_are_found_among_many_other_things(protocol: int) -> None:
    """Frames and numbers of what is kept for later have several sizes."""
    many = [f"{number} " * 100 for number in range(300)]
    payload = pickle.dumps([json.dumps, many, many[7], Path, np.random.default_rng, json.loads], protocol)
    assert {"json", "numpy.random", Path.__module__} <= named_modules(payload)


def test_modules_of_a_function_are_those_that_it_uses_and_not_its_own() -> None:
    def build() -> gym.Env:
        import decimal

        return Monitor(gym.make(json.loads('"CartPole-v1"'), x=decimal.Decimal(1)))

    class Mine(gym.Env):
        """A class that is pickled by value, too."""

    modules = modules_for([build, Mine, lambda: build()])
    assert {"decimal", "gymnasium", "json", "stable_baselines3.common.monitor"} <= modules
    assert __name__ not in modules


def test_main_module_and_strings_that_are_no_modules_are_not_named() -> None:
    assert named_modules(pickle.dumps(["__main__", "no such module", "json", "sys os"])) == {"json", "sys"}


def test_modules_of_a_pickled_environment_are_those_that_it_needs_but_not_sb3_s_monitor() -> None:
    env = Unrecorded(Monitor(gym.make("CartPole-v1")), 2.0)
    modules = modules_for([factory_from_env(env)])
    assert {type(env.unwrapped).__module__, gym.wrappers.OrderEnforcing.__module__} <= modules
    assert not {name for name in modules if name.startswith(("stable_baselines3", "torch"))}


def test_modules_of_all_factories_are_put_together() -> None:
    both = modules_for([partial(json.dumps, 1), partial(np.random.default_rng, 1)])
    assert {"json", "numpy.random"} <= both
