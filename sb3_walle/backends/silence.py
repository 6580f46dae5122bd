"""A warning of samplers that the learner has been waiting for, when it takes long."""

import time
from collections.abc import Sequence

from sb3_walle.backends.supervised_sampler import NEVER, SupervisedSampler
from sb3_walle.backends.supervision import warn

NOTICE_AFTER = 60.0


class SilenceWarning:
    """Warns once of samplers that have something to do and have not been heard of for long."""

    def __init__(self, samplers: Sequence[SupervisedSampler]) -> None:
        self._samplers = samplers
        self._is_told = False

    @property
    def ends_at(self) -> float:
        """When there will be something to tell, as far as one can say now."""
        if self._is_told:
            return NEVER
        return min(sampler.silent_since for sampler in self._samplers) + NOTICE_AFTER

    def look(self) -> None:
        """Warn, if it is time. To be called when nothing has arrived that was not received."""
        now = time.monotonic()
        if now < self.ends_at:
            return
        silent = [sampler for sampler in self._samplers if now >= sampler.silent_since + NOTICE_AFTER]
        self._is_told = True
        names = ", ".join(f"sampler {sampler.sampler} ({sampler.activity})" for sampler in silent)
        warn(
            f"Waiting for {NOTICE_AFTER:.0f} s for {names}. If a step of an environment may hang, pass step_timeout to "
            "have its sampler killed and replaced after that many seconds."
        )
