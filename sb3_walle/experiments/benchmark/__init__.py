"""AsyncPPO against SB3's PPO: speed, start, memory."""
