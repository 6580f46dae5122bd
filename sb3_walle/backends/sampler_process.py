"""What runs in a sampler's process."""

import ctypes
import os
import random
import signal
import sys

import numpy as np

from sb3_walle.backends.channel import Channel, ChannelClosedError
from sb3_walle.samplers.errors import Failure
from sb3_walle.samplers.requests import CloseEnvs, Reply, answer
from sb3_walle.samplers.sampler import Sampler

_PR_SET_PDEATHSIG = 1


def run_sampler(index: int, channel: Channel, parent: int) -> None:
    """
    Carry out the learner's requests until it hangs up.

    :param index: number of the sampler
    :param channel: the sampler's end of its channel to the learner
    :param parent: process that this one must not outlive
    """
    die_with(parent)
    # All samplers are copies of one process. Environments that draw from these must not all draw the same.
    random.seed()
    np.random.seed()
    if "torch" in sys.modules:
        use_one_thread()
    sampler = Sampler(index)
    try:
        request = None
        while not isinstance(request, CloseEnvs):
            number, request = channel.receive()
            _reply(channel, number, answer(sampler, request))
    except ChannelClosedError:
        sampler.close()


def _reply(channel: Channel, number: int, reply: Reply) -> None:
    try:
        channel.send((number, reply))
    except ChannelClosedError:
        raise
    except Exception as error:
        # The value of the reply does not pickle: an attribute that is a lock, say.
        channel.send((number, Failure.of(error, "sending its answer")))


def use_one_thread() -> None:
    """Ten samplers with a thread for each core would only get into each other's way."""
    import torch as th

    th.set_num_threads(1)


def die_with(parent: int) -> None:
    """
    Have the kernel kill this process when its parent dies. Where the kernel cannot, the closed channel ends it.

    :param parent: process number of the parent
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It died before the kernel was asked.
        os._exit(1)
