"""What runs in a gradient worker's process."""

import contextlib

import torch as th

from sb3_walle.backends.channel import Channel, ChannelClosedError
from sb3_walle.backends.sampler_process import die_with
from sb3_walle.gradient_workers.job import Job
from sb3_walle.gradient_workers.line import Line, LineClosedError
from sb3_walle.transport.pulse import Pulse

#: what a worker says when it is ready, and then after each call
READY = DONE = 0


def run_worker(rank: int, channel: Channel, parent: int, pulse: Pulse | None = None) -> None:
    """
    Make the calls that the learner asks for until it hangs up.

    :param rank: number of the worker
    :param channel: the learner sends a :class:`Job` through it
    :param parent: process that this one must not outlive
    :param pulse: of no use here
    """
    die_with(parent)
    # By hanging up, the learner ends a worker.
    with contextlib.suppress(ChannelClosedError, LineClosedError):
        job: Job = channel.receive()
        th.set_num_threads(1)
        calls, line = job.bound_calls(), Line(job.line)
        line.send(READY)
        while True:
            calls[line.receive()]()
            line.send(DONE)
