"""Which minibatches are worth several threads."""

from collections.abc import Iterable, Sequence

# With smaller minibatches, threads wait for each other longer than they compute. Images are always many numbers.
LARGE_BATCH_SIZE = 256
IMAGE_AXES = 3


def is_large(batch_size: int, observation_shapes: Iterable[Sequence[int]]) -> bool:
    """
    :param batch_size: samples of the minibatch
    :param observation_shapes: shape of each part of an observation
    """
    return batch_size >= LARGE_BATCH_SIZE or any(len(shape) >= IMAGE_AXES for shape in observation_shapes)
