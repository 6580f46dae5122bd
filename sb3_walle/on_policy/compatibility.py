"""Which algorithms samplers can collect for."""

from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm


def check_algorithm(algorithm: type, mixin: type) -> None:
    """
    :param algorithm: a subclass of the mixin
    :param mixin: the mixin
    :raises TypeError: if the mixin does not stand before the algorithm, or replaces anything but SB3's own
        ``collect_rollouts()``
    """
    bases = algorithm.__mro__
    place = bases.index(mixin)
    if OnPolicyAlgorithm in bases[:place]:
        raise TypeError(
            f"In the bases of {algorithm.__name__}, {mixin.__name__} must stand before the algorithm, "
            f"as in class AsyncPPO({mixin.__name__}, PPO)."
        )
    owner = next((base for base in bases[place + 1 :] if "collect_rollouts" in vars(base)), OnPolicyAlgorithm)
    if owner is not OnPolicyAlgorithm:
        raise TypeError(
            f"{algorithm.__name__} cannot collect with samplers: {owner.__name__} has a collect_rollouts() of its own, "
            "and samplers only do what SB3's OnPolicyAlgorithm does in it. They do not pass on LSTM states or action "
            "masks, for example. Such algorithms are not supported yet. What only adds something to "
            f"collect_rollouts() can be put before {mixin.__name__}."
        )
