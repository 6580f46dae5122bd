"""
Saves models in one child process after the other, kills each at a random instant, and prints what each of them left.
All are forked from this process, because importing torch takes longer than all the rest.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import torch as th
from lifecycle_helpers import inline_envs, inline_model, weights_of
from stable_baselines3.common.vec_env import VecNormalize

from sb3_walle import AsyncPPO, SafeCheckpointCallback

N_KILLS = 3


def killed(work: Callable[[], Any], has_begun: Callable[[], bool], instants: random.Random) -> None:
    """Do something in a child process, and kill it some time after it has begun in earnest."""
    child = os.fork()
    if child == 0:
        # It ends by itself, even if this process does not.
        signal.alarm(60)
        try:
            work()
        finally:
            os._exit(1)
    while not has_begun():
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            raise RuntimeError("the child has failed")
        time.sleep(0.001)
    time.sleep(instants.uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def save_version(model: AsyncPPO, version: int, path: Path) -> None:
    """All weights are the number of the version, so that a mixture of two would show."""
    model.policy_version = version
    with th.no_grad():
        for weights in model.policy.parameters():
            weights.fill_(version)
    model.save(path)


def replace_one_model(folder: Path, instants: random.Random) -> list[dict[str, Any]]:
    model, path = inline_model(policy_kwargs={"net_arch": [256, 256]}), folder / "model.zip"
    outcomes = []
    for _ in range(N_KILLS):
        save_version(model, 0, path)
        before = path.stat().st_ino

        def save_again_and_again() -> None:
            for version in count(1):
                save_version(model, version, path)

        killed(save_again_and_again, lambda before=before: path.stat().st_ino != before, instants)
        loaded = AsyncPPO.load(path)
        weights = th.cat([tensor.flatten() for tensor in weights_of(loaded).values()])
        outcomes.append(
            {
                "version": loaded.policy_version,
                "weights": weights.unique().tolist(),
                "others": sorted({entry.name for entry in folder.iterdir()} - {path.name}),
            }
        )
    return outcomes


def add_checkpoints(folder: Path, instants: random.Random) -> list[dict[str, Any]]:
    model = inline_model(mode="free", normalize=True, policy_kwargs={"net_arch": [256, 256]})
    outcomes = []
    for n in range(N_KILLS):
        checkpoints = folder / str(n)
        callback = SafeCheckpointCallback(4, checkpoints)
        killed(
            lambda callback=callback: model.learn(1_000_000, callback=callback),
            lambda checkpoints=checkpoints: SafeCheckpointCallback.latest(checkpoints) is not None,
            instants,
        )
        latest = SafeCheckpointCallback.latest(checkpoints)
        assert latest is not None
        # The model is the last file of a checkpoint, so all others have their statistics.
        statistics = [VecNormalize.load(str(path), inline_envs(2)) for path in checkpoints.glob("*.pkl")]
        models = [AsyncPPO.load(path, env=statistics[0]) for path in checkpoints.glob("*.zip")]
        steps = {loaded.num_timesteps for loaded in models}
        names = {f"rl_model_{n}_steps.zip" for n in steps} | {f"rl_model_vecnormalize_{n}_steps.pkl" for n in steps}
        files = {path.name for path in checkpoints.iterdir()}
        hidden = {name for name in files if name.startswith(".")}
        found = files - hidden
        outcomes.append(
            {
                "latest": (latest.steps, max(steps)),
                "missing": sorted(names - found),
                "ahead": len(found - names),
                "hidden": sorted(hidden),
            }
        )
    return outcomes


if __name__ == "__main__":
    th.set_num_threads(1)
    outcomes = {}
    for what, save in {"replace": replace_one_model, "add": add_checkpoints}.items():
        (folder := Path(sys.argv[1], what)).mkdir()
        outcomes[what] = save(folder, random.Random(0))
    print(json.dumps(outcomes))
