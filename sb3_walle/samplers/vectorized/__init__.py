"""Vectorised environments: one object that steps several environments in one call."""

from sb3_walle.samplers.vectorized.detection import check_single, is_vectorized

__all__ = ["check_single", "is_vectorized"]
