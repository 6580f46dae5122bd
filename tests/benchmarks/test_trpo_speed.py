"""The benchmark of TRPO: that it measures all contenders, and that its report can be read."""

from benchmarks.speed.measurements import Medians
from benchmarks.trpo import BARS, STEPS_PER_SECOND, Settings, measure_once, report


def test_every_contender_is_measured_and_compared() -> None:
    settings = Settings("CartPole-v1", 1, 2, samples_per_iteration=64, iterations=1, learner="eager")
    found = list(measure_once(settings))
    assert [name for _, name, _ in found] == [
        "sb3-contrib's TRPO, DummyVecEnv(2)",
        *(f"AsyncTRPO, 1 x 2, {mode}" for mode in BARS),
    ]
    assert all(rate > 0 for _, _, rate in found)


def test_report_has_ratios_and_bars() -> None:
    names = [trainee.name for trainee in Settings().trainees]
    text = report(Medians([(STEPS_PER_SECOND, name, rate) for name, rate in zip(names, (100, 260, 380), strict=True)]))
    assert "2.60x" in text and "2.5x" in text and "3.80x" in text and "3.5x" in text
