"""Processes that compute shares of the learner's gradients: in shared memory, in step with the learner."""
