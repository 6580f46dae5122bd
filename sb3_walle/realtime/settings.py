"""What a sampler has to know of its plant."""

from dataclasses import dataclass, field

from sb3_walle.realtime.fallback import FallbackAction
from sb3_walle.realtime.pacing import Clock, SystemClock

#: how much the learner may be behind before the plant gets the fallback action
RING_SECONDS = 120.0
#: the least of it, however large observations are
LEAST_RING_SECONDS = 10.0
#: memory of one plant's ring, unless the least takes more
RING_NBYTES = 2**28
# Where environments keep time themselves, nothing tells how many steps they make a second.
USUAL_HZ = 50.0


@dataclass(frozen=True)
class RealtimeSettings:
    """
    :param fallback_action: what the plant gets when no fresh action comes any more
    :param control_hz: actions a second; ``None`` if the environment keeps time itself
    :param clock: tells the time
    """

    fallback_action: FallbackAction
    control_hz: float | None = None
    clock: Clock = field(default_factory=SystemClock)

    def n_ring_steps(self, nbytes_per_step: int) -> int:
        """
        :param nbytes_per_step: memory that a step takes
        :return: how many steps of one plant may wait for the learner
        """
        hz = self.control_hz or USUAL_HZ
        wanted, least = round(RING_SECONDS * hz), round(LEAST_RING_SECONDS * hz)
        return max(min(wanted, RING_NBYTES // nbytes_per_step), least, 2)
