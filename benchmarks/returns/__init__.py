"""Returns of SB3's algorithms and ours at equal steps."""
