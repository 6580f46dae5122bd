"""Environments that raise, crash, hang, print or show NaN: training continues, and the user is told what happened."""

import functools
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_envs import (
    BadTask,
    BuiltBadly,
    Clutter,
    DyingLevels,
    NotFiniteTask,
    Seeded,
    Worse,
    exit_at_once,
    exit_politely,
    hang,
    hang_in_native_code,
    overflow_native_stack,
    print_megabytes,
    raise_error,
    recurse_deeply,
    segfault,
)
from fault_models import KINDS, is_ordered, learned_observations, make_model
from follow_samples import FollowSamples
from process_helpers import DEADLINE
from stable_baselines3.common.callbacks import BaseCallback
from stamped_task import StampedTask

from sb3_walle import NonFiniteError, SamplerError, SamplerVecEnv
from sb3_walle.samplers.errors import SamplerWarning

BACKENDS = ["process", "ray"]
SETTINGS: dict[str, Any] = {"n_steps": 64, "batch_size": 128, "n_epochs": 1}
TIMESTEPS = 10 * 128
# For what has nothing to do with modes
ON_POLICY = [("pipelined", "process"), ("pipelined", "ray")]
OFF_POLICY = [("DQN pipelined", "process"), ("pipelined", "ray")]

# What is told of each, apart from which sampler it was.
DEEDS: dict[Callable[[], None], str] = {
    raise_error: r"failed while {activity}\..*ArithmeticError: the simulation diverged",
    segfault: r"was killed by signal 11 \(SIGSEGV\) while {activity}\..*bad_envs\.py.* in segfault",
    exit_at_once: r"exited with code 3 while {activity}\.",
    exit_politely: r"failed while {activity}\..*SystemExit: no licence",
}


def name_of(parameter: Any) -> str:
    """What the names of tests have for it."""
    return getattr(parameter, "__name__", str(parameter))


def learned(env_fn: Callable[[], Any], kind: str = "pipelined", **kwargs: Any) -> tuple[int, list[str]]:
    """Train beside a good environment. Returns the number of restarts, and what the user was told."""
    samples = FollowSamples(is_ordered(kind))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        env = SamplerVecEnv([env_fn, StampedTask], **kwargs)
        with make_model(kind, env, **SETTINGS) as model:
            model.learn(TIMESTEPS, callback=samples)
            n_restarts = env.client.n_restarts
    samples.check(TIMESTEPS)
    assert model.num_timesteps == TIMESTEPS
    return n_restarts, [str(warning.message) for warning in caught if warning.category is SamplerWarning]


@pytest.mark.parametrize(
    ("deed", "kind", "backend"),
    [
        *((deed, kind, "process") for deed, kind in zip(DEEDS, KINDS, strict=True)),
        (exit_at_once, "DQN pipelined", "ray"),
    ],
    ids=name_of,
)
def test_step_that_goes_wrong(deed: Callable[[], None], kind: str, backend: str, tmp_path: Path) -> None:
    bad = functools.partial(BadTask, "step", deed, tmp_path, n_times=2, at=70)
    n_restarts, told = learned(bad, kind, backend=backend)
    # In mode "free" the other sampler may have collected everything before the second time.
    assert n_restarts == len(told) == 2 or (not is_ordered(kind) and n_restarts == len(told) == 1)
    assert re.match(f"(?s)Sampler 0 {DEEDS[deed].format(activity='collecting experience')}", told[0])
    assert all(f"Restart {number} of at most 10 within 10 minutes" in text for number, text in enumerate(told, start=1))


@pytest.mark.parametrize(
    ("deed", "kind", "told_of"),
    [
        (overflow_native_stack, "DQN pipelined", r"was killed by signal 11 \(SIGSEGV\).*bad_envs\.py.* in <lambda>"),
        (recurse_deeply, "pipelined", r"failed while.*bad_envs\.py.* in call.*RecursionError"),
    ],
    ids=name_of,
)
def test_endless_recursion_is_a_death_and_not_a_wait(
    deed: Callable[[], None], kind: str, told_of: str, tmp_path: Path
) -> None:
    n_restarts, told = learned(functools.partial(BadTask, "step", deed, tmp_path), kind, step_timeout=DEADLINE)
    assert n_restarts == len(told) == 1
    assert re.match(f"(?s)Sampler 0 {told_of}", told[0])


@pytest.mark.parametrize("kind", ["free", "DQN pipelined"])
def test_what_fails_in_every_new_sampler_ends_training_at_the_second_time(kind: str, tmp_path: Path) -> None:
    bad = functools.partial(BadTask, "step", raise_error, tmp_path, n_times=10, at=1)
    env = SamplerVecEnv([bad] * 2)
    with make_model(kind, env, **SETTINGS) as model, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(SamplerError, match="another restart would not help") as error:
            model.learn(TIMESTEPS)
    assert isinstance(error.value.__cause__, ArithmeticError)
    assert [warning.category for warning in caught].count(SamplerWarning) == env.client.n_restarts == 1


def test_what_fails_again_after_a_chunk_is_restarted_again(tmp_path: Path) -> None:
    """A simulator that refuses connections for some time looks the same, even if it connected before learn() began."""
    n_restarts, _ = learned(functools.partial(BadTask, "step", raise_error, tmp_path, n_times=4, at=70))
    assert n_restarts == 4


@pytest.mark.parametrize(
    ("kind", "deed", "at"),
    [
        ("pipelined", raise_error, 1),
        ("DQN pipelined", segfault, 5),
        ("DQN pipelined", exit_at_once, 1),
        ("pipelined", exit_politely, 5),
    ],
    ids=name_of,
)
def test_reset_that_goes_wrong(kind: str, deed: Callable[[], None], at: int, tmp_path: Path) -> None:
    """The first reset is made when training begins, the fifth in the middle of collecting."""
    activity = "resetting its environments" if at == 1 else "collecting experience"
    n_restarts, told = learned(functools.partial(BadTask, "reset", deed, tmp_path, at=at), kind)
    assert n_restarts == len(told) == 1
    assert re.match(f"(?s)Sampler 0 {DEEDS[deed].format(activity=activity)}", told[0])


@pytest.mark.parametrize("deed", [segfault, exit_at_once])
def test_constructor_that_dies_is_tried_again(deed: Callable[[], None], tmp_path: Path) -> None:
    n_restarts, told = learned(functools.partial(BadTask, "__init__", deed, tmp_path))
    assert n_restarts == len(told) == 1
    assert re.match(f"(?s)Sampler 0 {DEEDS[deed].format(activity='building its environments')}", told[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_constructor_that_raises_is_an_error_at_once(backend: str, tmp_path: Path) -> None:
    with pytest.raises(SamplerError, match=r"(?s)Sampler 0 failed while building .*the simulation diverged"):
        SamplerVecEnv([functools.partial(BadTask, "__init__", raise_error, tmp_path)], backend=backend)


def test_successor_that_cannot_be_built_is_tried_again(tmp_path: Path) -> None:
    n_restarts, told = learned(functools.partial(BuiltBadly, tmp_path), "DQN pipelined")
    assert n_restarts == len(told) == 3
    assert "SIGSEGV" in told[0]
    assert re.match("(?s)Sampler 0 failed while building its environments.*no licence is left", told[1])


def test_close_that_raises_is_told(tmp_path: Path) -> None:
    n_restarts, told = learned(functools.partial(BadTask, "close", raise_error, tmp_path))
    assert n_restarts == 0
    assert re.match("(?s)Sampler 0 failed while closing its environments.*the simulation diverged", told[0])
    assert len(told) == 1


@pytest.mark.parametrize(
    ("kind", "deed", "backend"),
    [
        ("pipelined", segfault, "process"),
        ("DQN pipelined", exit_at_once, "process"),
        ("pipelined", hang, "process"),
        ("pipelined", hang, "ray"),
    ],
    ids=name_of,
)
def test_close_that_dies_or_hangs_leaves_nothing(
    kind: str, deed: Callable[[], None], backend: str, tmp_path: Path
) -> None:
    bad = functools.partial(BadTask, "close", deed, tmp_path)
    n_restarts, told = learned(bad, kind, close_timeout=1.0, backend=backend)
    assert n_restarts == 0
    if deed is hang:
        assert told == ["Killed after 1 s without having closed the environments: sampler 0."]
    else:
        assert told == []


@pytest.mark.parametrize(
    ("kind", "deed", "backend", "method"),
    [
        ("pipelined", hang, "process", "step"),
        ("pipelined", hang, "process", "reset"),
        ("DQN pipelined", hang_in_native_code, "process", "step"),
        ("DQN pipelined", hang_in_native_code, "process", "reset"),
        ("sync", hang, "ray", "step"),
    ],
    ids=name_of,
)
def test_hang_is_ended_by_step_timeout(
    kind: str, deed: Callable[[], None], backend: str, method: str, tmp_path: Path
) -> None:
    bad = functools.partial(BadTask, method, deed, tmp_path, at=5)
    n_restarts, told = learned(bad, kind, step_timeout=1.0, backend=backend)
    assert n_restarts == len(told) == 1
    assert told[0].startswith("Sampler 0 hung: a step or a reset of its environment took longer than step_timeout=1 s")
    assert re.search(r"bad_envs\.py\", line \d+ in hang", told[0]), "it is told where"


def test_megabytes_that_are_printed_hold_up_no_process(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    n_restarts, told = learned(functools.partial(BadTask, "step", print_megabytes, tmp_path, n_times=5))
    assert n_restarts == len(told) == 0
    printed = capfd.readouterr()
    assert printed.out.count("chatty") == printed.err.count("chatty") == 250_000


def test_raise_stops_at_the_first_death_and_the_model_can_still_learn(tmp_path: Path) -> None:
    bad = functools.partial(BadTask, "step", segfault, tmp_path)
    env = SamplerVecEnv([bad, StampedTask], on_failure="raise")
    with make_model("DQN pipelined", env, **SETTINGS) as model:
        with pytest.raises(SamplerError, match=r"Sampler 0 was killed by signal 11 \(SIGSEGV\)"):
            model.learn(TIMESTEPS)
        model.save(tmp_path / "model")
        samples = FollowSamples()
        model.learn(TIMESTEPS, callback=samples)
        samples.check(TIMESTEPS)
    assert model.num_timesteps == TIMESTEPS


@pytest.mark.parametrize(("kind", "backend"), ON_POLICY)
@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
def test_too_many_deaths_are_an_error_with_the_first_and_the_last_traceback(
    kind: str, backend: str, tmp_path: Path
) -> None:
    env = SamplerVecEnv([functools.partial(Worse, tmp_path), StampedTask], max_restarts=2, backend=backend)
    with make_model(kind, env, **SETTINGS) as model:
        with pytest.raises(SamplerError, match="more often than max_restarts=2 times within 10 minutes") as caught:
            model.learn(TIMESTEPS)
        first, last = str(caught.value).split("The last death:")
        assert "ArithmeticError: the simulation diverged" in first
        assert "SystemExit: no licence" in last
        assert isinstance(caught.value.__cause__, SystemExit)
        assert model.predict(model.observation_space.sample())[0] in (0, 1)


class SetLevel(BaseCallback):
    """Sets levels before the first rollout."""

    def _on_training_start(self) -> None:
        self.training_env.env_method("set_level", 3)
        self.training_env.set_attr("height", 2)
        self.training_env.env_method("set_level", 4, indices=1)

    def _on_step(self) -> bool:
        return True


@pytest.mark.parametrize(("kind", "backend"), OFF_POLICY)
@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
def test_what_was_set_is_set_again_in_the_new_sampler(kind: str, backend: str, tmp_path: Path) -> None:
    levels = [functools.partial(DyingLevels, tmp_path / name) for name in ("one", "other")]
    env = SamplerVecEnv(levels, backend=backend)
    with make_model(kind, env, **SETTINGS) as model:
        model.learn(256, callback=SetLevel())
        assert env.client.n_restarts == 2
        assert env.get_attr("level") == [3, 4]
        assert env.get_attr("height") == [2, 2]


@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
def test_streams_of_a_new_sampler_are_new_and_reproducible(tmp_path: Path) -> None:
    def drawn(name: str) -> list[list[str]]:
        folder = tmp_path / name
        folder.mkdir()
        env = SamplerVecEnv([functools.partial(Seeded, folder, place, place == 0) for place in range(2)])
        with make_model("sync", env, seed=1, **SETTINGS) as model:
            model.learn(3 * 128)
            assert env.client.n_restarts == 1
        return [(folder / str(place)).read_text().split() for place in range(2)]

    one, other = drawn("one"), drawn("other")
    assert one == other
    for place in range(2):
        assert len(set(one[place])) == len(one[place]), "random numbers come again"


NOT_FINITE = [
    ("observation", np.nan, r"observations of environment 0: nan in step \d+ of the chunk"),
    ("observation", -np.inf, r"observations of environment 0: -inf in step \d+ of the chunk"),
    ("reward", np.inf, r"rewards of environment 0: inf in step \d+ of the chunk"),
    ("terminal observation", np.nan, r"the last observation of an episode of environment 0: nan in step \d+"),
]


@pytest.mark.parametrize(("kind", "normalize"), [("pipelined", False), ("DQN pipelined", True)])
@pytest.mark.parametrize(("what", "value", "message"), NOT_FINITE)
def test_numbers_that_are_not_finite_never_reach_the_learner(
    kind: str, what: str, value: float, message: str, normalize: bool, tmp_path: Path
) -> None:
    env = SamplerVecEnv([functools.partial(NotFiniteTask, what, value, tmp_path), StampedTask])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with make_model(kind, env, check_nan=True, normalize=normalize, **SETTINGS) as model:
            model.learn(TIMESTEPS)
            assert env.client.n_restarts == 1
            assert np.isfinite(learned_observations(model)).all()
            if normalize:
                assert np.isfinite(model.get_vec_normalize_env().obs_rms.mean).all()
    told = [str(warning.message) for warning in caught if warning.category is SamplerWarning]
    assert len(told) == 1 and told[0].startswith("Sampler 0 failed while collecting experience")
    assert re.search(message if not normalize else "of environment 0: ", told[0])


def test_number_that_is_not_finite_ends_learn_where_failures_are_raised(tmp_path: Path) -> None:
    env = SamplerVecEnv([functools.partial(NotFiniteTask, "reward", np.nan, tmp_path)], on_failure="raise")
    with (
        make_model("DQN pipelined", env, check_nan=True, **{**SETTINGS, "batch_size": 64}) as model,
        pytest.raises(SamplerError, match="Sampler 0 failed") as caught,
    ):
        model.learn(TIMESTEPS)
    assert isinstance(caught.value.__cause__, NonFiniteError)


@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
def test_what_goes_wrong_again_and_again_is_an_error_that_says_what() -> None:
    env = SamplerVecEnv([Clutter], max_restarts=1)
    settings = {**SETTINGS, "batch_size": 64}
    with (
        make_model("pipelined", env, info_keys="all", **settings) as model,
        pytest.raises(SamplerError, match="pickle"),
    ):
        model.learn(TIMESTEPS)
