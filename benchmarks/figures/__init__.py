"""The figures of the WALL-E report, made anew: collection, learning and return with one sampler and with many."""

from sb3_walle.cli.extras import require_extra

require_extra("benchmarks.figures", "matplotlib", "tqdm")
