"""Samplers in processes: what Ctrl-C at the worst moment leaves behind does no harm."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sb3_walle.backends.process import ProcessSamplers
from sb3_walle.backends.protocol import Death, Delivery, Event
from sb3_walle.samplers.requests import CloseEnvs, GetAttr

# Far longer than anything takes here.
TIMEOUT = 60.0


@pytest.fixture
def backend() -> Iterator[ProcessSamplers]:
    backend = ProcessSamplers(2)
    yield backend
    backend.close()


def asked(backend: ProcessSamplers, sampler: int) -> Event | None:
    """What comes back when something is asked of a sampler. It has no environments, which is an answer, too."""
    backend.send(sampler, 7, GetAttr("spec", [0]))
    return backend.receive(TIMEOUT)


def kill_sampler(backend: ProcessSamplers, sampler: int) -> Event | None:
    backend.kill(sampler)
    return backend.receive(TIMEOUT)


def test_dead_sampler_is_told_of_once_and_can_be_replaced(backend: ProcessSamplers) -> None:
    # Only when it has answered something, it is sure to have got so far as to have last words.
    asked(backend, 1)
    death = kill_sampler(backend, 1)
    assert isinstance(death, Death) and death.sampler == 1 and death.how == "was killed by signal 6 (SIGABRT)"
    assert "in _carry_out_next" in death.traceback
    assert backend.receive(0.0) is None
    backend.start(1)
    assert isinstance(asked(backend, 1), Delivery)
    assert isinstance(asked(backend, 0), Delivery)


def test_sampler_that_was_started_without_anybody_knowing_is_started_again(backend: ProcessSamplers) -> None:
    kill_sampler(backend, 1)
    backend.start(1)
    backend.start(1)
    # The end of the first one is no death of the second.
    event = asked(backend, 1)
    assert isinstance(event, Delivery) and event.sampler == 1
    assert backend.receive(0.0) is None


def test_death_that_was_not_heard_of_is_told_again_when_something_is_asked(backend: ProcessSamplers) -> None:
    kill_sampler(backend, 1)
    event = asked(backend, 1)
    assert isinstance(event, Death) and event.sampler == 1


def test_last_request_is_answered_before_the_end(backend: ProcessSamplers) -> None:
    backend.send(0, 3, CloseEnvs())
    event = backend.receive(TIMEOUT)
    assert isinstance(event, Delivery) and event.number == 3
    event = backend.receive(TIMEOUT)
    assert isinstance(event, Death) and event.how == "exited with code 0"


def test_what_modules_have_registered_runs_when_the_fork_server_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = tmp_path / "ending"
    module = f"import atexit, os\n\natexit.register(lambda: open({str(ending)!r}, 'a').write(f'{{os.getpid()}} '))\n"
    (tmp_path / "simulator_with_an_ending.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    backend = ProcessSamplers(2, ["simulator_with_an_ending"])
    asked(backend, 1)
    assert not ending.exists()
    backend.close()
    # Once, and not in samplers.
    assert len(ending.read_text().split()) == 1
