"""The RL Baselines3 Zoo trains, continues and shows AsyncPPO as it does PPO."""

import os
import runpy
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch as th
from process_helpers import Programs
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import load_results
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.vec_env import VecNormalize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# Importing the Zoo patches Gymnasium, which is nothing for the process that other tests run in.
pytestmark = pytest.mark.skipif(find_spec("rl_zoo3") is None, reason="needs rl_zoo3")

EXAMPLE = Path(__file__).parents[1] / "examples" / "zoo.py"
ENV_ID = "HalfCheetah-v4"
EPISODE, N_ENVS, N_STEPS, TOTAL = 25, 4, 64, 768
# The Zoo's tuned hyperparameters, except for those that make a training long.
SMALL = ["--env-kwargs", f"max_episode_steps:{EPISODE}", "--n-timesteps", str(TOTAL), "--seed", "1"]
SMALL += ["--device", "cpu", "--num-threads", "1"]
HYPERPARAMETERS = [f"n_envs:{N_ENVS}", f"n_steps:{N_STEPS}", "n_epochs:1"]


def with_samplers(*arguments: str) -> None:
    sys.argv = [str(EXAMPLE), *arguments]
    runpy.run_path(str(EXAMPLE), run_name="__main__")


def without_samplers(*arguments: str) -> None:
    sys.argv = ["train.py", *arguments]
    runpy.run_module("rl_zoo3.train", run_name="__main__")


def without_and_with_samplers(*arguments: str) -> None:
    """Arguments after ``--and`` are those of the second training alone."""
    number = arguments.index("--and")
    without_samplers(*arguments[:number])
    with_samplers(*arguments[:number], *arguments[number + 1 :])


def enjoy(*arguments: str) -> None:
    """What ``python -m rl_zoo3.enjoy`` does, with AsyncPPO in PPO's place."""
    from rl_zoo3 import ALGOS
    from rl_zoo3.enjoy import enjoy

    from sb3_walle import AsyncPPO

    ALGOS["ppo"] = AsyncPPO
    sys.argv = ["enjoy.py", *arguments]
    enjoy()


def run_in(directory: str, program: str, *arguments: str) -> None:
    os.chdir(directory)
    globals()[program](*arguments)


def run(programs: Programs, directory: Path, program: Callable[..., None], *arguments: str) -> str:
    """What a program of the Zoo prints."""
    started = programs.start(run_in, directory, program.__name__, *arguments)
    assert started.wait(300) == 0, started.output[-3000:] + started.errors
    assert "lockstep" not in started.errors and "without samplers" not in started.errors
    return started.output


def train(programs: Programs, directory: Path, *options: str, hyperparameters: list[str]) -> str:
    arguments = ["--env", ENV_ID, *SMALL, *options, "-params", *HYPERPARAMETERS, *hyperparameters]
    return run(programs, directory, with_samplers, *arguments)


@pytest.fixture(scope="module")
def trained(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the Zoo has trained, and what it has printed."""
    directory = tmp_path_factory.mktemp("zoo")
    options = ["--eval-freq", str(TOTAL // 2), "--eval-episodes", "1", "--save-freq", str(TOTAL // 2)]
    callback = "callback:'rl_zoo3.callbacks.RawStatisticsCallback'"
    output = train(
        programs, directory, *options, "--tensorboard-log", "tensorboard", hyperparameters=["n_samplers:2", callback]
    )
    return directory, output


def logs(directory: Path, number: int = 1) -> Path:
    return directory / "logs" / "ppo" / f"{ENV_ID}_{number}"


def statistics(directory: Path, number: int = 1) -> VecNormalize:
    """Loaded by plain SB3, around environments of its own."""
    env = make_vec_env(ENV_ID, 1, env_kwargs={"max_episode_steps": EPISODE})
    return VecNormalize.load(str(logs(directory, number) / ENV_ID / "vecnormalize.pkl"), env)


def test_samplers_collect_for_the_zoo(trained: tuple[Path, str]) -> None:
    directory, output = trained
    assert f"Collecting with 2 samplers, environments of each: {N_ENVS // 2}, mode: pipelined" in output
    (events,) = (directory / "tensorboard" / ENV_ID).iterdir()
    accumulator = EventAccumulator(str(events)).Reload()
    lags = [scalar.value for scalar in accumulator.Scalars("async/policy_lag_mean")]
    assert lags == [0, 1, 1]
    # What the Zoo's own callbacks have written.
    assert {"eval/mean_reward", "raw/rollouts/episodic_return"} <= set(accumulator.Tags()["scalars"])


def test_every_sampler_writes_its_monitor_files(trained: tuple[Path, str]) -> None:
    directory, _ = trained
    names = {path.name for path in logs(directory).glob("*.monitor.csv")}
    assert names == {f"{index}.monitor.csv" for index in range(N_ENVS)}
    results = load_results(str(logs(directory)))
    assert results.l.tolist() == [EPISODE] * (N_ENVS * (TOTAL // N_ENVS // EPISODE))
    assert np.ptp(results.r) > 0


def test_plain_sb3_loads_the_model_and_the_statistics(trained: tuple[Path, str]) -> None:
    directory, _ = trained
    env = statistics(directory)
    assert env.obs_rms.count >= TOTAL and np.all(env.obs_rms.var != 1)
    assert env.gamma == 0.98
    env.training = env.norm_reward = False
    for name in (f"{ENV_ID}.zip", "best_model.zip", f"rl_model_{TOTAL}_steps.zip"):
        model = PPO.load(logs(directory) / name, env=env, device="cpu", tensorboard_log=None)
        assert type(model) is PPO and model.policy.net_arch == {"pi": [256, 256], "vf": [256, 256]}
        rewards, lengths = evaluate_policy(model, env, n_eval_episodes=2, return_episode_rewards=True)
        assert np.all(np.isfinite(rewards)) and lengths == [EPISODE] * 2
    model.learn(TOTAL)
    assert "rl_zoo3" not in sys.modules


def test_zoo_continues_where_it_stopped_in_subprocesses_that_are_samplers(
    programs: Programs, trained: tuple[Path, str]
) -> None:
    directory, _ = trained
    agent = ["--trained-agent", str(logs(directory) / f"{ENV_ID}.zip")]
    options = [*agent, "--eval-freq", "-1", "--vec-env", "subproc"]
    output = train(programs, directory, *options, hyperparameters=["n_samplers:4", "mode:'sync'"])
    assert "Loading saved VecNormalize stats" in output
    assert "Collecting with 4 samplers, environments of each: 1, mode: sync" in output
    before, after = (statistics(directory, number).obs_rms for number in (1, 2))
    assert after.count >= before.count + TOTAL
    models = [PPO.load(logs(directory, number) / f"{ENV_ID}.zip", device="cpu") for number in (1, 2)]
    assert [model._n_updates for model in models] == [3, 6]


def test_with_one_sampler_in_step_the_zoo_trains_the_very_same_policy(programs: Programs, tmp_path: Path) -> None:
    """With wrappers around the environments, around the VecEnv, and schedules."""
    wrappers = ["env_wrapper:'rl_zoo3.wrappers.HistoryWrapper'", "frame_stack:3", "learning_rate:'lin_1e-3'"]
    options = ["--env", "Pendulum-v1", *SMALL, "--eval-freq", "-1", "-params", *HYPERPARAMETERS, *wrappers]
    own = ["n_samplers:1", "mode:'sync'", "actor:'torch'"]
    output = run(programs, tmp_path, without_and_with_samplers, *options, "--and", *own)
    assert f"Collecting with 1 samplers, environments of each: {N_ENVS}, mode: sync" in output
    folders = [tmp_path / "logs" / "ppo" / f"Pendulum-v1_{number}" for number in (1, 2)]
    # Without what else is in the file: the Zoo's schedules, which no program can load without the Zoo.
    expected, found = (
        load_from_zip_file(folder / "Pendulum-v1.zip", load_data=False)[1]["policy"] for folder in folders
    )
    # HistoryWrapper shows two observations of 3 and two actions of 1.
    assert found["mlp_extractor.policy_net.0.weight"].shape[1] == 3 * (2 * 3 + 2 * 1)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        th.testing.assert_close(found[name], value, rtol=0, atol=0, msg=name)
    returns = [sorted(load_results(str(folder)).r) for folder in folders]
    assert returns[0] == returns[1] != []


def test_zoo_shows_what_it_has_trained(programs: Programs, trained: tuple[Path, str]) -> None:
    directory, _ = trained
    options = ["--algo", "ppo", "--env", ENV_ID, "--folder", "logs", "--exp-id", "1", "--no-render", "--device", "cpu"]
    output = run(programs, directory, enjoy, *options, "--n-timesteps", str(2 * EPISODE))
    assert "Loading running average" in output
    assert "2 Episodes" in output and f"Mean episode length: {EPISODE}.00" in output
