"""Killing samplers from outside."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from follow_samples import sampler_processes


@contextmanager
def killing(model: Any, longest_pause: float = 0.1) -> Iterator[list[int]]:
    """
    Kill a random sampler at a random instant, again and again, for the length of the block; but not before training has
    got further since the last time: a busy machine may take longer to replace a sampler than it takes to kill one.

    :param model: the model whose samplers are killed, as long as no other has any
    :param longest_pause: longest time in seconds between training's getting further and the next kill
    :return: the processes that were killed, as far as one can say now
    """
    random, over, killed = np.random.default_rng(), threading.Event(), list[int]()

    def kill() -> None:
        timesteps = -1
        while not over.wait(random.uniform(0, longest_pause)):
            samplers = sampler_processes()
            if samplers and model.num_timesteps != timesteps:
                timesteps, victim = model.num_timesteps, int(random.choice(samplers))
                try:
                    os.kill(victim, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                killed.append(victim)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()
