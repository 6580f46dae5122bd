"""Gradient-norm clipping."""

import torch as th


def clipped(gradient: th.Tensor, max_norm: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """
    Shorten a gradient as torch's ``clip_grad_norm_()`` does.

    :param gradient: gradient of all parameters, ``[n]``
    :param max_norm: how long it may be
    :return: the gradient, ``[n]``, and its norm before
    """
    norm = th.linalg.vector_norm(gradient)
    return gradient * th.clamp(max_norm / (norm + 1e-6), max=1.0), norm
