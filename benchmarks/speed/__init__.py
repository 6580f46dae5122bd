"""Steps per second, updates, start-up and memory of SB3's algorithms and ours."""
