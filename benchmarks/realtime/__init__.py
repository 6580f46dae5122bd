"""Acting in real time: a simulated plant that never waits, and what becomes of contenders that control it."""
