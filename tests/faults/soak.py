"""
A long soak: samplers are killed at random instants, in all modes and phases of their work, while every sample is
followed. Prints what survived; the exit code says whether anything was lost.

    make soak
"""

import argparse
import gc
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import count, product
from pathlib import Path

import torch as th

sys.path.insert(0, str(Path(__file__).parent))

from danger import PHASES, endangered_task
from fault_models import EPISODE_KINDS, KINDS, is_ordered, make_model
from follow_samples import FollowEpisodes, FollowSamples
from killer import killing
from stamped_task import StampedTask
from torn_weights import read_while_publishing

from sb3_walle import SamplerVecEnv
from sb3_walle.samplers.errors import SamplerWarning

N_SAMPLERS, N_STEPS, N_ROLLOUTS = 4, 64, 80
READ_SECONDS = 20.0


@dataclass
class Figures:
    """What has happened so far."""

    trainings: int = 0
    kills: int = 0
    samples: int = 0
    lost: int = 0
    duplicated: int = 0
    torn: int = 0
    wrong_counts: int = 0
    reads: int = 0
    torn_reads: int = 0
    left_behind: list[str] = field(default_factory=list)

    def report(self, seconds: float) -> str:
        rows = {
            "time": f"{seconds / 60:.1f} min",
            "trainings": self.trainings,
            "kills survived": self.kills,
            "samples checked": self.samples,
            "samples lost": self.lost,
            "samples duplicated": self.duplicated,
            "samples torn": self.torn,
            "trainings with a wrong num_timesteps": self.wrong_counts,
            "weights read while others were published": self.reads,
            "weights torn": self.torn_reads,
            "left behind": ", ".join(self.left_behind) or "nothing",
        }
        width = max(map(len, rows))
        return "\n".join(f"{name:{width}}  {_in_words(value)}" for name, value in rows.items())

    @property
    def is_clean(self) -> bool:
        wrong = (self.lost, self.duplicated, self.torn, self.wrong_counts, self.torn_reads, len(self.left_behind))
        return not any(wrong)


def train(figures: Figures, kind: str, env_fn: Callable[[], StampedTask], from_outside: bool) -> None:
    """Train while samplers are killed."""
    is_whole = kind in EPISODE_KINDS
    samples = FollowEpisodes() if is_whole else FollowSamples(is_ordered(kind))
    env = SamplerVecEnv([env_fn] * N_SAMPLERS, max_restarts=10**9)
    with make_model(kind, env, n_steps=N_STEPS, batch_size=N_STEPS * N_SAMPLERS, learner="eager") as model:
        with killing(model) if from_outside else nullcontext():
            model.learn(N_ROLLOUTS * N_STEPS * N_SAMPLERS, callback=samples)
        figures.kills += env.client.n_restarts
        n_missing = N_ROLLOUTS * N_STEPS * N_SAMPLERS - model.num_timesteps
        figures.wrong_counts += n_missing > 0 if is_whole else n_missing != 0
        figures.wrong_counts += samples.n_samples != model.num_timesteps
    figures.trainings += 1
    figures.samples += samples.n_samples
    figures.lost, figures.duplicated = figures.lost + samples.n_lost, figures.duplicated + samples.n_duplicated
    figures.torn += samples.n_torn


def surroundings() -> dict[str, set[str]]:
    """What a training may leave behind."""
    gc.collect()
    return {
        "shared memory": set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set(),
        "temporary file": {name for name in os.listdir(tempfile.gettempdir()) if "sb3_walle" in name},
        "descriptor": set(os.listdir("/proc/self/fd")),
        "process": {
            child for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()
        },
    }


def soak(seconds: float) -> Figures:
    """
    :param seconds: for how long
    :return: what has happened
    """
    figures, deadline = Figures(), time.monotonic() + seconds
    train(figures, "sync", StampedTask, from_outside=False)
    before = surroundings()
    reads = read_while_publishing(min(READ_SECONDS, seconds / 5), n_readers=2)
    figures.reads, figures.torn_reads = reads.read, reads.torn + reads.backwards
    ways = list(product((*PHASES, None), (*KINDS, *EPISODE_KINDS)))
    for index in count():
        if time.monotonic() >= deadline:
            break
        phase, kind = ways[index % len(ways)]
        env_fn = StampedTask if phase is None else endangered_task(phase, has_short_chunks=not is_ordered(kind))
        train(figures, kind, env_fn, from_outside=phase is None or index % 2 == 0)
    after = surroundings()
    figures.left_behind = [f"{what} {name}" for what in before for name in sorted(after[what] - before[what])]
    return figures


def _in_words(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill samplers for some minutes, and count what is lost.")
    parser.add_argument(
        "--minutes",
        type=float,
        default=5.0,
        metavar="X",
        help="for how long, and until the training under way ends (default: %(default)s)",
    )
    minutes = parser.parse_args().minutes
    warnings.simplefilter("ignore", SamplerWarning)
    th.set_num_threads(1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as logs:
        # SB3 makes a folder for every model without a logger.
        os.environ["SB3_LOGDIR"] = logs
        figures = soak(60 * minutes)
    print(figures.report(time.monotonic() - began))
    return 0 if figures.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
