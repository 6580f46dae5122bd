"""Mode "realtime": acting at a fixed rate, whatever the learner does."""
