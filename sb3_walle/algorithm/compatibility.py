"""Which algorithms samplers can collect for."""

from stable_baselines3.common.base_class import BaseAlgorithm


def check_algorithm(algorithm: type, mixin: type, base: type[BaseAlgorithm], example: str) -> None:
    """
    :param algorithm: a subclass of the mixin
    :param mixin: the mixin
    :param base: SB3's class that the mixin stands before, with the ``collect_rollouts()`` that samplers take part in
    :param example: how to use the mixin, for messages
    :raises TypeError: if the mixin does not stand before the algorithm, or replaces anything but SB3's own
        ``collect_rollouts()``
    """
    bases = algorithm.__mro__
    place = bases.index(mixin)
    if base in bases[:place]:
        raise TypeError(
            f"In the bases of {algorithm.__name__}, {mixin.__name__} must stand before the algorithm, "
            f"as in class {example}."
        )
    owner = next((owner for owner in bases[place + 1 :] if "collect_rollouts" in vars(owner)), base)
    if owner is not base:
        raise TypeError(
            f"{algorithm.__name__} cannot collect with samplers: {owner.__name__} has a collect_rollouts() of its own, "
            f"and samplers only do what SB3's {base.__name__} does in it. They do not pass on LSTM states or action "
            "masks, for example. Such algorithms are not supported yet. What only adds something to "
            f"collect_rollouts() can be put before {mixin.__name__}."
        )
