"""What runs in a sampler's process."""

import contextlib
import ctypes
import os
import random
import signal
import sys

import numpy as np

from sb3_walle.backends.channel import Channel, ChannelClosedError
from sb3_walle.backends.control_loop import ControlLoop
from sb3_walle.backends.protocol import UNREADABLE
from sb3_walle.samplers.errors import Failure
from sb3_walle.samplers.requests import CloseEnvs, Evaluate, Reply, Request, Reset, Result, answer
from sb3_walle.samplers.sampler import Sampler
from sb3_walle.transport.pulse import Pulse

_PR_SET_PDEATHSIG = 1
#: Tells samplers that the learner is dead: they end, but for those that act on plants, which let these rest and close
#: them first.
LEARNER_IS_DEAD = signal.SIGRTMIN + 5
#: how many seconds those may take
ORPHAN_TIMEOUT = 60


def run_sampler(index: int, channel: Channel, parent: int, pulse: Pulse | None = None) -> None:
    """
    Carry out the learner's requests until it hangs up, asks to close the environments, or one of its requests fails in
    such a way that nothing should be built on these environments any more.

    :param parent: process that this one must not outlive
    :param pulse: told whenever an environment begins a step; ``None`` where no step is timed
    """
    die_with(parent)
    # All samplers are copies of one process. Environments that draw from the global streams must not all draw the same.
    seed_global_streams(int.from_bytes(os.urandom(4), "little"))
    sampler = Sampler(index, pulse)
    loop = ControlLoop(sampler, channel, pulse)
    # By hanging up, the learner ends samplers that it does not wait for.
    with contextlib.suppress(ChannelClosedError):
        while loop.run() and _carry_out_next(sampler, channel, pulse, loop):
            continue
    if sampler.plants:
        _limit_life()
    loop.end()
    # If they are not closed yet, the learner has gone, or knows of a failure that matters more.
    answer(sampler, CloseEnvs())
    if os.getppid() != parent:
        # Otherwise the parent ends what environments have started.
        os.killpg(0, signal.SIGKILL)


def _carry_out_next(sampler: Sampler, channel: Channel, pulse: Pulse | None, loop: ControlLoop) -> bool:
    """Carry out one request. Returns whether there may be another one."""
    try:
        number, request = channel.receive()
    except ChannelClosedError:
        raise
    except Exception as error:
        # A module that only the learner can import, say.
        _reply(channel, UNREADABLE, Failure.of(error, "reading a request"))
        return True
    if isinstance(request, Reset | Evaluate) and request.seeds[0] is not None:
        seed_global_streams(request.seeds[0])
    if request.rests_plants and not loop.rest():
        return False
    reply = answer(sampler, request)
    if sampler.plants:
        _outlive_others()
    if pulse is not None:
        pulse.rest()
    _reply(channel, number, reply, request)
    is_broken = isinstance(reply, Failure) and request.failure_ends_sampler
    return not (is_broken or isinstance(request, CloseEnvs))


def _reply(channel: Channel, number: int, reply: Reply, request: Request | None = None) -> None:
    try:
        channel.send((number, reply))
    except ChannelClosedError:
        raise
    except Exception as error:
        # The value of the reply does not pickle: an attribute that is a lock, say.
        if request is not None and isinstance(reply, Result):
            error = request.why_not_sent(reply.value, error)
        channel.send((number, Failure.of(error, "sending its answer")))


def seed_global_streams(seed: int) -> None:
    """Seed the global streams that environments may draw from, as SB3 seeds it in its one process."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It died before the kernel was asked.
        os._exit(1)


def survive_parent() -> None:
    """Have the kernel no longer do what :func:`die_with` has asked for."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, 0)


def _outlive_others() -> None:
    """Have this process live on when its parent or the learner dies, or all are told to end: its plant rests first."""
    survive_parent()
    for number in (LEARNER_IS_DEAD, signal.SIGTERM):
        # Processes that the environment starts would inherit that a signal is ignored.
        signal.signal(number, lambda *_: None)


def _limit_life() -> None:
    """Have the kernel end this process if closing its environments takes too long."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(ORPHAN_TIMEOUT)
