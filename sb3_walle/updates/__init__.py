"""Updates of a policy: the same numbers as SB3's ``train()``, faster. Knows nothing of samplers."""
