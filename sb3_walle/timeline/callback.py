"""The callback that records a timeline."""

import io
import json
import os
from contextlib import AbstractContextManager
from pathlib import Path
from time import perf_counter
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from sb3_walle.saving import written_whole
from sb3_walle.timeline.spans import Spans, arrange
from sb3_walle.timeline.timeline import ROLLOUT, LearnerSpan, Timeline
from sb3_walle.timeline.trace import trace_events
from sb3_walle.user_warning import warn_user

TRACE, PICTURE = "timeline.json", "timeline.png"


class TimelineCallback(BaseCallback):
    """
    Shows what learner and samplers do: who waits for whom. Leaves two files when training ends.

    ``timeline.json`` is in Chrome's trace format: open it at https://ui.perfetto.dev or in chrome://tracing. Each
    process has a row: the learner's rollouts, waits and updates, the samplers' chunks and waits, and an arrow for each
    ticket. ``timeline.png`` shows the last three iterations before the last one, with which samplers have no further
    work. It needs matplotlib.

    .. code-block:: python

        model.learn(100_000, callback=TimelineCallback("timeline"))

    Where samplers run on other machines, their times are known up to the time that a message takes.

    :param save_path: the folder for the files, which replace those that are there
    :param max_events: how many tickets, chunks, rollouts and updates are kept: the last ones, each of some 400 bytes in
        ``timeline.json``
    :param verbose: 1 for a line about each file
    """

    def __init__(self, save_path: str | os.PathLike[str] = ".", max_events: int = 20_000, verbose: int = 0) -> None:
        super().__init__(verbose)
        if max_events < 1:
            raise ValueError(f"max_events must be at least 1, got {max_events}")
        self.save_path, self.max_events = Path(save_path), max_events
        self._timeline: Timeline | None = None
        self._rollout_began: float | None = None

    def _on_training_start(self) -> None:
        model: Any = self.model
        if not hasattr(model, "record_timeline"):
            raise TypeError(
                f"TimelineCallback records algorithms of sb3_walle, and {type(model).__name__} is none of them. "
                "Use AsyncPPO, for example."
            )
        self._timeline = Timeline(self.max_events)
        model.record_timeline(self._timeline)

    def _on_rollout_start(self) -> None:
        self._rollout_began = perf_counter()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        if self._timeline is not None and self._rollout_began is not None:
            self._timeline.note(LearnerSpan(ROLLOUT, self._rollout_began, perf_counter()))
            self._rollout_began = None

    def _on_training_end(self) -> None:
        self.write()

    def write(self) -> None:
        """
        Write the files, once. SB3 calls this when training ends; call it yourself if an exception or Ctrl-C has ended
        it.
        """
        if self._timeline is None:
            return
        # A callback may have ended training in the middle of a rollout.
        self._on_rollout_end()
        timeline, self._timeline = self._timeline, None
        spans = arrange(timeline)
        self.save_path.mkdir(parents=True, exist_ok=True)
        self._write_trace(timeline, spans)
        self._draw(spans)

    def _write_trace(self, timeline: Timeline, spans: Spans) -> None:
        trace = {
            "traceEvents": list(trace_events(spans)),
            "displayTimeUnit": "ms",
            "otherData": {
                "algorithm": type(self.model).__name__,
                "mode": getattr(self.model, "mode", None),
                "kept": f"the last {len(timeline.events):,} of {timeline.n_events:,} events (max_events)",
            },
        }
        with self._written(TRACE) as file:
            file.write(json.dumps(trace).encode())

    def _draw(self, spans: Spans) -> None:
        try:
            from sb3_walle.timeline.picture import draw_timeline
        except ImportError as error:
            warn_user(
                f"{PICTURE} is not drawn ({error}): pip install 'sb3_walle[extra]'. {TRACE} shows the same in a viewer."
            )
            return
        with self._written(PICTURE) as file:
            draw_timeline(spans, self._title(), file)

    def _title(self) -> str:
        return f"{type(self.model).__name__}, mode {getattr(self.model, 'mode', None)}"

    def _written(self, name: str) -> AbstractContextManager[io.BufferedWriter]:
        path = self.save_path / name
        if self.verbose >= 1:
            print(f"Saving {path}")
        return written_whole(path)
