"""Many tensors as one vector, which is clipped and over which an optimizer steps in one go."""

import math
from collections.abc import Iterable, Sequence

import torch as th


class FlatLayout:
    """Where each of many tensors lies in a vector."""

    def __init__(self, tensors: Iterable[th.Tensor]) -> None:
        self.shapes = [tuple(tensor.shape) for tensor in tensors]
        self._sizes = [math.prod(shape) for shape in self.shapes]

    @staticmethod
    def flatten(tensors: Sequence[th.Tensor]) -> th.Tensor:
        """A copy of tensors of one data type as a vector."""
        return th.cat([tensor.detach().reshape(-1) for tensor in tensors])

    def views(self, vector: th.Tensor) -> list[th.Tensor]:
        """Each of the tensors, in the vector's memory."""
        parts = vector.split(self._sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]


def clipped(gradient: th.Tensor, norm: th.Tensor, max_norm: th.Tensor) -> th.Tensor:
    """A gradient of some norm, or a part of it, shortened as torch's ``clip_grad_norm_()`` does."""
    return gradient * th.clamp(max_norm / (norm + 1e-6), max=1.0)
