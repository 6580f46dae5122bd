"""
Comparisons with SB3 and the figures of the WALL-E report, run from a checkout: ``python -m benchmarks.speed``,
``python -m benchmarks.returns`` and ``python -m benchmarks.figures``.
"""
