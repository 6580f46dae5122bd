"""The benchmark of off-policy algorithms."""
