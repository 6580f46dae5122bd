"""The evaluation of a policy in a sampler: whole episodes, of which only the outcome is told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sb3_walle.samplers.actors.protocol import AsksEnvs, PredictorSpec
from sb3_walle.samplers.infos import EPISODE, IS_SUCCESS
from sb3_walle.samplers.stack import EnvStack, LayerSpec
from sb3_walle.transport.ports import SamplerEnd


@dataclass(frozen=True)
class EvaluationTask:
    """
    What a sampler evaluates.

    :param predictor: the policy
    :param n_episodes: how many episodes count of each environment, ``[B]``
    :param layers: what is around the environments of the ``SamplerVecEnv``, from the inside to the outside
    :param statistics: what observations are normalised with
    :param render: whether to render each step
    :param queues: the samplers' end of queues, of which an evaluation only needs to know whether it is still wanted
    :param run: the evaluation is abandoned when another run has begun
    """

    predictor: PredictorSpec
    n_episodes: Sequence[int]
    layers: tuple[LayerSpec, ...]
    statistics: Mapping[str, np.ndarray]
    render: bool
    queues: SamplerEnd
    run: int


class Outcome(NamedTuple):
    """
    The end of an episode.

    :param step: of the evaluation
    :param env: number of the environment
    :param reward: sum of the rewards, and ``length``, as ``Monitor`` tells them; ``None`` if the environment says that
        it is done and its ``Monitor`` does not, as with the lives of an Atari game
    :param is_success: whether it was a success, ``None`` if the environment does not tell
    """

    step: int
    env: int
    reward: float | None
    length: int | None
    is_success: Any


def evaluate(stack: EnvStack, task: EvaluationTask, sampler: int) -> list[Outcome]:
    """
    The loop of SB3's ``evaluate_policy()``, after :meth:`EnvStack.begin_evaluation`.

    :param sampler: number of the sampler
    :return: the ends of episodes, in the order in which SB3 finds them
    """
    n_envs = stack.envs.n_envs
    first_env = sampler * n_envs
    control = task.queues.open(sampler).control
    predictor = task.predictor.build(n_envs, sampler)
    if isinstance(predictor, AsksEnvs):
        predictor.connect(stack.envs)
    outcomes: list[Outcome] = []
    n_left = np.array(task.n_episodes)
    rewards, episode_starts = np.zeros(n_envs, np.float32), np.ones(n_envs, bool)
    step = 0

    def on_info(env: int, info: dict[str, Any], done: bool) -> None:
        if n_left[env] == 0:
            return
        episode_starts[env] = done
        if done:
            episode = info.get(EPISODE)
            n_left[env] -= episode is not None
            reward, length = (None, None) if episode is None else (episode["r"], episode["l"])
            outcomes.append(Outcome(step, first_env + env, reward, length, info.get(IS_SUCCESS)))

    while n_left.any() and control.run == task.run:
        stack.step(predictor.predict(stack.policy_layer.observations, episode_starts), rewards, on_info)
        if task.render:
            stack.envs.render(range(n_envs))
        step += 1
    return outcomes
