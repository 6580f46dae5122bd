"""What a sampler asks of the thing that chooses its actions."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces

from sb3_walle.samplers.layers import InnermostEnvs
from sb3_walle.transport.chunk import Chunk, Observations
from sb3_walle.transport.layout import Field

#: Among the weights, the random state at the learner; in a chunk, what it is after the chunk's steps.
RANDOM_STATE = "random_state"
#: In a chunk, log-probabilities of its actions, which only on-policy algorithms need.
LOG_PROBS = "log_probs"
#: In a chunk, of actors that compute values: those of the observations; of the last observations of truncated episodes,
#: zero elsewhere; and for each environment, the value of what the chunk's last step led to.
VALUES, BOOTSTRAP_VALUES, LAST_VALUES = "values", "bootstrap_values", "last_values"


def actions_field(action_space: spaces.Space, n_steps: int, n_envs: int, continuous_dtype: str = "<f4") -> Field:
    """
    :param action_space: the policy's action space
    :param n_steps: most steps that a chunk can hold, T
    :param n_envs: environments of a sampler, B
    :param continuous_dtype: data type of actions that are not categories
    :return: the array that an actor records actions in, ``[T, B, ...]``
    """
    is_discrete = isinstance(action_space, spaces.Discrete | spaces.MultiDiscrete)
    return Field("actions", (n_steps, n_envs, *(action_space.shape or ())), "<i8" if is_discrete else continuous_dtype)


class Actor(Protocol):
    """
    The sampler's inference engine for a policy: observations in, actions and their behaviour log-probabilities out.

    An actor records what it computes in the chunk that is being filled, so that nothing is kept twice.
    B is the number of environments of the sampler.
    """

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """
        Take over a set of weights. The arrays are only valid during the call.

        :param weights: the arrays that :attr:`ActorSpec.weight_names` names
        """

    def begin_chunk(self, chunk: Chunk) -> None:
        """
        Record into this chunk from now on.

        :param chunk: the chunk that is about to be filled
        """

    def act(self, observations: Observations, step: int) -> np.ndarray:
        """
        Choose the actions of one step, and record them in row ``step`` of the chunk.

        :param observations: ``[B, ...]``, or a dictionary of such arrays
        :param step: row of the chunk
        :return: the actions as the policy gives them, before clipping or rescaling, ``[B, ...]``, in the data type in
            which SB3 then computes with them
        """

    def bootstrap(self, terminal_observation: Observations, step: int, env: int) -> None:
        """
        An episode was cut off by a time limit: record what the learner needs to bootstrap from its last observation.

        :param terminal_observation: the last observation of the episode, without a batch axis
        :param step: row of the chunk
        :param env: index of the environment within the sampler
        """

    def end_chunk(self, observations: Observations, n_steps: int) -> None:
        """
        The chunk is complete: record what is computed for all its steps together.

        :param observations: what the last step led to, ``[B, ...]``, or a dictionary of such arrays
        :param n_steps: how many rows were filled
        """


@runtime_checkable
class AsksEnvs(Protocol):
    """An actor or a predictor that asks environments for more than they show: which actions are valid, say."""

    def connect(self, envs: InnermostEnvs) -> None:
        """
        Called once, before the first observation.

        :param envs: the environments of the sampler
        """


class ActorSpec(Protocol):
    """How to build an actor. Made by the learner, pickled once, built in the sampler."""

    @property
    def weight_names(self) -> tuple[str, ...]:
        """Which entries of the policy's ``state_dict()`` the actor needs."""

    def fields(self, n_steps: int, n_envs: int) -> tuple[Field, ...]:
        """
        The arrays that the actor records in a chunk, ``actions`` among them.

        :param n_steps: most steps that a chunk can hold, T
        :param n_envs: environments of a sampler, B
        :return: the fields
        """

    def for_successor(self, incarnation: int) -> "ActorSpec":
        """
        :param incarnation: how many samplers have died before in the same place
        :return: the same actor with a random stream that no other has had
        """

    def build(self, n_envs: int) -> Actor:
        """
        :param n_envs: environments of the sampler, B
        :return: the actor; its weights are undefined until they are loaded
        """


class Predictor(Protocol):
    """A policy that is evaluated: what a model's ``predict()`` returns."""

    def predict(self, observations: Observations, episode_starts: np.ndarray) -> np.ndarray:
        """
        :param observations: ``[B, ...]``, or a dictionary of such arrays
        :param episode_starts: whether they are the first of an episode, ``[B]``
        :return: what the environments are given, ``[B, ...]``, and may keep
        """


class PredictorSpec(Protocol):
    """How to build a predictor, weights included. Made by the learner, built in the sampler."""

    def build(self, n_envs: int, sampler: int) -> Predictor:
        """
        :param n_envs: environments of the sampler, B
        :param sampler: number of the sampler
        """
