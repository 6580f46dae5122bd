"""Has samplers evaluate a policy, and takes in the outcome when it is there."""

import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gymnasium import spaces

from sb3_walle.backends.client import SamplerClient
from sb3_walle.samplers.actors.protocol import actions_field
from sb3_walle.samplers.evaluation import EvaluationTask, Outcome
from sb3_walle.samplers.requests import Evaluate
from sb3_walle.transport.chunk import chunk_layout
from sb3_walle.transport.experience_queue import ExperienceGeometry
from sb3_walle.transport.layout import Layout
from sb3_walle.transport.memory_queues import QueuePlan
from sb3_walle.transport.ports import SamplerEnd

# A callback that is called at every step looks for an answer, or for a death, at most this often, in seconds.
LOOK_EVERY = 0.01


@dataclass(frozen=True)
class Evaluation:
    """Sums of rewards and lengths of the episodes, and which of those that tell were a success."""

    rewards: list[float]
    lengths: list[int]
    successes: list[bool]


class Evaluator:
    """
    One evaluation at a time, by samplers that do nothing else.

    :param samplers: the samplers
    """

    def __init__(self, samplers: SamplerClient) -> None:
        self._samplers = samplers
        # As small as they can be: nothing travels through them but the news that an evaluation is no longer wanted.
        chunk = chunk_layout(1, 1, spaces.Discrete(1), (actions_field(spaces.Discrete(1), 1, 1),))
        plan = QueuePlan(Layout(()), ExperienceGeometry(chunk, samplers.n_samplers, n_slots=1))
        self._queues = samplers.open_queues(plan)
        # Samplers that are closed finish what they are doing first. Python calls what was registered last before that.
        weakref.finalize(samplers, self._queues.control.start_run)
        self._n_expected = 0
        self._look_at = 0.0

    @property
    def sampler_end(self) -> SamplerEnd:
        """The queues' end for tasks."""
        return self._queues.sampler_end

    @property
    def run(self) -> int:
        """The run for tasks."""
        return self._queues.control.run

    def start(self, task: EvaluationTask, seeds: Sequence[int | None], options: Sequence[dict[str, Any]]) -> None:
        """
        Begin an evaluation.

        :param task: what to evaluate, with the number of episodes of every environment of all samplers
        :param seeds: of every environment, or ``None``
        :param options: Gymnasium's reset options of every environment
        """
        self._n_expected = 0
        size = len(task.n_episodes) // self._samplers.n_samplers
        for sampler in range(self._samplers.n_samplers):
            envs = slice(sampler * size, (sampler + 1) * size)
            request = Evaluate(replace(task, n_episodes=task.n_episodes[envs]), seeds[envs], options[envs])
            self._samplers.post(sampler, request)
            self._n_expected += 1

    def look(self, at_once: bool) -> None:
        """Take in what has arrived, and see to samplers that died. Does not wait, and mostly does nothing."""
        now = time.monotonic()
        if self._n_expected > 0 and (at_once or now >= self._look_at):
            self._look_at = now + LOOK_EVERY
            self._samplers.receive_waiting_reports()

    @property
    def is_done(self) -> bool:
        """Whether :meth:`wait` returns at once."""
        return self._samplers.n_reports_waiting == self._n_expected

    def wait(self) -> Evaluation:
        """
        Wait for the end of the evaluation.

        :return: its episodes, in the order in which SB3's ``evaluate_policy()`` finds them
        :raises SamplerError: if a sampler failed or died, and is not replaced
        """
        outcomes: list[Outcome] = []
        while self._n_expected > 0:
            _, found = self._samplers.next_report()
            self._n_expected -= 1
            outcomes += found
        outcomes.sort(key=lambda outcome: (outcome.step, outcome.env))
        return Evaluation(
            [outcome.reward for outcome in outcomes if outcome.reward is not None],
            [outcome.length for outcome in outcomes if outcome.length is not None],
            [outcome.is_success for outcome in outcomes if outcome.is_success is not None],
        )

    def interrupt(self) -> None:
        """Have samplers abandon what they are evaluating. Does not wait for them; its end never comes."""
        self._queues.control.start_run()
        self._samplers.forget_reports()
