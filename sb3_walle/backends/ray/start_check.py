"""Whether hosts have started, and have what samplers need."""

from collections.abc import Iterable, Sequence

import ray
from ray.exceptions import RayError

from sb3_walle.backends.ray.host import versions
from sb3_walle.backends.ray.link import Link


def check_started(links: Sequence[Link], preload: Iterable[str], timeout: float) -> None:
    """
    Wait until hosts have started, and check that they have the versions that the learner has.

    :param links: links to the hosts
    :param preload: names of modules that samplers import
    :param timeout: longest wait in seconds
    :raises RuntimeError: if one has not started by then, or has other versions
    """
    here = versions(preload)
    answers = {link.host.versions.remote(): link.node.address for link in links}
    ready, pending = ray.wait(list(answers), num_returns=len(answers), timeout=timeout)
    if pending:
        late = ", ".join(answers[answer] for answer in pending)
        raise RuntimeError(
            f"No host has started within {timeout:.0f} s on {late}: are the CPUs there taken by other programs? "
            "RayBackend(cpus_per_sampler=0) starts samplers beside them."
        )
    wrong = []
    for answer in ready:
        try:
            there = ray.get(answer)
        except RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise RuntimeError(f"No host could be started on {answers[answer]}: {reason}") from error
        differing = [f"{name} {there[name]} (here {here[name]})" for name in here if there[name] != here[name]]
        if differing:
            wrong.append(f"{answers[answer]}: {', '.join(differing)}")
    if wrong:
        raise RuntimeError(
            "Samplers need the same versions on every node as here. Other ones have: " + "; ".join(sorted(wrong))
        )
