"""The loss of quantile regression (Dabney et al., 2018, https://arxiv.org/abs/1710.10044, eq. 9 and 10)."""

import torch as th


def quantile_huber_losses(quantiles: th.Tensor, targets: th.Tensor) -> th.Tensor:
    """
    What sb3-contrib's ``quantile_huber_loss()`` takes the mean of, in the same order of operations.

    :param quantiles: ``[B, n]``, or ``[B, n_critics, n]``
    :param targets: ``[B, n_targets]``, or ``[B, 1, n_targets]``
    :return: the loss of each pair of a quantile and a target: their axes at the end, ``[B, n, n_targets]``, or
        ``[B, n_critics, n, n_targets]``
    """
    n = quantiles.shape[-1]
    midpoints = (th.arange(n, device=quantiles.device, dtype=th.float) + 0.5) / n
    delta = targets.unsqueeze(-2) - quantiles.unsqueeze(-1)
    size = delta.abs()
    huber = th.where(size > 1, size - 0.5, delta**2 * 0.5)
    return (midpoints.unsqueeze(-1) - (delta.detach() < 0).float()).abs() * huber
