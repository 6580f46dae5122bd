"""Samplers, and what their environments have started, give way to the learner; priorities are left alone."""

import ctypes
import multiprocessing
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_cluster import RayCluster
from simulator_env import WithSimulator, autogroup_of, scheduling_of

from sb3_walle import AsyncPPO, SamplerVecEnv

PR_CAPBSET_DROP, CAP_SYS_NICE = 24, 23


def model(env: Any = WithSimulator, **kwargs: Any) -> AsyncPPO:
    settings: dict[str, Any] = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "device": "cpu", "learner": "eager"}
    return AsyncPPO("MlpPolicy", env, **settings, **kwargs)


def seen_in(env: Any) -> list[tuple[int, str, dict[str, Any]]]:
    return [process for processes in env.env_method("seen") for process in processes]


@pytest.fixture(autouse=True)
def _leaves_this_process_alone() -> Iterator[None]:
    before = os.getsid(0), autogroup_of(os.getpid()), scheduling_of(0)
    yield
    assert (os.getsid(0), autogroup_of(os.getpid()), scheduling_of(0)) == before


def test_samplers_are_a_session_of_their_own_with_the_learners_priority() -> None:
    own = scheduling_of(0)
    with model(n_samplers=2) as trained:
        before = seen_in(trained.get_env())
        trained.learn(32)
        after = seen_in(trained.get_env())
    assert before == after
    (session, group, scheduling), *others = after
    assert others == [(session, group, scheduling)] * 3
    assert session != os.getsid(0)
    assert scheduling == own
    if group:
        # This is what makes the kernel weigh the learner against all samplers together.
        assert group != autogroup_of(os.getpid())


def test_an_argument_leaves_samplers_in_the_learners_session(tmp_path: Path) -> None:
    own = [(os.getsid(0), autogroup_of(os.getpid()), scheduling_of(0))]
    with model(n_samplers=1, samplers_give_way=False) as trained:
        trained.learn(16)
        assert seen_in(trained.get_env()) == 2 * own
        trained.save(tmp_path / "model")
        # As many other choices, it stays when the environments are exchanged.
        trained.set_env(WithSimulator)
        assert seen_in(trained.get_env()) == 2 * own
    loaded = AsyncPPO.load(tmp_path / "model", WithSimulator, n_samplers=1, samplers_give_way=False)
    with loaded:
        assert seen_in(loaded.get_env()) == 2 * own
    with AsyncPPO.load(tmp_path / "model", WithSimulator, n_samplers=1) as loaded:
        assert own[0] not in seen_in(loaded.get_env())


@pytest.mark.ray
def test_samplers_of_ray_give_way_to_the_host_of_their_node(cluster: RayCluster) -> None:
    with model(n_samplers=2, backend="ray") as trained:
        trained.learn(32)
        of_samplers = {session for session, _, _ in seen_in(trained.get_env())}
        of_hosts = {os.getsid(cluster.host(node)) for node in (0, 1)}
    assert of_samplers.isdisjoint(of_hosts)


def test_a_sampler_vec_env_is_told_itself() -> None:
    with SamplerVecEnv([WithSimulator], samplers_give_way=False) as env:
        assert [session for session, _, _ in seen_in(env)] == 2 * [os.getsid(0)]
        model(env)
        model(env, samplers_give_way=False)
        with pytest.raises(ValueError, match=r"way=False\), so .*way=True\) comes too late"):
            model(env, samplers_give_way=True)


def test_samplers_in_this_process_change_nothing() -> None:
    with model(n_samplers=2, backend="inline", mode="pipelined") as trained:
        trained.learn(32)
        own = os.getsid(0), autogroup_of(os.getpid()), scheduling_of(0)
        assert seen_in(trained.get_env()) == 4 * [own]


def _be_an_ordinary_user() -> None:
    """Give up what an ordinary user may not: to lower niceness again."""
    resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
    if os.getuid() == 0:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_SYS_NICE, 0, 0, 0)


def _find_all_this_as_an_ordinary_user() -> None:
    _be_an_ordinary_user()
    test_samplers_are_a_session_of_their_own_with_the_learners_priority()


def test_all_this_holds_for_an_ordinary_user() -> None:
    cannot = "import os; os.nice(1)\ntry: os.nice(-1)\nexcept PermissionError: raise SystemExit(7)"
    assert subprocess.run([sys.executable, "-c", cannot], preexec_fn=_be_an_ordinary_user).returncode == 7
    child = multiprocessing.get_context("fork").Process(target=_find_all_this_as_an_ordinary_user)
    child.start()
    child.join()
    assert child.exitcode == 0
