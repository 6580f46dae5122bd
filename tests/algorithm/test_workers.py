"""Training in other processes than the main one."""

import multiprocessing
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from sb3_walle import AsyncPPO

SCRIPT = """
import multiprocessing, threading

import torch as th
# What the first optimizer of a process imports, here for all that are forked.
import torch._dynamo

from sb3_walle import AsyncPPO


def train(seed):
    model = AsyncPPO("MlpPolicy", "CartPole-v1", n_samplers=1, n_steps=32, batch_size=32, seed=seed, device="cpu")
    return model.learn(64).num_timesteps


def in_daemonic_workers():
    with fork.Pool(2) as pool:
        return pool.map(train, range(2))


def in_threads():
    results = []
    threads = [threading.Thread(target=lambda: results.append(train(0))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


if __name__ == "__main__":
    # torch's own threads do not survive a fork: a child that uses them waits for them for ever.
    th.set_num_threads(1)
    fork = multiprocessing.get_context("fork")
    for train_two in (in_daemonic_workers, in_threads):
        print(train_two.__name__, train_two(), flush=True)
"""


def run_script(program: str, folder: Path) -> str:
    """
    Run a program in another process and return what it prints. Every process that it starts, samplers too, has a hold
    on its output: this waits until the last of them has ended.
    """
    script = folder / "script.py"
    script.write_text(textwrap.dedent(program))
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=300)
        except BaseException:
            os.killpg(process.pid, 9)
            raise
    assert process.returncode == 0, output
    return output


def test_two_models_train_in_workers_at_once(tmp_path: Path) -> None:
    ways = ("in_daemonic_workers", "in_threads")
    assert run_script(SCRIPT, tmp_path).splitlines() == [f"{way} [64, 64]" for way in ways]


FORK_IN_TRAINING = """
import multiprocessing

import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_walle import AsyncPPO, SamplerError

th.set_num_threads(1)
model = AsyncPPO("MlpPolicy", "CartPole-v1", n_samplers=1, n_steps=64, batch_size=64, device="cpu")

# What a child does with its copy of the model before it trains with samplers of its own.
uses = [
    lambda: None,
    lambda: model.learn(64, reset_num_timesteps=False),
    lambda: model.env.reset(),
    lambda: model.env.close(),
]

def train(use):
    try:
        use()
    except SamplerError as error:
        print(error, flush=True)
    model.set_env("CartPole-v1")
    print("child", model.learn(64).num_timesteps, flush=True)

class Fork(BaseCallback):
    def _on_step(self):
        if self.n_calls % 20 == 10 and uses:
            self.child = multiprocessing.get_context("fork").Process(target=train, args=(uses.pop(0),))
            self.child.start()
            self.child.join()
            print("exit code", self.child.exitcode, flush=True)
        return True

model.learn(128, callback=Fork())
print("parent", model.num_timesteps, len(uses), flush=True)
"""


def test_a_forked_child_trains_and_does_not_disturb_its_parents_training(tmp_path: Path) -> None:
    refused = ["The samplers belong to the process that this one was forked from"]
    trained = ["child 64", "exit code 0"]
    expected = [*trained, *(2 * (refused + trained)), *trained, "parent 128 0"]
    assert run_script(FORK_IN_TRAINING, tmp_path).splitlines() == expected


def test_environments_of_the_script_train_in_a_spawned_child(tmp_path: Path) -> None:
    program = """
    import multiprocessing

    import gymnasium as gym

    class Mine(gym.Env):
        metadata = {"render_modes": ["rgb_array"]}
        observation_space, action_space = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2)
        def reset(self, seed=None, options=None):
            super().reset(seed=seed)
            return self.observation_space.sample(), {}
        def step(self, action):
            return self.observation_space.sample(), 1.0, self.np_random.random() < 0.1, False, {}

    gym.register("Mine-v0", entry_point=f"{__name__}:Mine", max_episode_steps=9)

    def train():
        from sb3_walle import AsyncPPO
        for env in (Mine, "Mine-v0"):
            model = AsyncPPO("MlpPolicy", env, n_samplers=1, n_steps=32, batch_size=32, device="cpu")
            print("trained", model.learn(32).num_timesteps, flush=True)

    if __name__ == "__main__":
        child = multiprocessing.get_context("spawn").Process(target=train)
        child.start()
        child.join()
    """
    assert run_script(program, tmp_path).endswith("trained 32\ntrained 32\n")


def train(model: AsyncPPO) -> AsyncPPO:
    model.set_env("CartPole-v1")
    return model.learn(64, reset_num_timesteps=False)


def test_a_model_travels_to_a_worker_and_back() -> None:
    with AsyncPPO("MlpPolicy", "CartPole-v1", n_samplers=1, n_steps=32, batch_size=32, device="cpu") as model:
        model.learn(32)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
            trained = executor.submit(train, model).result()
        trained.set_env(model.get_env())
        assert (model.num_timesteps, trained.num_timesteps) == (32, 96)
        assert trained.learn(32, reset_num_timesteps=False).num_timesteps == 128
