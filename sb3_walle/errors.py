"""Errors that both sides raise, samplers and learner."""


class NonFiniteError(ValueError):
    """
    There is a NaN or an infinity where learning needs a number. The message says where, and what to do.
    """
