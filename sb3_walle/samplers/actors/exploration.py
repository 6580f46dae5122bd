"""What an off-policy algorithm publishes of exploration, beside the weights."""

from collections.abc import Mapping

import numpy as np

#: for each step since weights were loaded, whether its actions are uniformly random
IS_RANDOM = "exploration/is_random"
#: for each of these steps, the probability of a random action of an epsilon-greedy policy
RATE = "exploration/rate"
#: number of the training, ``()``: action noise begins anew with each
TRAINING = "exploration/training"

EXPLORATION = (IS_RANDOM, RATE, TRAINING)


class ExplorationPlan:
    """How the actions of each step are chosen. It begins anew with every set of weights."""

    def __init__(self) -> None:
        self._are_random, self._rates, self._step = [True], [1.0], 0
        self._training: int | None = None

    def load(self, published: Mapping[str, np.ndarray]) -> bool:
        """
        Begin another plan.

        :param published: the arrays that ``EXPLORATION`` names, among others; only valid during the call
        :return: whether it is the first one of a training
        """
        self._are_random, self._rates = published[IS_RANDOM].tolist(), published[RATE].tolist()
        self._step = 0
        training_before, self._training = self._training, int(published[TRAINING])
        return self._training != training_before

    def next_step(self) -> tuple[bool, float]:
        """:return: whether the actions of this step are uniformly random; and the probability that one is, if not"""
        # A sampler that gets no new plan in time continues with the end of the one that it has.
        index = min(self._step, len(self._rates) - 1)
        self._step += 1
        return self._are_random[index], self._rates[index]
