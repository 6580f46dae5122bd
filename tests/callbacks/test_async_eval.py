"""AsyncEvalCallback finds what EvalCallback finds, beside training; when that counts, what is logged and saved."""

import functools
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from oracle import assert_same_weights
from space_env import SpaceEnv
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecFrameStack, VecNormalize
from task_envs import Graded, Task, TellsOfTorch
from toy_envs import RandomWalk, StampedEnv
from training_pairs import N_ENVS, ROLLOUT, SETTINGS, Lines, Trace, logged_by, ours, sb3

import sb3_walle
from sb3_walle import AsyncEvalCallback, AsyncPPO, SamplerVecEnv
from sb3_walle.algorithm.info_needs import wants_all_infos

SEED = 5
Classes = tuple[type[BaseAlgorithm], type[BaseAlgorithm]]
ON_POLICY: dict[str, Any] = {"n_steps": 20}
OFF_POLICY: dict[str, Any] = {"train_freq": 20, "learning_starts": 20, "batch_size": 8, "buffer_size": 1000}
ALGORITHMS: dict[str, tuple[type[BaseAlgorithm], dict[str, Any], Any]] = {
    "A2C": (A2C, ON_POLICY, Task),
    "DDPG": (DDPG, OFF_POLICY, Task),
    "DQN": (DQN, OFF_POLICY, StampedEnv),
    "PPO": (PPO, {**ON_POLICY, "n_epochs": 2, "batch_size": 20}, Task),
    "SAC": (SAC, OFF_POLICY, Task),
    "TD3": (TD3, OFF_POLICY, Task),
}


def inline(env: Any, n_envs: int = 1, **kwargs: Any) -> SamplerVecEnv:
    """Seeded environments that are evaluated in this process, which takes no time to start."""
    samplers = SamplerVecEnv([env] * n_envs, n_envs, backend="inline", **kwargs)
    samplers.seed(SEED)
    return samplers


def results(folder: Path) -> dict[str, np.ndarray]:
    return dict(np.load(folder / "evaluations.npz"))


def assert_same_results(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array)


# SB3 as the oracle


@pytest.mark.parametrize(
    ("n_eval_envs", "eval_env"),
    [(1, lambda: inline(Task)), (2, lambda: make_vec_env(Task, 2, seed=SEED))],
    ids=["1 inline", "2 in a process"],
)
def test_a_training_has_sb3s_evaluations_to_the_last_bit(n_eval_envs: int, eval_env: Any, tmp_path: Path) -> None:
    """Also those after the first, which continue the random streams of the environments."""
    models: dict[str, PPO] = {}
    logs, children, evaluations = {}, {}, {}
    for name, make, kind in (("sb3", sb3, EvalCallback), ("ours", ours, AsyncEvalCallback)):
        models[name] = make(n_steps=50, batch_size=50)
        logs[name] = logged_by(models[name])
        children[name] = Trace("best", []), Trace("after", [])
        evaluations[name] = kind(
            make_vec_env(Task, n_eval_envs, seed=SEED) if kind is EvalCallback else eval_env(),
            callback_on_new_best=children[name][0],
            callback_after_eval=children[name][1],
            n_eval_episodes=3,
            eval_freq=35,
            log_path=str(tmp_path / name),
            best_model_save_path=str(tmp_path / name),
            verbose=0,
        )
        models[name].learn(4 * 150, callback=evaluations[name])
    evaluations["ours"].eval_env.close()
    expected = results(tmp_path / "sb3")
    assert_same_results(results(tmp_path / "ours"), expected)
    assert expected.keys() == {"timesteps", "results", "ep_lengths", "successes"}
    assert evaluations["ours"].best_mean_reward == evaluations["sb3"].best_mean_reward
    assert evaluations["ours"].last_mean_reward == evaluations["sb3"].last_mean_reward
    calls = {name: [child.n_calls for child in pair] for name, pair in children.items()}
    assert calls["ours"] == calls["sb3"] and 0 < calls["ours"][0] < calls["ours"][1] == 200 // 35
    best = [PPO.load(tmp_path / name / "best_model") for name in models]
    assert best[0].num_timesteps == best[1].num_timesteps
    assert_same_weights(*best)
    assert_same_weights(*models.values())
    figures = ("eval/mean_reward", "eval/mean_ep_length", "eval/success_rate", "time/total_timesteps", "step")
    logged = [[[line[key] for key in figures] for line in log if figures[0] in line] for log in logs.values()]
    assert logged[0] == logged[1] and len(logged[0]) == 200 // 35


@pytest.mark.parametrize("actor", ["torch", "auto", "SB3"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_is_evaluated_as_sb3_evaluates_its_best_model(name: str, actor: str, tmp_path: Path) -> None:
    sb3_class, settings, env = ALGORITHMS[name]
    common = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", **settings}
    if actor == "SB3":
        model = sb3_class("MlpPolicy", DummyVecEnv([env]), **common)  # type: ignore[arg-type]
    else:
        ours_class = getattr(sb3_walle, f"Async{name}")
        model = ours_class("MlpPolicy", env, n_samplers=1, backend="inline", actor=actor, learner="eager", **common)
    evaluation = AsyncEvalCallback(
        inline(env), eval_freq=60, log_path=str(tmp_path), best_model_save_path=str(tmp_path), verbose=0
    )
    model.learn(80, callback=evaluation)
    best = sb3_class.load(tmp_path / "best_model", device="cpu")
    assert best.num_timesteps == 60
    rewards, lengths = evaluate_policy(best, make_vec_env(env, seed=SEED), 5, return_episode_rewards=True)
    assert evaluation.evaluations_length == [lengths]
    if actor == "torch":
        assert evaluation.evaluations_results == [rewards]
    np.testing.assert_allclose(evaluation.evaluations_results, [rewards], rtol=1e-4)


@pytest.mark.parametrize("n_samplers", [1, 2, 4])
def test_several_samplers_share_the_episodes(n_samplers: int, tmp_path: Path) -> None:
    samplers = SamplerVecEnv([Task] * 4, 4 // n_samplers, backend="inline")
    samplers.seed(SEED)
    evaluation = AsyncEvalCallback(samplers, n_eval_episodes=7, eval_freq=15, log_path=str(tmp_path), verbose=0)
    expected = EvalCallback(
        make_vec_env(Task, 4, seed=SEED), n_eval_episodes=7, eval_freq=15, log_path=str(tmp_path / "sb3"), verbose=0
    )
    ours().learn(ROLLOUT, callback=[evaluation, expected])
    # torch rounds otherwise where it computes for other numbers of environments together.
    found = results(tmp_path)
    np.testing.assert_allclose(found.pop("results"), results(tmp_path / "sb3")["results"], rtol=1e-6)
    assert_same_results(found, {key: array for key, array in results(tmp_path / "sb3").items() if key != "results"})


SPACES = ("Box", "Discrete", "MultiDiscrete", "MultiBinary")


@pytest.mark.parametrize("actions", SPACES)
def test_numpy_takes_the_mode_of_every_distribution(actions: str, tmp_path: Path) -> None:
    space = {
        "Box": spaces.Box(-0.1, 0.2, (2, 2)),
        "Discrete": spaces.Discrete(3),
        "MultiDiscrete": spaces.MultiDiscrete([3, 2, 4]),
        "MultiBinary": spaces.MultiBinary(3),
    }[actions]
    env = functools.partial(SpaceEnv, spaces.Box(-1, 1, (3,)), space)
    found, expected = (
        kind(eval_env, n_eval_episodes=6, eval_freq=15, log_path=str(tmp_path / kind.__name__), verbose=0)
        for kind, eval_env in (
            (AsyncEvalCallback, inline(env, 2)),
            (EvalCallback, make_vec_env(env, 2, seed=SEED)),
        )
    )
    ours("pipelined", env=env, actor="numpy").learn(ROLLOUT, callback=[found, expected])
    np.testing.assert_array_equal(found.evaluations_length, expected.evaluations_length)
    np.testing.assert_allclose(found.evaluations_results, expected.evaluations_results, rtol=1e-4)
    assert len(set(np.ravel(found.evaluations_results))) == 6


def test_a_sampler_that_evaluates_in_numpy_does_not_import_torch() -> None:
    for actor, expected in (("numpy", 0.0), ("torch", 1.0)):
        evaluation = AsyncEvalCallback(TellsOfTorch, n_eval_episodes=1, eval_freq=15, verbose=0)
        ours("pipelined", actor=actor, env=TellsOfTorch).learn(ROLLOUT, callback=evaluation)
        assert evaluation.last_mean_reward == expected
        evaluation.eval_env.close()


def test_dictionaries_and_frames_are_evaluated(tmp_path: Path) -> None:
    box = spaces.Box(-9, 9, (3,))
    env_fn = functools.partial(SpaceEnv, spaces.Dict({"scaled": box, "raw": box}), spaces.Box(-1, 1, (1,)))

    def wrapped(venv: VecEnv) -> VecEnv:
        return VecFrameStack(VecNormalize(venv, norm_obs_keys=["scaled"]), 2)

    env = wrapped(SamplerVecEnv([env_fn] * N_ENVS, backend="inline"))
    model = AsyncPPO("MultiInputPolicy", env, actor="torch", **SETTINGS)
    bare, same = (
        AsyncEvalCallback(eval_env, eval_freq=25, log_path=str(tmp_path / name), verbose=0)
        for name, eval_env in (("bare", inline(env_fn)), ("same", wrapped(inline(env_fn))))
    )
    oracle_env = wrapped(make_vec_env(env_fn, seed=SEED))
    oracle = EvalCallback(oracle_env, eval_freq=25, log_path=str(tmp_path / "sb3"), verbose=0)
    oracle_env.venv.training = False  # type: ignore[attr-defined]
    model.learn(3 * ROLLOUT, callback=[bare, same, oracle])
    assert_same_results(results(tmp_path / "bare"), results(tmp_path / "sb3"))
    assert_same_results(results(tmp_path / "same"), results(tmp_path / "sb3"))


# Normalisation


def test_the_best_model_lies_beside_its_statistics(tmp_path: Path) -> None:
    statistics = {}

    class Note(BaseCallback):
        def _on_step(self) -> bool:
            statistics[self.num_timesteps] = deepcopy(self.model.get_vec_normalize_env().obs_rms)
            return True

    evaluation = AsyncEvalCallback(
        inline(functools.partial(Graded, [1, 1, 5, 5, 2])),
        n_eval_episodes=1,
        eval_freq=15,
        best_model_save_path=str(tmp_path),
        verbose=0,
    )
    ours(normalize=True).learn(3 * ROLLOUT, callback=[evaluation, Note()])
    best = PPO.load(tmp_path / "best_model")
    env = VecNormalize.load(str(tmp_path / "vecnormalize.pkl"), DummyVecEnv([Task]))
    assert best.num_timesteps == 2 * 45
    np.testing.assert_array_equal(env.obs_rms.mean, statistics[90].mean)
    assert not np.array_equal(env.obs_rms.mean, statistics[180].mean)


@pytest.mark.parametrize("env_of_eval", ["wrapped", "bare"])
def test_a_normalised_training_has_sb3s_evaluations(env_of_eval: str, tmp_path: Path) -> None:
    model = PPO("MlpPolicy", VecNormalize(make_vec_env(Task, N_ENVS)), **SETTINGS)

    def wrapped(venv: VecEnv) -> VecEnv:
        return VecNormalize(venv, training=False, norm_reward=False)

    found = AsyncEvalCallback(
        wrapped(inline(Task)) if env_of_eval == "wrapped" else inline(Task),
        eval_freq=15,
        log_path=str(tmp_path / "ours"),
        verbose=0,
    )
    oracle_env = wrapped(make_vec_env(Task, seed=SEED))
    oracle = EvalCallback(oracle_env, eval_freq=15, log_path=str(tmp_path / "sb3"), verbose=0)
    model.learn(3 * ROLLOUT, callback=[found, oracle])
    expected, ours_ = results(tmp_path / "sb3"), results(tmp_path / "ours")
    np.testing.assert_allclose(ours_["results"], expected["results"], rtol=1e-4)
    assert len(expected["results"]) == 4


# When a result counts


def slow(env: Any, seconds: float) -> Any:
    return functools.partial(env, seconds)


@pytest.mark.parametrize("mode", ["sync", "pipelined"])
def test_the_same_seed_gives_the_same_evaluations_and_the_same_end(mode: str, tmp_path: Path) -> None:
    """Whether evaluations are much faster than training or much slower; with environments that nothing else seeds."""
    found: list[tuple[int, dict[str, np.ndarray]]] = []
    for number, (train_delay, eval_delay) in enumerate(((0.0, 0.004), (0.004, 0.0))):
        evaluation = AsyncEvalCallback(
            slow(RandomWalk, eval_delay),
            callback_after_eval=StopTrainingOnNoModelImprovement(1),
            n_eval_episodes=3,
            eval_freq=10,
            log_path=str(tmp_path / str(number)),
            verbose=0,
        )
        model = ours(mode, env=slow(RandomWalk, train_delay), learner="eager", actor="numpy")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="An evaluation of 3 episodes takes longer")
            model.learn(20 * ROLLOUT, callback=evaluation)
        evaluation.eval_env.close()
        found.append((model.num_timesteps, results(tmp_path / str(number))))
    assert found[0][0] == found[1][0] < 20 * ROLLOUT
    assert_same_results(found[0][1], found[1][1])
    # A result counts when the next evaluation comes due.
    assert found[0][0] == found[0][1]["timesteps"][-1] + 10 * N_ENVS


def test_other_seeds_give_other_evaluations() -> None:
    found = []
    for seed in (1, 1, 2):
        evaluation = AsyncEvalCallback(SamplerVecEnv([Task], backend="inline"), eval_freq=10, verbose=0)
        model = ours(seed=seed, learning_rate=0.0)
        model.policy.load_state_dict(ours(seed=0).policy.state_dict())
        model.learn(ROLLOUT, callback=evaluation)
        found.append(evaluation.last_mean_reward)
    assert found[0] == found[1] != found[2]


def test_training_that_can_be_repeated_waits_and_says_so() -> None:
    evaluation = AsyncEvalCallback(slow(RandomWalk, 0.01), n_eval_episodes=2, eval_freq=5, verbose=0)
    with pytest.warns(UserWarning, match="takes longer than training.*training waits for it.*eval_freq") as caught:
        ours(actor="numpy").learn(ROLLOUT, callback=evaluation)
    assert len(caught) == 1
    assert evaluation.n_skipped == 0
    evaluation.eval_env.close()


@pytest.mark.parametrize("mode", ["free", "pipelined"])
def test_training_that_cannot_be_repeated_skips_and_says_so(mode: str, tmp_path: Path) -> None:
    """In mode "free", and without a seed."""
    evaluation = AsyncEvalCallback(
        slow(RandomWalk, 0.01), n_eval_episodes=1, eval_freq=5, log_path=str(tmp_path), verbose=0
    )
    model = ours(mode, env=slow(RandomWalk, 0.002), seed=1 if mode == "free" else None)
    log = logged_by(model)
    with pytest.warns(UserWarning, match="takes longer than training.*evaluations are skipped meanwhile") as caught:
        model.learn(20 * ROLLOUT, callback=evaluation)
    evaluation.eval_env.close()
    assert len(caught) == 1
    n_due, timesteps = 20 * 20 // 5, results(tmp_path)["timesteps"]
    assert 2 <= len(timesteps) < n_due and len(timesteps) + evaluation.n_skipped == n_due
    assert all(timesteps % (5 * N_ENVS) == 0)
    logged = [line for line in log if "eval/mean_reward" in line]
    assert [line["step"] for line in logged] == timesteps.tolist()
    assert logged[-1]["eval/n_skipped"] == evaluation.n_skipped


def test_without_a_seed_a_result_counts_as_soon_as_it_is_there() -> None:
    """Inline, it is there at the next step."""
    after = Trace("after", [])
    evaluation = AsyncEvalCallback(inline(Task), callback_after_eval=after, eval_freq=10, verbose=0)

    class Wait(BaseCallback):
        def _on_step(self) -> bool:
            evaluation._evaluator.look(at_once=True)
            return True

    ours("free").learn(2 * ROLLOUT, callback=[Wait(), evaluation])
    steps = [event[3] for event in after.events if event[1] == "step"]
    assert steps == [11 * N_ENVS, 21 * N_ENVS, 31 * N_ENVS, 2 * ROLLOUT]


def test_callbacks_end_training_as_in_sb3_one_evaluation_later() -> None:
    returns = [1, 1, 5, 5, 2, 2, 2, 2, 2, 2]
    for expected, make in (
        (90, lambda: {"callback_on_new_best": StopTrainingOnRewardThreshold(4.0)}),
        (180, lambda: {"callback_after_eval": StopTrainingOnNoModelImprovement(1, min_evals=1)}),
    ):
        ends = []
        for kind, model in ((EvalCallback, sb3()), (AsyncEvalCallback, ours())):
            env_fns = [functools.partial(Graded, returns)]
            eval_env = DummyVecEnv(env_fns) if kind is EvalCallback else SamplerVecEnv(env_fns, backend="inline")
            evaluation = kind(eval_env, n_eval_episodes=1, eval_freq=15, verbose=0, warn=False, **make())
            ends.append(model.learn(20 * ROLLOUT, callback=evaluation).num_timesteps)
        assert ends == [expected, expected + 15 * N_ENVS]


def test_the_last_evaluation_is_awaited(tmp_path: Path) -> None:
    """Also where training ends because another callback says so."""
    for number, stop_at in enumerate((None, 17)):
        evaluation = AsyncEvalCallback(
            slow(RandomWalk, 0.005), n_eval_episodes=2, eval_freq=15, log_path=str(tmp_path / str(number)), verbose=0
        )
        ours("free").learn(ROLLOUT, callback=[evaluation, Trace("stop", [], stop_at)])
        evaluation.eval_env.close()
        assert results(tmp_path / str(number))["timesteps"].tolist() == [15 * N_ENVS]


def test_training_continues_with_the_same_callback(tmp_path: Path) -> None:
    evaluation = AsyncEvalCallback(inline(Task), eval_freq=15, log_path=str(tmp_path), verbose=0)
    model = ours().learn(ROLLOUT, callback=evaluation)
    model.learn(ROLLOUT, callback=evaluation, reset_num_timesteps=False)
    assert results(tmp_path)["timesteps"].tolist() == [45, 90]


# What is logged


def test_figures_bear_the_step_that_was_evaluated_and_take_no_others_along() -> None:
    model = ours()
    log = logged_by(model)
    model.learn(3 * ROLLOUT, callback=AsyncEvalCallback(inline(Task), eval_freq=15, verbose=0))
    lines = [line for line in log if "eval/mean_reward" in line]
    assert [line["step"] for line in lines] == [45, 90, 135, 180]
    allowed = {"eval/mean_reward", "eval/mean_ep_length", "eval/success_rate", "time/total_timesteps", "step"}
    assert all(line.keys() == allowed for line in lines)
    others = [line for line in log if "eval/mean_reward" not in line]
    assert [line["step"] for line in others if "train/loss" in line] == [120, 180]


def test_a_disabled_logger_logs_nothing() -> None:
    model, lines = ours(), Lines()
    logger = Logger(None, [lines])
    logger.set_level(50)
    model.set_logger(logger)
    model.learn(ROLLOUT, callback=AsyncEvalCallback(inline(Task), eval_freq=15, verbose=0))
    assert lines.lines == []


def test_it_prints_what_sb3_prints(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for evaluation, make in (
        (EvalCallback(make_vec_env(Task, seed=SEED), eval_freq=15), sb3),
        (AsyncEvalCallback(inline(Task), eval_freq=15), ours),
    ):
        make().learn(2 * ROLLOUT, callback=evaluation)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and "New best mean reward!" in printed[0] and "Success rate" in printed[0]


# What is random


def test_evaluating_changes_nothing_that_training_draws() -> None:
    plain = ours().learn(3 * ROLLOUT)
    evaluated = ours()
    evaluated.learn(3 * ROLLOUT, callback=AsyncEvalCallback(inline(Task), eval_freq=5, deterministic=False, verbose=0))
    assert_same_weights(plain, evaluated)


@pytest.mark.parametrize("name", ["PPO", "SAC", "DQN"])
def test_a_policy_that_is_not_deterministic_draws_from_the_seed(name: str) -> None:
    sb3_class, settings, env = ALGORITHMS[name]
    found = []
    for seed, deterministic in ((0, False), (0, False), (1, False), (0, True)):
        model = sb3_class("MlpPolicy", DummyVecEnv([env]), seed=seed, **{**settings, "learning_rate": 0.0})  # type: ignore[arg-type]
        model.policy.load_state_dict(sb3_class("MlpPolicy", DummyVecEnv([env]), seed=0, **settings).policy.state_dict())  # type: ignore[arg-type]
        evaluation = AsyncEvalCallback(
            inline(env), n_eval_episodes=30, eval_freq=20, deterministic=deterministic, verbose=0
        )
        model.learn(20, callback=evaluation)
        found.append(evaluation.last_mean_reward)
    assert found[0] == found[1] and len(set(found)) == 3


# What it takes


@pytest.mark.parametrize("kind", ["id", "function", "environment", "DummyVecEnv", "SamplerVecEnv"])
def test_it_takes_what_algorithms_take(kind: str) -> None:
    eval_env: Any = {
        "id": lambda: "Pendulum-v1",
        "function": lambda: Task,
        "environment": Task,
        "DummyVecEnv": lambda: make_vec_env(Task, 2),
        "SamplerVecEnv": lambda: make_vec_env(Task, 2, vec_env_cls=SamplerVecEnv),
    }[kind]()
    n_envs = 1 if kind.endswith("VecEnv") else 2
    evaluation = AsyncEvalCallback(eval_env, eval_freq=15, n_eval_episodes=3, n_envs=n_envs, verbose=0)
    assert evaluation.eval_env.num_envs == 2
    ours(env="Pendulum-v1" if kind == "id" else Task, actor="numpy").learn(ROLLOUT, callback=CallbackList([evaluation]))
    assert np.isfinite(evaluation.last_mean_reward)
    evaluation.eval_env.close()


def test_it_needs_no_infos_of_steps() -> None:
    assert not wants_all_infos(AsyncEvalCallback(inline(Task)))
    assert wants_all_infos(AsyncEvalCallback(inline(Task), callback_after_eval=Trace("after", [])))


def test_render_shows_every_step() -> None:
    class Shown(Task):
        n_rendered = 0

        def render(self) -> None:
            self.n_rendered += 1

    for render in (True, False):
        samplers = inline(Shown)
        evaluation = AsyncEvalCallback(samplers, eval_freq=15, n_eval_episodes=2, render=render, verbose=0)
        ours().learn(ROLLOUT, callback=evaluation)
        (n_rendered,) = samplers.get_attr("n_rendered")
        assert (n_rendered > 2) == render


def learn(evaluation: BaseCallback, model: Any = None) -> None:
    (model or ours()).learn(ROLLOUT, callback=evaluation)


class OwnPredict(AsyncPPO):
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        return super().predict(*args, **kwargs)


def test_what_it_cannot_do_is_one_clear_error() -> None:
    with SubprocVecEnvs() as subprocesses, pytest.raises(TypeError, match="SubprocVecEnv"):
        AsyncEvalCallback(subprocesses)
    with pytest.raises(TypeError, match="got None"):
        AsyncEvalCallback(None)
    with pytest.raises(ValueError, match="n_envs must be an integer"):
        AsyncEvalCallback(Task, n_envs=0)
    with pytest.raises(ValueError, match="n_envs=3 was given, but eval_env has 2"):
        AsyncEvalCallback(make_vec_env(Task, 2), n_envs=3)
    model = ours()
    with pytest.raises(ValueError, match="is the environment that the model trains in"):
        learn(AsyncEvalCallback(model.get_env()), model)
    with pytest.raises(ValueError, match="EveryNTimesteps does not tell the callback"):
        learn(EveryNTimesteps(15, AsyncEvalCallback(inline(Task), eval_freq=1)))
    with pytest.raises(ValueError, match=r"OwnPredict overrides predict\(\)"):
        own = OwnPredict("MlpPolicy", Task, n_samplers=1, backend="inline", **SETTINGS)
        learn(AsyncEvalCallback(inline(Task), eval_freq=1), own)
    with pytest.raises(ValueError, match="eval_env has the spaces"):
        learn(AsyncEvalCallback(inline(StampedEnv), eval_freq=1))
    with pytest.raises(ValueError, match="eval_env is not, but inside of other wrappers"):
        learn(AsyncEvalCallback(VecFrameStack(inline(Task), 1), eval_freq=1), ours(normalize=True))


class SubprocVecEnvs:
    def __enter__(self) -> SubprocVecEnv:
        self.venv = SubprocVecEnv([Task])
        return self.venv

    def __exit__(self, *exception: object) -> None:
        self.venv.close()
