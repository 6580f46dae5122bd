"""Many tensors as one vector, over which an optimizer steps in one go."""

import math
from collections.abc import Iterable, Sequence

import torch as th


class FlatLayout:
    """
    Where each of many tensors lies in a vector.

    :param tensors: tensors of these shapes; their values do not matter
    """

    def __init__(self, tensors: Iterable[th.Tensor]) -> None:
        self.shapes = [tuple(tensor.shape) for tensor in tensors]
        self._sizes = [math.prod(shape) for shape in self.shapes]

    @staticmethod
    def flatten(tensors: Sequence[th.Tensor]) -> th.Tensor:
        """
        :param tensors: tensors of one data type
        :return: a copy of them as a vector
        """
        return th.cat([tensor.detach().reshape(-1) for tensor in tensors])

    def views(self, vector: th.Tensor) -> list[th.Tensor]:
        """
        :param vector: a vector of all of them
        :return: each of them, in the vector's memory
        """
        parts = vector.split(self._sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]
