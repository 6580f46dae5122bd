"""Mode "realtime": what a plant gets when the learner, a sampler or the process between them is killed."""

import functools
import os
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from plant_log import CLOSED, LoggedPlant, entries
from process_helpers import Program, Programs, kill, wait_until, wait_until_gone
from stable_baselines3.common.callbacks import BaseCallback

from sb3_walle import AsyncTD3
from sb3_walle.samplers.errors import SamplerError, SamplerWarning

HZ = 50.0
FALLBACK = 0.125
# Two ticks and what a busy machine may add.
TWO_TICKS = 2 / HZ + 0.1


def plant_model(path: Path | str, close_seconds: float = 0.0, **arguments: Any) -> AsyncTD3:
    return AsyncTD3(
        "MlpPolicy",
        functools.partial(LoggedPlant, str(path), close_seconds),
        mode="realtime",
        **{
            "control_hz": HZ,
            "fallback_action": [FALLBACK],
            "policy_kwargs": {"net_arch": [8]},
            "buffer_size": 1000,
            "batch_size": 4,
            "learning_starts": 10,
            "learner": "eager",
            **arguments,
        },
    )


class Pids(BaseCallback):
    """Tells the processes, and calls a function at a step."""

    def __init__(self, at_step: int, function: Any) -> None:
        super().__init__()
        self.at_step, self.function = at_step, function

    def _on_step(self) -> bool:
        if self.n_calls == self.at_step:
            self.function(self)
        return True


def learn_until_killed(path: str, close_seconds: float, callback_seconds: float) -> None:
    def tell(callback: Pids) -> None:
        print("is learning", flush=True)
        time.sleep(callback_seconds)

    plant_model(path, close_seconds).learn(1_000_000, callback=Pids(15, tell))


def check_plant_rests(path: Path, since: float) -> None:
    """The plant has had the fallback action within two ticks after something, then it was closed, and nothing else."""
    after = [entry for entry in entries(path) if entry.time > since]
    assert [entry.what for entry in after][-2:] == [f"{FALLBACK:.3f}", CLOSED]
    assert after[-2].time - since < TWO_TICKS
    assert [entry.what for entry in after].count(CLOSED) == 1
    assert len(after) <= 4


def started(programs: Programs, path: Path, close_seconds: float, callback_seconds: float) -> Program:
    program = programs.start(learn_until_killed, str(path), close_seconds, callback_seconds)
    program.wait_for("is learning")
    return program


@pytest.mark.parametrize("callback_seconds", [0.0, 600.0])
def test_plant_gets_the_fallback_action_when_the_learner_is_killed(
    callback_seconds: float, programs: Programs, tmp_path: Path
) -> None:
    program = started(programs, tmp_path / "log", 0.5, callback_seconds)
    since = time.perf_counter()
    os.kill(program.pid, signal.SIGKILL)
    wait_until_gone(program.pid)
    check_plant_rests(tmp_path / "log", since)


def test_plant_gets_the_fallback_action_when_all_others_are_killed(programs: Programs, tmp_path: Path) -> None:
    program = started(programs, tmp_path / "log", 0.0, 0.0)
    sampler = entries(tmp_path / "log")[-1].pid
    server = int(Path(f"/proc/{sampler}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(server, signal.SIGKILL)
    since = time.perf_counter()
    os.kill(program.pid, signal.SIGKILL)
    wait_until_gone(program.pid)
    check_plant_rests(tmp_path / "log", since)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_plant_rests_when_the_program_is_told_to_end(number: int, programs: Programs, tmp_path: Path) -> None:
    program = started(programs, tmp_path / "log", 0.5, 0.0)
    os.killpg(program.pid, number)
    assert program.wait() == (-number if number == signal.SIGINT else 128 + number)
    wait_until_gone(program.pid)
    whats = [entry.what for entry in entries(tmp_path / "log")]
    assert whats[-2:] == [f"{FALLBACK:.3f}", CLOSED] and whats.count(CLOSED) == 1


def test_killed_server_is_an_error_after_the_plant_rests(tmp_path: Path) -> None:
    moments = []

    def kill_server(callback: Pids) -> None:
        server = callback.training_env.env_method("server_pid")[0]
        moments.append(time.perf_counter())
        kill(server)

    with plant_model(tmp_path / "log") as model, pytest.raises(SamplerError, match="died with the process"):
        model.learn(1_000_000, callback=Pids(30, kill_server))
    check_plant_rests(tmp_path / "log", moments[0])


def kill_sampler(callback: Pids) -> None:
    kill(callback.training_env.env_method("pid")[0])


def test_death_of_a_sampler_is_an_error(tmp_path: Path) -> None:
    with plant_model(tmp_path / "log") as model:
        with pytest.raises(SamplerError, match=r"SIGKILL.*while acting in real time"):
            model.learn(1_000_000, callback=Pids(30, kill_sampler))
        n_entries = len(entries(tmp_path / "log"))
    # No restart resets the plant, and none closes it.
    assert len(entries(tmp_path / "log")) == n_entries


def test_callback_that_ignores_errors_does_not_hide_the_death_of_a_sampler(tmp_path: Path) -> None:
    def kill_and_ask(callback: Pids) -> None:
        kill_sampler(callback)
        with pytest.raises(SamplerError, match="SIGKILL"):
            callback.training_env.get_attr("n_steps")
        # Another sampler answers, which acts on nothing.
        assert callback.training_env.get_attr("n_steps") == [0]

    with plant_model(tmp_path / "log") as model, pytest.raises(SamplerError, match="SIGKILL"):
        model.learn(1_000_000, callback=Pids(30, kill_and_ask))
    assert len({entry.pid for entry in entries(tmp_path / "log")[:-1]}) == 1


def test_sampler_that_is_replaced_continues_within_a_second(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with plant_model(tmp_path / "log", on_failure="restart") as model:
            model.learn(150, callback=Pids(30, kill_sampler))
            buffer = model.replay_buffer
            assert buffer is not None and buffer.pos >= 149
    assert sum("SIGKILL" in str(warning.message) for warning in caught) == 1
    times = [(entry.time, entry.pid) for entry in entries(tmp_path / "log")]
    (first_of_second,) = {index for index in range(1, len(times)) if times[index][1] != times[index - 1][1]}
    assert times[first_of_second][0] - times[first_of_second - 1][0] < 2.0


def test_plant_rests_after_learn_and_after_close(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with plant_model(path) as model:
        model.learn(30)
        wait_until(lambda: entries(path)[-1].what == f"{FALLBACK:.3f}", "the plant has the fallback action")
        ended_at = time.perf_counter()
        time.sleep(5 / HZ)
        assert entries(path)[-1].time < ended_at
    assert [entry.what for entry in entries(path)][-2:] == [f"{FALLBACK:.3f}", CLOSED]


def test_function_that_fails_in_the_end_is_told_also_if_all_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "log"

    def move_back(observation: Any) -> Any:
        return [FALLBACK / (len(entries(path)) < 30)]

    with plant_model(path, fallback_action=move_back) as model:
        model.learn(60)
        with pytest.raises(SamplerError, match="division by zero") as raised:
            model.learn(60)
        assert isinstance(raised.value.__cause__, ZeroDivisionError)
    assert entries(path)[-1].what == CLOSED
    with pytest.warns(SamplerWarning, match="division by zero"), plant_model(path, fallback_action=move_back) as model:
        path.unlink()
        model.learn(60)


def test_sampler_without_a_plant_to_act_on_does_not_hang(tmp_path: Path) -> None:
    with plant_model(tmp_path / "log", step_timeout=0.5) as model:
        model.learn(30)
        time.sleep(0.7)
        assert model.get_env().get_attr("n_steps") != [0]
        model.learn(30, reset_num_timesteps=False)


def test_info_that_does_not_travel_is_an_error_after_the_plant_rests(tmp_path: Path) -> None:
    path = tmp_path / "log"

    class Handle:
        def __deepcopy__(self, memo: Any) -> "Handle":
            return self

        def __reduce__(self) -> Any:
            raise TypeError("a handle stays where it is")

    class Telling(LoggedPlant):
        def step(self, action: Any) -> Any:
            *result, _ = super().step(action)
            return (*result, {"motor": Handle()} if self.n_steps == 20 else {})

    model = plant_model(path, info_keys="all")
    model.set_env(functools.partial(Telling, str(path)))
    with model, pytest.raises(SamplerError, match="a handle stays where it is"):
        model.learn(1_000_000)
    assert [entry.what for entry in entries(path)][-2:] == [f"{FALLBACK:.3f}", CLOSED]


def test_environment_that_raises_is_an_error_with_its_traceback(tmp_path: Path) -> None:
    path = tmp_path / "log"

    class Raising(LoggedPlant):
        def step(self, action: Any) -> Any:
            if self.n_steps == 40:
                self.n_steps += 1
                raise ZeroDivisionError("the motor is stuck")
            return super().step(action)

    model = plant_model(path)
    model.set_env(functools.partial(Raising, str(path)))
    with model, pytest.raises(SamplerError, match="the motor is stuck") as raised:
        model.learn(1_000_000)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    # It may be the connection that is broken, or only this step.
    assert [entry.what for entry in entries(path)][-2:] == [f"{FALLBACK:.3f}", CLOSED]


def test_plant_does_not_wait_while_the_learner_is_busy(tmp_path: Path) -> None:
    # For longer than the channel has room for messages.
    def be_busy(callback: Pids) -> None:
        time.sleep(2.0)

    with plant_model(tmp_path / "log", control_hz=500) as model:
        model.learn(2000, callback=Pids(30, be_busy))
        statistics = model.realtime_statistics
        assert statistics is not None and statistics.period_ms.quantile(0.99) < 20
        assert statistics.period_ms.largest < 500
        buffer = model.replay_buffer
        assert buffer is not None and buffer.full
