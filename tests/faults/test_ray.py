"""Samplers on the nodes of a Ray cluster, in a network that only this machine can reach."""

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from fault_models import KINDS, is_ordered, make_model
from follow_samples import FollowSamples
from own_network import is_own_network
from ray_cluster import RayCluster
from stable_baselines3.common.callbacks import BaseCallback
from stamped_task import StampedTask
from toy_envs import RandomWalk

from benchmarks.cluster.local_cluster import OBJECT_STORE_BYTES
from benchmarks.cluster.memory_growth import STORE, memory_by_chunks
from sb3_walle import AsyncPPO, AsyncSAC, SamplerVecEnv
from sb3_walle.backends.ray import RayBackend
from sb3_walle.samplers.errors import SamplerError, SamplerWarning

pytest.importorskip("ray")
pytestmark = pytest.mark.skipif(not is_own_network(), reason="needs a network of its own: run `make test`")

N_STEPS = 64
SETTINGS: dict[str, Any] = {"n_steps": N_STEPS, "batch_size": 192, "n_epochs": 1, "learner": "eager"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    cluster = RayCluster(n_nodes=2)
    yield cluster
    cluster.close()


@pytest.fixture(autouse=True)
def _nodes_are_those_that_ray_knows(cluster: RayCluster) -> None:
    cluster.settle()


def weights(model: Any) -> np.ndarray:
    return np.concatenate([parameter.detach().numpy().ravel() for parameter in model.policy.parameters()])


@pytest.mark.parametrize("mode", ["sync", "pipelined"])
@pytest.mark.parametrize(
    ("algorithm", "env", "settings", "timesteps"),
    [
        (AsyncPPO, "CartPole-v1", {"n_steps": 32, "batch_size": 64, "n_epochs": 2}, 10 * 4 * 32),
        (AsyncSAC, "Pendulum-v1", {"train_freq": 8, "learning_starts": 64, "policy_kwargs": {"net_arch": [8]}}, 416),
    ],
    ids=["PPO", "SAC"],
)
def test_numbers_are_those_of_every_backend(algorithm: Any, env: str, settings: Any, timesteps: int, mode: str) -> None:
    found = []
    for backend in ("inline", "process", "ray"):
        with algorithm(
            "MlpPolicy",
            env,
            n_samplers=4,
            mode=mode,
            seed=5,
            backend=backend,
            device="cpu",
            learner="eager",
            **settings,
        ) as model:
            model.learn(timesteps)
            assert model.num_timesteps == timesteps
            found.append(weights(model))
    assert (found[0] == found[1]).all()
    assert (found[0] == found[2]).all()


def test_what_samplers_are_asked_for_reaches_every_node() -> None:
    with SamplerVecEnv([RandomWalk] * 4, backend="ray") as env:
        env.set_attr("colour", "red", indices=[1, 3])
        assert env.get_attr("colour", indices=[1, 3]) == ["red", "red"]
        assert env.has_attr("no colour") is False
        env.seed(3)
        first = env.reset()
        assert len({tuple(np.ravel(row)) for row in first}) == 4
        assert len(env.step(np.array([env.action_space.sample() for _ in range(4)]))[0]) == 4


class TaskOfMain(RandomWalk):
    """An environment that no node can import."""


def test_an_environment_that_nodes_cannot_import(cluster: RayCluster) -> None:
    limit = 7
    TaskOfMain.__module__ = "__main__"

    def make() -> gym.Env:
        return gym.wrappers.TimeLimit(TaskOfMain(), limit)

    with AsyncPPO("MlpPolicy", make, n_samplers=2, backend="ray", device="cpu", **SETTINGS) as model:
        model.learn(128)
        assert max(info["l"] for info in model.ep_info_buffer) == limit


def test_a_runtime_env_takes_modules_along(cluster: RayCluster, tmp_path: Path) -> None:
    package = tmp_path / "my_simulator"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import gymnasium as gym\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "gym.register('MySimulator-v0', CartPoleEnv, max_episode_steps=5)\n"
    )

    def make() -> gym.Env:
        import my_simulator  # type: ignore[import-not-found]  # noqa: F401

        return gym.make("MySimulator-v0")

    import ray

    # Modules travel with a job, which begins when the process connects.
    ray.shutdown()
    backend = RayBackend(address=cluster.address, runtime_env={"py_modules": [str(package)]})
    with SamplerVecEnv([make] * 2, backend=backend) as env:
        assert env.get_attr("spec")[0].max_episode_steps == 5


def test_weights_travel_once_a_node(cluster: RayCluster) -> None:
    with AsyncPPO("MlpPolicy", "CartPole-v1", n_samplers=4, backend="ray", device="cpu", **SETTINGS) as model:
        model.learn(5 * 4 * N_STEPS)
        queues = model._experience.collector.queues.policy
        assert queues.n_weight_bytes == 5 * 2 * queues.plan.weights.nbytes


def test_memory_does_not_grow_with_the_number_of_chunks(cluster: RayCluster) -> None:
    before, after = memory_by_chunks(cluster, 4, (200, 1_000)).values()
    # Any of these would grow by 200 MB if it kept what it gets.
    for name in before.keys() - {STORE}:
        assert after[name] < before[name] + 20e6, (name, before, after)
    assert after[STORE] < 2 * OBJECT_STORE_BYTES


# What is lost


class DuringTraining(BaseCallback):
    """
    Does something beside training, now and then.

    :param actions: what to do, by number of the rollout
    """

    def __init__(self, actions: dict[int, Callable[[], object]]) -> None:
        super().__init__()
        self._actions, self._n_rollouts = actions, 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        action = self._actions.get(self._n_rollouts)
        self._n_rollouts += 1
        if action is not None:
            action()


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_dies_no_sample_is_lost(cluster: RayCluster, kind: str) -> None:
    samples = FollowSamples(is_ordered(kind))

    def comes_back(index: int) -> None:
        cluster.remove_node(index)
        cluster.add_node()

    faults = DuringTraining(
        {
            3: lambda: os.kill(cluster.samplers(0)[0], signal.SIGKILL),
            6: lambda: os.kill(cluster.host(1), signal.SIGKILL),
            10: lambda: comes_back(0),
        }
    )
    backend = RayBackend(cpus_per_sampler=0)
    env = SamplerVecEnv([StampedTask] * 4, max_restarts=50, backend=backend)
    n_rollouts = 16
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with make_model(kind, env, **SETTINGS) as model:
            model.learn(n_rollouts * 4 * N_STEPS, callback=[faults, samples])
            samples.check(n_rollouts * 4 * N_STEPS)
            assert model.num_timesteps == n_rollouts * 4 * N_STEPS
    told = [str(warning.message) for warning in caught if issubclass(warning.category, SamplerWarning)]
    # Of all samplers of a host, one is told of.
    # In mode "free", the others may have collected all before the loss of the last one was noticed.
    assert len([text for text in told if "was lost with the host" in text]) in ((1, 2) if kind == "free" else (2,)), (
        told
    )
    assert len([text for text in told if "was killed by signal 9" in text]) == 1, told


def test_a_silent_node_is_noticed(cluster: RayCluster) -> None:
    stopped: list[int] = []

    def stop() -> None:
        stopped.extend([cluster.host(0), cluster.raylet(0)])
        for process in stopped:
            os.kill(process, signal.SIGSTOP)

    backend = RayBackend(cpus_per_sampler=0, heartbeat_timeout=5)
    try:
        with (
            pytest.warns(SamplerWarning, match="has not been heard of for 5 s"),
            AsyncPPO("MlpPolicy", "CartPole-v1", n_samplers=4, backend=backend, device="cpu", **SETTINGS) as model,
        ):
            model.learn(8 * 4 * N_STEPS, callback=DuringTraining({3: stop}))
            assert model.num_timesteps == 8 * 4 * N_STEPS
    finally:
        for process in stopped:
            os.kill(process, signal.SIGCONT)
        cluster.remove_node(0)
        cluster.add_node()


@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
def test_samplers_wait_for_a_node(cluster: RayCluster) -> None:
    def lose_all() -> None:
        while cluster.nodes:
            cluster.remove_node(0)
        # A thread cannot do it: Ray sets signal handlers.
        signal.signal(signal.SIGALRM, lambda *_: cluster.add_node())
        signal.alarm(6)

    backend = RayBackend(cpus_per_sampler=0)
    try:
        with AsyncPPO(
            "MlpPolicy", "CartPole-v1", n_samplers=2, max_restarts=100, backend=backend, device="cpu", **SETTINGS
        ) as model:
            model.learn(6 * 2 * N_STEPS, callback=DuringTraining({2: lose_all}))
            assert model.num_timesteps == 6 * 2 * N_STEPS
    finally:
        signal.alarm(0)
        while len(cluster.nodes) < 2:
            cluster.add_node()


def test_a_learner_that_is_killed_leaves_no_sampler(cluster: RayCluster, tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        f"sys.path[:] = {sys.path!r}\n"
        "from sb3_walle import AsyncPPO\n"
        f"from sb3_walle.backends.ray import RayBackend\n"
        f"model = AsyncPPO('MlpPolicy', 'CartPole-v1', n_samplers=4, n_steps=64, "
        f"backend=RayBackend(address={cluster.address!r}))\n"
        "print('ready', flush=True)\n"
        "model.learn(10**9)\n"
    )
    learner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert learner.stdout is not None
    while "ready" not in (line := learner.stdout.readline()):
        assert line or learner.poll() is None
    samplers = [process for node in range(len(cluster.nodes)) for process in cluster.samplers(node)]
    assert len(samplers) == 4
    learner.kill()
    learner.wait()
    deadline = time.monotonic() + 15
    while any(Path(f"/proc/{process}").exists() for process in samplers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{process}").exists() for process in samplers)


# What is refused


def test_addresses_of_ray_client_are_refused() -> None:
    with pytest.raises(ValueError, match="Ray Client"):
        AsyncPPO("MlpPolicy", "CartPole-v1", backend=RayBackend(address="ray://127.0.0.1:10001"))


def test_what_no_node_can_hold_is_refused(cluster: RayCluster) -> None:
    with pytest.raises(RuntimeError, match=r"9 samplers do not fit on the cluster's nodes, which hold 127.0.0.1: 2"):
        SamplerVecEnv([RandomWalk] * 9, backend=RayBackend(samplers_per_node=2))


def test_other_versions_are_refused(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from sb3_walle.backends.ray import samplers

    here = {**samplers.versions(()), "numpy": "1.0"}
    monkeypatch.setattr(samplers, "versions", lambda preload: here)
    with pytest.raises(RuntimeError, match=r"127.0.0.1: numpy .* \(here 1.0\)"):
        SamplerVecEnv([RandomWalk] * 4, backend="ray")


def test_an_exception_comes_with_its_traceback(cluster: RayCluster) -> None:
    def broken() -> gym.Env:
        raise ZeroDivisionError("of mine")

    with pytest.raises(SamplerError, match="of mine") as caught:
        SamplerVecEnv([broken] * 2, backend="ray")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
