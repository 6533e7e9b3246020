"""What rescoring is worth on pictures not fitted on: AP and correlation before and after, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gfocal.analysis.comparison import Matches, MatchRecorder
from gfocal.analysis.rescoring.rescorer import OVERLAP, Pairs, first_of_each_box, overlap
from gfocal.structures import Detections

Suppress = Callable[[Detections], Detections]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A figure and the interval that holds it with the report's confidence, over which pictures there might be."""

    value: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether 0 lies inside, so that a difference may be chance."""
        return not (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Report:
    """AP (0..1) and Pearson correlation with the real IoU before and after, on pictures not fitted on.

    pictures, boxes: how many of each; boxes are candidate locations that overlap an annotated box of any class by more
    than 0.3, over which the correlations are taken. ap_before, ap_after, ap_gain, pearson_before, pearson_after,
    pearson_gain: with intervals at `level`. signals: correlation of each signal by itself: score (of the best class),
    top (mean highest probability of the edges), variance (minus the mean variance in bins), quality. score_power,
    quality_power: exponents of the rescorer fitted on all pictures. fold_powers: quality_power of each fold's.
    """

    pictures: int
    boxes: int
    folds: int
    level: float
    ap_before: Interval
    ap_after: Interval
    ap_gain: Interval
    pearson_before: Interval
    pearson_after: Interval
    pearson_gain: Interval
    signals: Mapping[str, float]
    score_power: float
    quality_power: float
    fold_powers: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        return asdict(self) | {"ap_gain_is_noise": self.ap_gain.is_noise, "verdict": self.verdict()}

    def verdict(self) -> str:
        """Return in one sentence whether AP rose by more than chance."""
        gain, share = self.ap_gain, f"{100 * self.level:g} %"
        span = f"{100 * gain.value:+.2f} AP, {share} interval {100 * gain.low:+.2f} to {100 * gain.high:+.2f}"
        if gain.is_noise:
            return f"The gain of AP is within noise ({span}): these {self.pictures} pictures cannot tell it from none."
        if gain.value > 0:
            return f"AP rises by more than noise ({span})."
        return f"AP falls by more than noise ({span}): do not rescore."

    def text(self) -> str:
        """Return the report in lines."""
        lines = [
            f"{self.pictures} pictures, each scored by a rescorer fitted on others ({self.folds} folds)",
            f"{'':<22}{'before':>8}  {'after':>8}  {'gain':>8}  {100 * self.level:g} % interval of the gain",
            _row("AP", self.ap_before, self.ap_after, self.ap_gain, scale=100, digits=2),
            _row("Pearson with real IoU", self.pearson_before, self.pearson_after, self.pearson_gain, digits=3),
            f"over {self.boxes} locations that overlap an object by more than {OVERLAP}; each signal by itself:",
            "  " + "  ".join(f"{name} {value:.3f}" for name, value in self.signals.items()),
            f"new score = score^{self.score_power:g} × quality^{self.quality_power:g} "
            f"(by fold: {', '.join(f'{power:g}' for power in self.fold_powers)})",
            self.verdict(),
        ]
        return "\n".join(lines)


def _row(name: str, before: Interval, after: Interval, gain: Interval, *, digits: int, scale: float = 1) -> str:
    values = "  ".join(f"{scale * part.value:>8.{digits}f}" for part in (before, after))
    return (
        f"{name:<22}{values}  {scale * gain.value:>+8.{digits}f}  "
        f"{scale * gain.low:+.{digits}f} to {scale * gain.high:+.{digits}f}"
    )


@dataclass(frozen=True)
class Samples:
    """The locations that correlations are taken over (n): the picture of each, its real IoU, and signals of it."""

    pictures: npt.NDArray[np.intp]
    iou: Floats
    signals: Mapping[str, Floats]

    def correlation(self, name: str, weights: Floats | None = None) -> float:
        """Return the Pearson correlation of a signal with the real IoU, each picture counted `weights` times."""
        w = np.ones(len(self.iou)) if weights is None else weights[self.pictures]
        x, y = self.signals[name], self.iou
        if not w.sum():
            return float("nan")
        x, y = x - np.average(x, weights=w), y - np.average(y, weights=w)
        spread = float(np.sqrt((w * x * x).sum() * (w * y * y).sum()))
        return float((w * x * y).sum() / spread) if spread else float("nan")


def signals(pairs: Pairs, scored: Sequence[Detections] | None = None) -> Samples:
    """Return the signals of each location that overlaps an annotated box of any class by more than 0.3.

    pairs: truth and candidates of each picture. scored: the same candidates in the same order, with a quality and new
    scores, which become the signals quality and rescored. Of a location with several classes the best counts.

    >>> from gfocal import Detections, EdgeDistributions
    >>> from gfocal.analysis.rescoring.measuring import signals
    >>> from gfocal.structures import Truth
    >>> boxes, label = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0]]), torch.zeros(2, dtype=torch.long)
    >>> edges = EdgeDistributions(torch.ones(2, 4, 5) / 5, torch.arange(5.0).expand(2, 4, 5))
    >>> found = Detections(boxes, torch.tensor([0.9, 0.8]), label, ("cat",), edges=edges)
    >>> truth = Truth(1, "1.png", (20, 20), boxes[:1], label[:1], torch.tensor([False]))
    >>> round(signals([(truth, found)]).correlation("score"), 3)
    1.0
    """
    columns: dict[str, list[Tensor]] = {name: [] for name in ("picture", "iou", "score", "top", "variance")}
    added: dict[str, list[Tensor]] = {"quality": [], "rescored": []}
    for index, (truth, found) in enumerate(pairs):
        rows = first_of_each_box(found)
        iou = overlap(found.boxes[rows], truth)
        rows, iou = rows[iou > OVERLAP], iou[iou > OVERLAP]
        edges = found[rows].edges
        assert edges is not None
        bins = torch.arange(edges.probabilities.shape[-1], dtype=torch.float32)
        mean = (edges.probabilities * bins).sum(-1, keepdim=True)
        variance = (edges.probabilities * (bins - mean).square()).sum(-1)
        columns["picture"].append(torch.full((len(rows),), index))
        columns["iou"].append(iou)
        columns["score"].append(found.scores[rows])
        columns["top"].append(edges.probabilities.amax(-1).mean(-1))
        columns["variance"].append(-variance.mean(-1))
        if scored is not None:
            quality = scored[index].quality
            assert quality is not None
            added["quality"].append(quality[rows])
            added["rescored"].append(scored[index].scores[rows])
    known = columns if scored is None else columns | added
    plain = {name: torch.cat(parts).double().numpy() for name, parts in known.items()}
    return Samples(plain.pop("picture").astype(np.intp), plain.pop("iou"), plain)


def matches(pairs: Pairs, scores: Sequence[Tensor], suppress: Suppress) -> Matches:
    """Return what AP depends on when the candidates of each picture have these scores."""
    recorder = MatchRecorder(pairs[0][1].class_names)
    for (truth, found), score in zip(pairs, scores, strict=True):
        recorder.add(truth, suppress(replace(found, scores=score)))
    return recorder.matches()


def with_interval(
    before: Callable[[Floats], float],
    after: Callable[[Floats], float],
    *,
    pictures: int,
    resamples: int,
    level: float,
    seed: int,
) -> tuple[Interval, Interval, Interval]:
    """Return two figures and their difference, with percentile intervals over the same resamples of the pictures.

    before, after: the figure when each picture counts so often. Draws in which one is NaN are left out.
    """
    dice = np.random.default_rng(seed)
    whole = np.ones(pictures)
    drawn = [np.bincount(dice.integers(pictures, size=pictures), minlength=pictures) for _ in range(resamples)]
    values = np.array([(before(w.astype(np.float64)), after(w.astype(np.float64))) for w in drawn])
    values = np.column_stack([values, values[:, 1] - values[:, 0]])
    values = values[np.isfinite(values).all(1)]
    one, two = before(whole), after(whole)
    if not len(values):
        ends = np.full((2, 3), np.nan)
    else:
        ends = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    first, second, third = (
        Interval(value, float(ends[0, column]), float(ends[1, column]))
        for column, value in enumerate((one, two, two - one))
    )
    return first, second, third
