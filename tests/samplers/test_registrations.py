"""What the learner has registered with Gymnasium exists in other processes, too, and costs nothing until it is used."""

import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from toy_envs import StampedEnv

from sb3_walle.samplers.factories import Registrations, RegistryWatch

ELSEWHERE = """
import pickle, sys
import gymnasium as gym
registrations = pickle.load(sys.stdin.buffer)
registrations.register()
print({call})
print([name for name in ("torch", "stable_baselines3", "a_heavy_module") if name in sys.modules])
"""


def elsewhere(call: str) -> list[str]:
    """What a process prints that has registered the same."""
    program = ELSEWHERE.format(call=call)
    registrations = pickle.dumps(Registrations.of_this_process())
    done = subprocess.run([sys.executable, "-c", program], input=registrations, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    before = dict(gym.registry)
    yield
    gym.registry.clear()
    gym.registry.update(before)


def local_class() -> type[gym.Env]:
    class Local(gym.Env):
        """Another process cannot import it."""

        metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

        def __init__(self, size: int = 1, render_mode: str | None = None) -> None:
            self.size, self.render_mode = size, render_mode

    return Local


def test_a_class_of_the_script_travels_with_its_arguments() -> None:
    gym.register("Local-v0", entry_point=local_class(), kwargs={"size": 3}, max_episode_steps=9)
    make = "gym.make('Local-v0', disable_env_checker=True, render_mode='rgb_array')"
    seen = f"(env := {make}, env.unwrapped.size, env.spec.max_episode_steps, env.render_mode)[1:]"
    assert elsewhere(seen) == ["(3, 9, 'rgb_array')", "[]"]
    assert elsewhere("gym.make('Local-v0', size=5, disable_env_checker=True).unwrapped.size")[0] == "5"


def test_a_function_travels() -> None:
    cls = local_class()
    gym.register("Local-v0", entry_point=lambda **kwargs: cls(7, **kwargs))
    assert elsewhere("gym.make('Local-v0', disable_env_checker=True).unwrapped.size")[0] == "7"


def test_another_registration_under_an_id_of_gymnasium_counts() -> None:
    gym.registry.pop("CartPole-v1")
    gym.register("CartPole-v1", entry_point="gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=3)
    seen = "gym.spec('CartPole-v1').max_episode_steps, type(gym.make('CartPole-v1').unwrapped).__name__"
    assert elsewhere(seen)[0] == "3 PendulumEnv"


def test_nothing_is_imported_before_an_environment_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_heavy_module.py").write_text("import gymnasium as gym\nclass Heavy(gym.Env):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import a_heavy_module  # type: ignore[import-not-found]

    gym.register("ByName-v0", entry_point="a_heavy_module:Heavy")
    gym.register("ByClass-v0", entry_point=a_heavy_module.Heavy)
    gym.register("WithClass-v0", entry_point="toy_envs:StampedEnv", kwargs={"identity": a_heavy_module.Heavy})
    path = f"sys.path.insert(0, {str(tmp_path)!r})"
    assert elsewhere("gym.make('CartPole-v1').spec.id") == ["CartPole-v1", "[]"]
    assert elsewhere(f"{path}, gym.make('ByClass-v0', disable_env_checker=True).spec.id")[1] == "['a_heavy_module']"


def test_what_cannot_travel_fails_only_where_it_is_used_and_says_why() -> None:
    lock = threading.Lock()
    gym.register("Locked-v0", entry_point=lambda: lock)
    gym.register("LockedToo-v0", entry_point="toy_envs:StampedEnv", kwargs={"lock": lock})
    gym.register("Gone-v0", entry_point="__main__:NoSuchClass")
    assert elsewhere("gym.make('CartPole-v1').spec.id")[0] == "CartPole-v1"
    for env_id in ("Locked-v0", "LockedToo-v0", "Gone-v0"):
        registrations = pickle.dumps(Registrations.of_this_process())
        program = ELSEWHERE.format(call=f"gym.make({env_id!r})")
        done = subprocess.run([sys.executable, "-c", program], input=registrations, capture_output=True, check=False)
        message = done.stderr.decode().splitlines()[-1]
        assert f"{env_id} is registered in the learner's process only" in message
        assert "NoSuchClass" in message if env_id == "Gone-v0" else "lock" in message


def test_a_vectorised_entry_point_does_not_matter() -> None:
    lock = threading.Lock()
    entry_point = "gymnasium.envs.classic_control:CartPoleEnv"
    gym.register("Both-v0", entry_point=entry_point, vector_entry_point=lambda: lock)
    assert elsewhere("gym.make('Both-v0').spec.id")[0] == "Both-v0"


def test_this_process_keeps_its_own() -> None:
    entry_point = local_class()
    gym.register("Local-v0", entry_point=entry_point)
    Registrations.of_this_process().register()
    assert gym.spec("Local-v0").entry_point is entry_point


@pytest.mark.parametrize(
    "change",
    [
        lambda: gym.register("Later-v0", entry_point=StampedEnv),
        lambda: gym.registry.update({"CartPole-v1": gym.envs.registration.EnvSpec("CartPole-v1")}),
    ],
)
def test_the_watch_sees_what_changes(change: Callable[[], Any]) -> None:
    watch = RegistryWatch()
    assert watch.news() is not None and watch.news() is None
    change()
    assert watch.news() is not None and watch.news() is None
