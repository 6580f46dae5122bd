"""Replay buffers that Stable-Baselines3 does not have."""
