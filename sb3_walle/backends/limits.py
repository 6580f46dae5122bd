"""What this process may use: CPUs, and as many file descriptors as its samplers take."""

import errno
import os
import resource

#: what a sampler takes in this process: the socket that its requests and its chunks travel through
DESCRIPTORS_PER_SAMPLER = 1
#: what any number of samplers needs in addition: the process that they are forked from and the pipes to start
#: it, the queues' memory, messages that travel as a file, the files that logs and models are written to
FURTHER_DESCRIPTORS = 24


def available_cpus() -> int:
    """:return: the number of CPUs that this process may use"""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_descriptors(n_samplers: int) -> None:
    """
    Refuse what would fail later, in the middle of starting samplers.

    :raises OSError: if this process may not open as many file descriptors as these samplers take
    """
    limit, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return
    n_needed = n_samplers * DESCRIPTORS_PER_SAMPLER + FURTHER_DESCRIPTORS
    n_open = _n_open(limit)
    if n_open + n_needed <= limit:
        return
    wanted, fewer = n_open + n_needed, "fewer samplers with more envs_per_sampler"
    remedy = f"Raise the limit with 'ulimit -n {wanted}' before the program starts, or use {fewer}."
    if hard_limit != resource.RLIM_INFINITY and wanted > hard_limit:
        remedy = f"Use {fewer}, or have the administrator allow more than {hard_limit}: 'ulimit -n {wanted}' would do."
    raise OSError(
        errno.EMFILE,
        f"{n_samplers} samplers take {n_needed} file descriptors in this process, which may open {limit} and has "
        f"{n_open} open. {remedy}",
    )


def _n_open(limit: int) -> int:
    """How many descriptors are open; 0 if the system does not tell."""
    try:
        # Looking takes one, too, but not for long.
        return len(os.listdir("/dev/fd")) - 1
    except OSError as error:
        # Perhaps none is left even to look.
        return limit if error.errno == errno.EMFILE else 0
