"""How well the control loop of a training run in real time kept time, in words."""

import itertools

import numpy as np

from sb3_walle.realtime.histogram import Histogram
from sb3_walle.realtime.statistics import RealtimeStatistics

WIDTH = 40
# Edges of printed bins: these, times powers of ten.
_STEPS = (1.0, 2.0, 5.0)


def realtime_summary(statistics: RealtimeStatistics) -> str:
    """:return: a few lines, and a histogram of the ages of actions"""
    rate = "at the environment's rate" if statistics.control_hz is None else f"at {statistics.control_hz:g} Hz"
    lines = [f"Real time: {statistics.n_steps:,} steps {rate}"]
    if statistics.n_ticks:
        lines.append(
            f"  ticks missed    {statistics.missed:.2%} ({statistics.n_missed:,} of {statistics.n_ticks:,}), most from "
            f"one action to the next: {statistics.longest_gap}"
        )
    lines += [
        f"  period          {quantiles(statistics.period_ms)}",
        f"  action age      {quantiles(statistics.action_age_ms)}, from reading an observation to applying the action",
    ]
    return "\n".join([*lines, *bars(statistics.action_age_ms)])


def quantiles(histogram: Histogram) -> str:
    """:param histogram: of milliseconds"""
    if histogram.n_values == 0:
        return "unknown: there were too few steps"
    median, high = (f"{histogram.quantile(share):.3g}" for share in (0.5, 0.99))
    return f"median {median} ms, p99 {high} ms, largest {histogram.largest:.3g} ms"


def bars(histogram: Histogram) -> list[str]:
    """:return: a line for each bin, from the first with values to the last, with a bar as long as its share"""
    used = np.flatnonzero(histogram.counts)
    if len(used) == 0:
        return []
    middles = np.sqrt(histogram.edges[:-1] * histogram.edges[1:])
    edges = round_edges(middles[used[0]], middles[used[-1]])
    counts, _ = np.histogram(middles, edges, weights=histogram.counts)
    names = [f"{low:g} to {high:g} ms" for low, high in itertools.pairwise(edges)]
    width = max(map(len, names))
    shares = counts / counts.sum()
    return [
        f"    {name:>{width}}  {'#' * round(WIDTH * share):<{WIDTH}} {share:7.2%}"
        for name, share in zip(names, shares, strict=True)
    ]


def round_edges(low: float, high: float) -> list[float]:
    """:return: edges of bins that two values lie in, 1, 2 or 5 times a power of ten each"""
    # One power more at both ends: a logarithm may be rounded to the next whole number.
    powers = range(int(np.floor(np.log10(low))) - 1, int(np.floor(np.log10(high))) + 2)
    edges = [float(f"{step:g}e{power}") for power in powers for step in _STEPS]
    first = max(index for index, edge in enumerate(edges) if edge <= low)
    last = min(index for index, edge in enumerate(edges) if edge > high)
    return edges[first : last + 1]
