"""What is reported of the control loops."""

from dataclasses import dataclass

from sb3_walle.realtime.histogram import Histogram


@dataclass(frozen=True)
class TickTimes:
    """
    What a control loop measured of one step.

    :param period: seconds since the action before was applied; 0 for the first action of an episode, which has none
        before it
    :param action_age: seconds from reading the observation to applying the action that was chosen for it
    :param n_ticks: ticks of the control rate that the step took: 1, or more if it was late; 0 if the environment keeps
        time itself and does not tell
    """

    period: float
    action_age: float
    n_ticks: int


class RealtimeStatistics:
    """
    Times of the steps of all plants since ``learn()`` began. See ``model.realtime_statistics``.

    :param control_hz: ticks a second, ``None`` where environments keep time themselves
    """

    def __init__(self, control_hz: float | None) -> None:
        self.control_hz = control_hz
        #: milliseconds from one action to the next
        self.period_ms = Histogram(0.001, 1e6)
        #: milliseconds from reading an observation to applying the action that was chosen for it
        self.action_age_ms = Histogram(0.001, 1e6)
        #: seconds from publishing a policy to reading an observation that it acts on
        self.policy_age_s = Histogram(1e-6, 1e5)
        #: milliseconds from publishing a policy to reading the first observation that it acts on
        self.policy_delay_ms = Histogram(0.001, 1e6)
        #: steps that have arrived
        self.n_steps = 0
        #: ticks without a fresh action
        self.n_missed = 0
        #: most ticks from one fresh action to the next
        self.longest_gap = 0
        # Environments that keep time themselves may tell ticks of late steps only.
        self._are_ticks_known = control_hz is not None
        self._recent = _Recent()

    @property
    def n_ticks(self) -> int:
        """Ticks that the steps took, those that were missed included; 0 where they are unknown."""
        return self.n_steps + self.n_missed if self._are_ticks_known else 0

    @property
    def missed(self) -> float:
        """Share of ticks without a fresh action; 0 where they are unknown."""
        return self.n_missed / self.n_ticks if self.n_ticks else 0.0

    def add(self, times: TickTimes, policy_age: float, policy_delay: float | None) -> None:
        """
        Count a step.

        :param policy_age: seconds since the policy was published that chose the action
        :param policy_delay: the same if this is the policy's first action, otherwise ``None``
        """
        recent, n_missed = self._recent, max(0, times.n_ticks - 1)
        self._are_ticks_known |= times.n_ticks > 0
        self.n_steps += 1
        self.n_missed += n_missed
        self.longest_gap = max(self.longest_gap, times.n_ticks)
        recent.n_steps += 1
        recent.n_missed += n_missed
        if times.period > 0:
            recent.period_ms.add(1e3 * times.period)
        recent.action_age_ms.add(1e3 * times.action_age)
        recent.policy_age_s.add(policy_age)
        if policy_delay is not None:
            self.policy_delay_ms.add(1e3 * policy_delay)

    def figures(self) -> dict[str, float]:
        """:return: what is logged of the steps since the last call, by name"""
        recent = self._recent
        if recent.n_steps == 0:
            return {}
        figures = {
            "realtime/period_ms_p50": recent.period_ms.quantile(0.5),
            "realtime/period_ms_p99": recent.period_ms.quantile(0.99),
            "realtime/period_ms_max": recent.period_ms.largest,
            "realtime/action_age_ms_p99": recent.action_age_ms.quantile(0.99),
            "realtime/policy_age_s": recent.policy_age_s.quantile(0.5),
        }
        if self._are_ticks_known:
            figures["realtime/missed"] = recent.n_missed / (recent.n_steps + recent.n_missed)
        self.settle()
        return figures

    def settle(self) -> "RealtimeStatistics":
        """:return: the same, with all steps in the histograms, those since the last log included"""
        recent = self._recent
        self.period_ms.merge([recent.period_ms])
        self.action_age_ms.merge([recent.action_age_ms])
        self.policy_age_s.merge([recent.policy_age_s])
        self._recent = _Recent()
        return self


class _Recent:
    """Steps since the last log."""

    def __init__(self) -> None:
        self.period_ms = Histogram(0.001, 1e6)
        self.action_age_ms = Histogram(0.001, 1e6)
        self.policy_age_s = Histogram(1e-6, 1e5)
        self.n_steps = self.n_missed = 0
