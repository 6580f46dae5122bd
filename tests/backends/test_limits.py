"""File descriptors: too few of them are found out before samplers are started, and named with a remedy."""

import errno
import os
import resource
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb3_walle.backends import limits
from sb3_walle.backends.limits import DESCRIPTORS_PER_SAMPLER, FURTHER_DESCRIPTORS, check_descriptors

UNLIMITED = resource.RLIM_INFINITY


def limited_to(soft: int, hard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))


def n_open() -> int:
    return len(os.listdir("/dev/fd")) - 1


def run(program: str) -> str:
    """Run a program in another process, whose limits it may lower, and return what it prints."""
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_as_many_samplers_as_the_limit_allows_and_not_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    n_samplers = 7
    limit = n_open() + FURTHER_DESCRIPTORS + n_samplers * DESCRIPTORS_PER_SAMPLER
    limited_to(limit, limit, monkeypatch)
    check_descriptors(n_samplers)
    with pytest.raises(OSError) as caught:
        check_descriptors(n_samplers + 1)
    assert caught.value.errno == errno.EMFILE


@given(st.integers(1, 10_000), st.integers(0, 10_000))
def test_refuses_exactly_what_the_limit_does_not_allow(n_samplers: int, limit: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        limited_to(limit, UNLIMITED, monkeypatch)
        monkeypatch.setattr(limits, "_n_open", lambda _: 10)
        if 10 + FURTHER_DESCRIPTORS + n_samplers <= limit:
            check_descriptors(n_samplers)
        else:
            with pytest.raises(OSError):
                check_descriptors(n_samplers)


def test_the_error_names_what_is_needed_the_limit_and_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    limited_to(256, UNLIMITED, monkeypatch)
    monkeypatch.setattr(limits, "_n_open", lambda _: 10)
    with pytest.raises(OSError) as caught:
        check_descriptors(500)
    message = str(caught.value)
    assert f"500 samplers take {500 + FURTHER_DESCRIPTORS} file descriptors" in message
    assert "may open 256 and has 10 open" in message
    assert f"'ulimit -n {510 + FURTHER_DESCRIPTORS}'" in message
    assert "fewer samplers with more envs_per_sampler" in message


def test_the_limit_that_the_error_proposes_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    limited_to(64, UNLIMITED, monkeypatch)
    with pytest.raises(OSError) as caught:
        check_descriptors(500)
    proposed = int(str(caught.value).partition("ulimit -n ")[2].partition("'")[0])
    limited_to(proposed, UNLIMITED, monkeypatch)
    check_descriptors(500)
    limited_to(proposed - 1, UNLIMITED, monkeypatch)
    with pytest.raises(OSError):
        check_descriptors(500)


def test_what_only_the_administrator_can_raise_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    limited_to(64, 128, monkeypatch)
    with pytest.raises(OSError, match="have the administrator allow more than 128"):
        check_descriptors(500)


def test_without_a_limit_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    limited_to(UNLIMITED, UNLIMITED, monkeypatch)
    check_descriptors(10**9)


def test_where_open_descriptors_cannot_be_counted_the_limit_itself_is_what_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_such_folder(_: str) -> list[str]:
        raise FileNotFoundError

    monkeypatch.setattr(os, "listdir", no_such_folder)
    limited_to(FURTHER_DESCRIPTORS + 5, UNLIMITED, monkeypatch)
    check_descriptors(5)
    with pytest.raises(OSError, match="has 0 open"):
        check_descriptors(6)


def test_a_process_whose_descriptors_are_used_up_is_told_so() -> None:
    program = """
import os, resource
from sb3_walle.backends.limits import check_descriptors
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
try:
    while True:
        os.dup(0)
except OSError:
    pass
try:
    check_descriptors(1)
except OSError as error:
    print(error)
"""
    assert "may open 32 and has 32 open" in run(program)


def test_what_is_allowed_is_enough_to_train_and_to_save(tmp_path: os.PathLike) -> None:
    program = f"""
import gc, os, resource
from sb3_walle import AsyncPPO
from sb3_walle.backends.limits import DESCRIPTORS_PER_SAMPLER, FURTHER_DESCRIPTORS
AsyncPPO("MlpPolicy", "CartPole-v1", n_samplers=1, n_steps=8, batch_size=8, backend="inline").learn(8)
gc.collect()
limit = len(os.listdir("/dev/fd")) - 1 + FURTHER_DESCRIPTORS + 3 * DESCRIPTORS_PER_SAMPLER
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
try:
    AsyncPPO("MlpPolicy", "CartPole-v1", n_samplers=4)
except OSError as error:
    print("refused", error.errno)
model = AsyncPPO(
    "MlpPolicy", "CartPole-v1", n_samplers=3, n_steps=16, batch_size=16, tensorboard_log={str(tmp_path)!r}
)
model.learn(96)
model.save(os.path.join({str(tmp_path)!r}, "model"))
print("trained", model.num_timesteps)
"""
    assert run(program) == f"refused {errno.EMFILE}\ntrained 96\n"
