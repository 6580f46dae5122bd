"""The picture shows who waits, for any number of samplers and iterations."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from training_pairs import ROLLOUT, ours

from sb3_walle import TimelineCallback
from sb3_walle.timeline.picture import COLOURS, draw_timeline
from sb3_walle.timeline.spans import CHUNK, DELAY, LEARNER, WAIT_FOR_CHUNK, WAIT_FOR_TICKET, Span, Spans
from sb3_walle.timeline.timeline import ROLLOUT as A_ROLLOUT
from sb3_walle.timeline.timeline import UPDATE


def iterations(n_iterations: int, n_samplers: int) -> Spans:
    """Of a second each: a third is the samplers' work, a third their delay, and a third an update."""
    spans = []
    for began in range(10, 10 + n_iterations):
        third, two_thirds, end = began + 1 / 3, began + 2 / 3, began + 1
        spans.append(Span(LEARNER, A_ROLLOUT, began, two_thirds, {}))
        spans.append(Span(LEARNER, WAIT_FOR_CHUNK, began, third, {}))
        spans.append(Span(LEARNER, UPDATE, two_thirds, end, {}))
        for row in range(1, n_samplers + 1):
            spans.append(Span(row, DELAY, began, third, {}))
            spans.append(Span(row, CHUNK, third, two_thirds, {}))
            spans.append(Span(row, WAIT_FOR_TICKET, two_thirds, end, {}))
    return Spans(10.0, n_samplers, spans, [])


def drawn(spans: Spans, path: Path) -> np.ndarray:
    with path.open("wb") as file:
        draw_timeline(spans, "AsyncPPO, mode sync", file)
    return imread(path)[:, :, :3]


def share_of(image: np.ndarray, colour: str) -> float:
    return float((np.abs(image - to_rgb(colour)).max(axis=2) < 0.01).mean())


@pytest.mark.parametrize(("n_iterations", "n_samplers"), [(1, 1), (3, 4), (40, 4), (5, 100)])
def test_each_kind_takes_its_share(n_iterations: int, n_samplers: int, tmp_path: Path) -> None:
    image = drawn(iterations(n_iterations, n_samplers), tmp_path / "timeline.png")
    shares = {kind: share_of(image, colour) for kind, colour in COLOURS.items()}
    assert all(share > 0.001 for share in shares.values())
    assert shares[CHUNK] == pytest.approx(shares[DELAY], rel=0.2)
    if n_samplers >= 4:
        assert shares[CHUNK] > 2 * shares[UPDATE]
    # However many samplers there are, the picture fits on a screen.
    assert image.shape[0] <= 2400


def test_without_samplers_and_without_anything(tmp_path: Path) -> None:
    image = drawn(iterations(5, 0), tmp_path / "timeline.png")
    assert share_of(image, COLOURS[UPDATE]) > 0.01
    drawn(Spans(10.0, 0, [], []), tmp_path / "timeline.png")


@pytest.mark.parametrize("n_rollouts", [1, 5])
def test_training_leaves_a_picture(n_rollouts: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backend = matplotlib.get_backend()
    ours("sync").learn(n_rollouts * ROLLOUT, callback=TimelineCallback(tmp_path / "new", verbose=1))
    paths = [tmp_path / "new" / name for name in ("timeline.json", "timeline.png")]
    assert capsys.readouterr().out.splitlines()[-2:] == [f"Saving {path}" for path in paths]
    assert sorted((tmp_path / "new").iterdir()) == paths
    assert share_of(imread(paths[1])[:, :, :3], COLOURS[UPDATE]) > 0.001
    assert matplotlib.get_backend() == backend
