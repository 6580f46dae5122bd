"""Which algorithms samplers can collect for."""

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_walle.sb3_private import has_torch_weights

_ADVICE_FOR_OTHERS = (
    "Use an algorithm of SB3 or sb3-contrib that is, with AsyncOnPolicyMixin or AsyncOffPolicyMixin; or leave out the "
    "mixin, and train in environments of make_vec_env(..., vec_env_cls=SamplerVecEnv)."
)


def check_algorithm(algorithm: type, mixin: type, base: type[BaseAlgorithm], example: str) -> None:
    """
    :param algorithm: a subclass of the mixin
    :param base: the class that the mixin stands before, with the ``collect_rollouts()`` that samplers take part in
    :param example: how to use the mixin, for messages
    :raises TypeError: if the mixin does not stand before the algorithm, the algorithm is of another kind, its policy
        has no PyTorch weights, or the mixin replaces anything but SB3's own ``collect_rollouts()``
    """
    bases = algorithm.__mro__
    place = bases.index(mixin)
    if base in bases[:place]:
        raise TypeError(
            f"In the bases of {algorithm.__name__}, {mixin.__name__} must stand before the algorithm, "
            f"as in class {example}."
        )
    other = next((other for other in bases if issubclass(other, BaseAlgorithm) and not issubclass(other, mixin)), None)
    if other is not None and base not in bases:
        raise TypeError(
            f"{algorithm.__name__} cannot collect with samplers: {mixin.__name__} stands before algorithms that are "
            f"subclasses of SB3's {base.__name__}, as in class {example}, and {other.__name__} is none. "
            f"{_ADVICE_FOR_OTHERS}"
        )
    if other is not None and not has_torch_weights(algorithm):
        raise TypeError(
            f"{algorithm.__name__} cannot collect with samplers: {other.__name__} has no policy in PyTorch, whose "
            "weights samplers could be sent. Algorithms in JAX, such as those of SBX, are not supported. "
            f"{_ADVICE_FOR_OTHERS}"
        )
    owner = next((owner for owner in bases[place + 1 :] if "collect_rollouts" in vars(owner)), base)
    if owner is not base:
        raise TypeError(
            f"{algorithm.__name__} cannot collect with samplers: {owner.__name__} has a collect_rollouts() of its own, "
            f"and {mixin.__name__} only does what {base.__name__} does in it. For LSTM states there is "
            "AsyncRecurrentPPO, and for action masks AsyncMaskablePPO. What only adds something to "
            f"collect_rollouts() can be put before {mixin.__name__}."
        )


def check_model(model: object) -> None:
    """:raises TypeError: if the model of a subclass of a mixin is no algorithm of SB3"""
    if not isinstance(model, BaseAlgorithm):
        raise TypeError(f"{type(model).__name__} is no algorithm of SB3: none is among its bases. {_ADVICE_FOR_OTHERS}")
