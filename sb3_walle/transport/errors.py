"""What can go wrong between the two ends of a queue."""


class TransportError(RuntimeError):
    """The two ends of a queue do not agree: what lies in memory is not what was announced."""
