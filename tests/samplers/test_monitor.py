"""SB3's Monitor without the rest of SB3: cheap to load, and never a second class."""

import subprocess
import sys
from collections.abc import Callable

import gymnasium as gym
import pytest
from stable_baselines3.common.monitor import Monitor

from sb3_walle.samplers.monitor import is_wrapped, monitored


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


MONITORED = """
import sys
import gymnasium as gym
from sb3_walle.samplers.monitor import is_wrapped, monitored
env = monitored(gym.make("CartPole-v1"))
"""


def test_environment_is_monitored_without_importing_torch_or_the_rest_of_sb3() -> None:
    imported = run(
        MONITORED + "print([name for name in sys.modules if name.startswith(('stable_baselines3', 'torch'))])"
    )
    assert imported == "['stable_baselines3.common.monitor']\n"


WAYS_TO_IMPORT = """
import pickle
from stable_baselines3.common.monitor import Monitor
assert type(env) is Monitor and is_wrapped(env, Monitor) and monitored(env) is env

import stable_baselines3
import stable_baselines3.common.monitor as alias
from stable_baselines3 import PPO
from stable_baselines3.common import env_util, monitor
unpickled = pickle.loads(pickle.dumps(type(env)))
assert alias.Monitor is monitor.Monitor is env_util.Monitor is unpickled is Monitor
"""


def test_a_later_import_of_sb3_gets_the_same_class() -> None:
    run(MONITORED + WAYS_TO_IMPORT)


def test_class_of_an_sb3_that_was_imported_before_is_used() -> None:
    env = monitored(gym.make("CartPole-v1"))
    assert type(env) is Monitor


def test_episodes_are_reported() -> None:
    env = monitored(gym.make("Pendulum-v1", max_episode_steps=3))
    env.reset(seed=0)
    rewards, infos = [], []
    for _ in range(3):
        _, reward, _, _, info = env.step(env.action_space.sample())
        rewards.append(reward)
        infos.append(info)
    assert ["episode" in info for info in infos] == [False, False, True]
    assert infos[-1]["episode"]["l"] == 3
    assert infos[-1]["episode"]["r"] == pytest.approx(sum(rewards), abs=1e-5)


@pytest.mark.parametrize(
    "wrap",
    [Monitor, lambda env: gym.wrappers.ClipAction(Monitor(env)), lambda env: monitored(monitored(env))],
    ids=["outermost", "inside", "twice"],
)
def test_monitored_environment_is_left_as_it_is(wrap: Callable[[gym.Env], gym.Env]) -> None:
    env = wrap(gym.make("Pendulum-v1"))
    assert monitored(env) is env


def test_wrapper_is_found_wherever_it_is() -> None:
    env = gym.wrappers.ClipAction(Monitor(gym.make("Pendulum-v1")))
    for wrapper in (gym.wrappers.ClipAction, Monitor, gym.wrappers.TimeLimit, gym.Wrapper):
        assert is_wrapped(env, wrapper)
    assert not is_wrapped(env, gym.wrappers.RescaleAction)
    assert not is_wrapped(env.unwrapped, gym.Wrapper)
