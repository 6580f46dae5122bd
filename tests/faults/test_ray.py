"""Samplers on the nodes of a Ray cluster, in a network that only this machine can reach."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_models import KINDS, is_ordered, make_model
from follow_samples import FollowSamples
from ray_cluster import RayCluster, command_line_cluster
from stable_baselines3.common.callbacks import BaseCallback
from stamped_task import StampedTask
from toy_envs import RandomWalk

from benchmarks.cluster.local_cluster import OBJECT_STORE_BYTES
from benchmarks.cluster.memory_growth import STORE, memory_by_chunks
from sb3_walle import AsyncPPO, SamplerVecEnv
from sb3_walle.backends.death import Death
from sb3_walle.backends.protocol import Delivery
from sb3_walle.backends.ray import RayBackend
from sb3_walle.backends.supervision import Supervision
from sb3_walle.samplers.errors import SamplerError, SamplerWarning
from sb3_walle.samplers.requests import CloseEnvs

pytestmark = pytest.mark.ray

N_STEPS = 64
SETTINGS: dict[str, Any] = {"n_steps": N_STEPS, "batch_size": 192, "n_epochs": 1, "learner": "eager"}


@pytest.fixture(scope="module")
def guarded_address() -> Iterator[str]:
    """Address of a cluster that asks for a token."""
    with command_line_cluster("t" * 32) as address:
        yield address


def test_weights_travel_once_a_node(cluster: RayCluster) -> None:
    with AsyncPPO("MlpPolicy", "CartPole-v1", n_samplers=4, backend="ray", device="cpu", **SETTINGS) as model:
        model.learn(5 * 4 * N_STEPS)
        queues = model._experience.collector.queues.policy
        assert queues.n_weight_bytes == 5 * 2 * queues.plan.weights.nbytes


def test_memory_does_not_grow_with_the_number_of_chunks(cluster: RayCluster) -> None:
    before, after = memory_by_chunks(cluster, 4, (100, 500)).values()
    # Any of these would grow by 100 MB if it kept what it gets.
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

    faults: dict[int, Callable[[], object]] = {
        3: lambda: os.kill(cluster.samplers(0)[0], signal.SIGKILL),
        6: lambda: os.kill(cluster.host(1), signal.SIGKILL),
    }
    # Modes know nothing of nodes: a node that is lost, with its host, and comes back, is tried in two of them.
    loses_node = kind in ("pipelined", "free")
    if loses_node:
        faults[10] = lambda: comes_back(0)
    backend = RayBackend(cpus_per_sampler=0)
    env = SamplerVecEnv([StampedTask] * 4, max_restarts=50, backend=backend)
    n_rollouts = 16
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with make_model(kind, env, **SETTINGS) as model:
            model.learn(n_rollouts * 4 * N_STEPS, callback=[DuringTraining(faults), samples])
            samples.check(n_rollouts * 4 * N_STEPS)
            assert model.num_timesteps == n_rollouts * 4 * N_STEPS
    told = [str(warning.message) for warning in caught if issubclass(warning.category, SamplerWarning)]
    # Of all samplers of a host, one is told of.
    n_lost = len([text for text in told if "was lost with the host" in text])
    # In mode "free", the others may have collected all before the loss of the last one was noticed.
    assert n_lost == 1 + loses_node or (kind == "free" and n_lost == 1), told
    assert len([text for text in told if "was killed by signal 9" in text]) == 1, told


def test_a_silent_host_is_noticed(cluster: RayCluster) -> None:
    """Ray itself does not notice it: that its own processes are stopped, too, `benchmarks.cluster.faults` tries."""
    stopped: list[int] = []

    def stop() -> None:
        stopped.append(cluster.host(0))
        os.kill(stopped[0], signal.SIGSTOP)

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


def test_ctrl_c_at_any_line_hides_no_death() -> None:
    """An interrupt at each line in turn that takes in what has happened."""
    lines: list[int] = []

    def interrupt(frame: Any, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.endswith("/backends/ray/samplers.py"):
            return None
        if event == "line":
            lines.append(frame.f_lineno)
            if len(lines) == n_lines:
                raise KeyboardInterrupt
        return interrupt

    samplers: Any = RayBackend(cpus_per_sampler=0).launch(1, (), Supervision())
    try:
        n_lines, event = 0, None
        while event is None:
            n_lines += 1
            lines.clear()
            samplers.kill(0)
            with contextlib.suppress(KeyboardInterrupt):
                sys.settrace(interrupt)
                event = samplers.receive()
            sys.settrace(None)
            if event is None:
                samplers.send(0, n_lines, CloseEnvs())
                # It may be faster than the kill.
                while isinstance(last := samplers.receive(30.0), Delivery):
                    continue
                assert isinstance(last, Death), f"lost in line {lines[-1]}"
            samplers.start(0)
        assert n_lines > 10
    finally:
        sys.settrace(None)
        samplers.close()


def test_the_next_sampler_is_on_the_same_node() -> None:
    samplers: Any = RayBackend(cpus_per_sampler=0).launch(4, (), Supervision())
    try:
        for sampler in range(4):
            home = samplers._link_of(sampler)
            samplers.kill(sampler)
            assert isinstance(samplers.receive(30.0), Death)
            samplers.start(sampler)
            assert samplers._link_of(sampler) is home
    finally:
        samplers.close()


def test_a_host_that_fails_at_the_same_place_again_is_an_error() -> None:
    def fail() -> None:
        samplers = env.client._samplers
        next(iter(samplers._links.values())).command("kill", "no number", "too many")

    env = SamplerVecEnv([RandomWalk] * 2, backend=RayBackend(cpus_per_sampler=0))
    with AsyncPPO("MlpPolicy", env, device="cpu", **SETTINGS) as model:
        with (
            pytest.warns(SamplerWarning, match="was lost with the host on node .*, which failed .TypeError"),
            pytest.raises(SamplerError, match="failed before at the same place") as caught,
        ):
            model.learn(6 * 2 * N_STEPS, callback=DuringTraining({1: fail, 3: fail}))
        assert isinstance(caught.value.__cause__, TypeError)


class FailsAtTheEnd(RandomWalk):
    def close(self) -> None:
        raise ZeroDivisionError("at the end")


def test_what_goes_wrong_at_the_end_is_told() -> None:
    env = SamplerVecEnv([FailsAtTheEnd] * 2, backend=RayBackend(cpus_per_sampler=0))
    with pytest.warns(SamplerWarning, match="at the end"):
        env.close()


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


def test_what_others_use_is_not_counted_on() -> None:
    with SamplerVecEnv([RandomWalk] * 3, backend=RayBackend(cpus_per_sampler=1)) as env:
        began = time.monotonic()
        with pytest.raises(RuntimeError, match=r"^2 samplers do not fit .* beside what runs there"):
            SamplerVecEnv([RandomWalk] * 2, backend=RayBackend(cpus_per_sampler=1))
        with SamplerVecEnv([RandomWalk] * 2, backend="ray") as other:
            other.reset()
        # Ray itself would wait for the CPUs.
        assert time.monotonic() - began < 60
        env.reset()
    # What has just been closed is free again.
    SamplerVecEnv([RandomWalk] * 4, backend=RayBackend(cpus_per_sampler=1)).close()


def test_another_cluster_than_the_present_one_is_refused(cluster: RayCluster) -> None:
    with pytest.raises(ValueError, match=rf"'127.0.0.1:1'.* is another cluster than '{cluster.address}'"):
        SamplerVecEnv([RandomWalk], backend=RayBackend(address="127.0.0.1:1"))
    with pytest.raises(ValueError, match="'local'"):
        SamplerVecEnv([RandomWalk], backend=RayBackend(address="local"))
    SamplerVecEnv([RandomWalk], backend=RayBackend(address=cluster.address.replace("127.0.0.1", "localhost"))).close()


@pytest.mark.parametrize(
    ("token", "error"),
    [("t" * 32, ""), ("w" * 32, "InvalidAuthToken"), (None, "no authentication token was found")],
    ids=["right", "wrong", "missing"],
)
def test_a_cluster_that_asks_for_a_token(guarded_address: str, tmp_path: Path, token: str | None, error: str) -> None:
    program = (
        "import time\n"
        "import gymnasium as gym\n"
        "import ray\n"
        "from sb3_walle import SamplerVecEnv\n"
        "from sb3_walle.backends.ray import RayBackend\n"
        "began = time.monotonic()\n"
        "try:\n"
        f"    env = SamplerVecEnv([lambda: gym.make('CartPole-v1')], backend=RayBackend(address={guarded_address!r}))\n"
        "    print(env.reset().shape)\n"
        "    env.close()\n"
        "except ConnectionError as error:\n"
        # Ray itself tries for 20 s.
        "    assert time.monotonic() - began < 10\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "HOME": str(tmp_path)}
    if token is not None:
        environment["RAY_AUTH_TOKEN"] = token
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ("(1, 4)" if token == "t" * 32 else error) in ended.stdout


def test_other_versions_are_refused(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from sb3_walle.backends.ray import start_check

    here = {**start_check.versions(()), "numpy": "1.0"}
    monkeypatch.setattr(start_check, "versions", lambda preload: here)
    with pytest.raises(RuntimeError, match=r"127.0.0.1: numpy .* \(here 1.0\)"):
        SamplerVecEnv([RandomWalk] * 4, backend="ray")
