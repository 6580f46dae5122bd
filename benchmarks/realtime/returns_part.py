"""Bar 4: how long it takes to learn a task in real time, and how well it is learned after as many ticks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.realtime.control_rows import N_LAST, ControlRow, samples_path
from benchmarks.realtime.realtime_contenders import REALTIME
from benchmarks.text_tables import format_markdown_table, format_number

#: ours must need at most this share of the time of SB3's best schedule
BAR = 0.6
SB3S = "SAC, "


@dataclass(frozen=True)
class Learned:
    """
    :param seconds: of each seed, until the mean return of some episodes in a row reached the threshold; infinite where
        it never did
    :param ticks: ticks of the plant until then
    :param last_returns: mean return of the last episodes
    """

    seconds: np.ndarray
    ticks: np.ndarray
    last_returns: np.ndarray


def learned(directory: Path, runs: Sequence[ControlRow], threshold: float, n_episodes: int) -> Learned:
    """
    :param directory: has what the runs have left
    :param n_episodes: episodes whose mean return has to reach the threshold
    """
    reached = []
    for row in runs:
        with np.load(samples_path(directory, row.contender, row.repeat)) as samples:
            reached.append(when_reached(samples, threshold, n_episodes))
    seconds, ticks = np.array(reached).T
    return Learned(seconds, ticks, np.array([row.last_return for row in runs]))


def when_reached(samples: Mapping[str, np.ndarray], threshold: float, n_episodes: int) -> tuple[float, float]:
    """:return: seconds and ticks until as many episodes in a row have such a mean return; infinite if none have"""
    returns = samples["returns"]
    if len(returns) < n_episodes:
        return np.inf, np.inf
    means = np.convolve(returns, np.full(n_episodes, 1 / n_episodes), mode="valid")
    good = np.flatnonzero(means >= threshold)
    if len(good) == 0:
        return np.inf, np.inf
    last = good[0] + n_episodes - 1
    return float(samples["ended"][last]), float(samples["n_ticks"][last])


def returns_report(directory: Path, rows: Mapping[str, Sequence[ControlRow]], threshold: float, n_episodes: int) -> str:
    found = {name: learned(directory, runs, threshold, n_episodes) for name, runs in rows.items() if runs}
    header = ["", "seeds that reached it", "median s", "slowest s", "median ticks", f"return of the last {N_LAST}"]
    table = format_markdown_table(header, [_cells(name, each) for name, each in found.items()])
    text = f"Until {n_episodes} episodes in a row have a mean return of {threshold:g}:\n\n{table}"
    medians = {name: float(np.median(each.seconds)) for name, each in found.items()}
    theirs = {name: seconds for name, seconds in medians.items() if name.startswith(SB3S)}
    if REALTIME not in medians or not theirs:
        return text
    best = min(theirs, key=theirs.__getitem__)
    if not np.isfinite(theirs[best]):
        return f"{text}\n\nNo ratio: none of SB3's schedules has reached it in the median."
    # Infinite where ours has not reached it.
    share = medians[REALTIME] / theirs[best]
    holds = "holds" if share <= BAR else "does NOT hold"
    ratio = f"{REALTIME} takes {share:.2f} of the time of {best}, SB3's best schedule: the bar of {BAR:g} {holds}."
    return f"{text}\n\n{ratio}"


def _cells(name: str, found: Learned) -> list[str]:
    def seconds(value: float) -> str:
        return format_number(float(value), 0) if np.isfinite(value) else "never"

    mean, deviation = found.last_returns.mean(), found.last_returns.std()
    return [
        name,
        f"{np.isfinite(found.seconds).sum()} of {len(found.seconds)}",
        seconds(np.median(found.seconds)),
        seconds(found.seconds.max()),
        seconds(np.median(found.ticks)),
        f"{mean:,.0f} ± {deviation:,.0f}",
    ]
