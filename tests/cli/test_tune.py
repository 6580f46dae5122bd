"""``sb3-walle tune``: what it tries, and what it advises."""

from pathlib import Path
from typing import Any

import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_walle import AsyncPPO
from sb3_walle.cli import main, tuning
from sb3_walle.cli.throughput import Stopwatch
from sb3_walle.cli.tuning import Contender, Outcome, Tuning
from sb3_walle.cli.tuning_report import advice, report


def contender(n_samplers: int, mode: str = "pipelined", one_thread: bool = False) -> Contender:
    arguments = {"n_samplers": n_samplers, "envs_per_sampler": 8 // n_samplers, "mode": mode}
    return Contender(AsyncPPO, arguments, lambda: pytest.fail("is not made"), one_thread)


DUMMY, SUBPROC = (
    Contender(PPO, {"n_envs": 8, "vec_env_cls": vec_env}, lambda: pytest.fail("is not made"))
    for vec_env in (DummyVecEnv, SubprocVecEnv)
)


def outcome(rates: dict[Contender, list[float]]) -> Outcome:
    return Outcome(Tuning("CartPole-v1", n_envs=8), "MlpPolicy", rates)


def test_the_fastest_of_those_that_were_measured_most_is_advised() -> None:
    fast, lucky = contender(4), contender(2)
    found = outcome({fast: [90, 100, 110], lucky: [120], DUMMY: [20], SUBPROC: [50]})
    assert found.best is fast
    assert advice(found).splitlines()[-1] == (
        'model = AsyncPPO("MlpPolicy", "CartPole-v1", n_samplers=4, envs_per_sampler=2, mode="pipelined")'
    )
    table = report(found)
    assert "AsyncPPO, 4 x 2, pipelined      100        2.00x         3" in table
    assert "PPO, SubprocVecEnv               50        1.00x         1" in table


@pytest.mark.parametrize(("rate", "is_worth_it"), [(104, False), (110, True)])
def test_a_little_speed_is_no_reason_for_another_mode(rate: float, is_worth_it: bool) -> None:
    usual, unusual = contender(4), contender(4, "free")
    assert outcome({usual: [100], unusual: [rate], DUMMY: [1]}).best is (unusual if is_worth_it else usual)


def test_threads_and_sb3_are_advised_where_they_are_best() -> None:
    assert "torch.set_num_threads(1)\n" in advice(outcome({contender(4, one_thread=True): [2], DUMMY: [1]}))
    text = advice(outcome({contender(4): [1], DUMMY: [2]}))
    assert "SB3's PPO is fastest" in text
    assert 'model = PPO("MlpPolicy", make_vec_env("CartPole-v1", n_envs=8, vec_env_cls=DummyVecEnv))' in text


@pytest.fixture
def few_contenders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each SubprocVecEnv takes seconds to start, and each model its part of one."""
    monkeypatch.setattr(tuning, "VEC_ENVS", {"DummyVecEnv": DummyVecEnv})
    monkeypatch.setattr(tuning, "N_FINALS", 1)
    monkeypatch.setattr(tuning, "N_FINALISTS", 1)


@pytest.mark.usefixtures("few_contenders")
def test_the_command_measures_prints_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[Any] = []

    def measure(model: Any, stopwatch: Stopwatch) -> float:
        trained.append((type(model).__name__, getattr(model, "mode", None), model.n_envs))
        return 1000.0 if hasattr(model, "mode") else 1.0

    monkeypatch.setattr(tuning, "measure", measure)
    image = tmp_path / "tune.png"
    assert main(["tune", "CartPole-v1", "--n-envs", "2", "--learner", "eager", "--image", str(image)]) == 0
    assert image.read_bytes().startswith(b"\x89PNG")
    assert {name for name, _, _ in trained} == {"PPO", "AsyncPPO"}
    assert {mode for _, mode, _ in trained} == {None, "pipelined", "sync", "free"}
    assert {n_envs for *_, n_envs in trained} == {2}
    output = capsys.readouterr().out
    assert 'model = AsyncPPO("MlpPolicy", "CartPole-v1", n_samplers=' in output
    assert f"Drawn in {image}" in output


@pytest.mark.usefixtures("few_contenders")
def test_the_numbers_are_those_of_training(tmp_path: Path) -> None:
    options = ["--algo", "dqn", "--n-envs", "2", "--seconds", "0.1", "--learner", "eager"]
    assert main(["tune", "CartPole-v1", *options, "--image", str(tmp_path / "tune.png")]) == 0


def test_an_unknown_environment_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "NoSuchEnv-v0"]) == 2
    assert "unknown environment 'NoSuchEnv-v0'" in capsys.readouterr().err
