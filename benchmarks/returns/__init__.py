"""Returns of SB3's algorithms and ours at equal steps."""

from sb3_walle.cli.extras import require_extra

require_extra("benchmarks.returns", "matplotlib", "tqdm")
