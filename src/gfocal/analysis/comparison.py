"""Whether a difference of AP between two detectors, trained with several seeds each, is more than chance."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

import numpy as np
import numpy.typing as npt

from gfocal.errors import UserError, at_least
from gfocal.files import whole_or_absent
from gfocal.structures import Detections, Truth

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's ten, made as COCO makes them: whether an IoU of exactly 0.6 passes depends on the last bit."""
_RECALLS = np.linspace(0, 1, 101)
_LEVELS = len(IOU_THRESHOLDS)
_BINS = len(_RECALLS) + 1
_MOST_DETECTIONS = 100  # COCO's largest `maxDets`, which holds for each picture and class
_POWER = 0.8


@dataclass(frozen=True, eq=False)
class Matches:
    """Which detections of one run hit a truth: all that AP depends on, but for how often each picture counts.

    One row a detection, picture by picture, those of one picture and class best score first. pictures: (d,) int32
    index of the picture. labels: (d,) int32 class. scores: (d,) float32. hit: (d, 10) whether it is a true positive
    at each of `IOU_THRESHOLDS`. ignored: (d, 10) whether it lies on a crowd box, and so counts neither way.
    truths: (pictures, classes) int32, how many boxes there are to be found. ValueError where these do not fit.
    """

    pictures: Integers
    labels: Integers
    scores: Floats
    hit: Flags
    ignored: Flags
    truths: Integers

    def __post_init__(self) -> None:
        rows = (len(self.pictures),)
        for name, shape in (("labels", rows), ("scores", rows), ("hit", (*rows, 10)), ("ignored", (*rows, 10))):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must be {shape}, one row a detection, got {getattr(self, name).shape}")
        if self.truths.ndim != 2:
            raise ValueError(f"truths must be (pictures, classes), got {self.truths.shape}")
        for name, count in zip(("pictures", "labels"), self.truths.shape, strict=True):
            values = getattr(self, name)
            if len(values) and not 0 <= values.min() <= values.max() < count:
                raise ValueError(f"{name} must lie in 0..{count - 1}, the range of truths")

    @cached_property
    def curves(self) -> _Curves:
        """The precision-recall curves, sorted once for any number of weightings."""
        return _Curves(self)

    def save(self, path: Path) -> None:
        """Write the matches as a compressed npz file, whole or not at all; UserError where that cannot be done."""
        with whole_or_absent(path) as scratch, scratch.open("wb") as file:
            np.savez_compressed(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Matches:
        """Return the matches that `save` wrote; UserError where the file is missing or something else."""
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                return cls(**{field.name: file[field.name] for field in fields(cls)})
        except FileNotFoundError as error:
            raise UserError(f"{path}: there is no such file of matches") from error
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: not a whole file of matches; evaluate the model again") from error


@final
class MatchRecorder:
    """Collects truths and detections picture by picture as `CocoEvaluator` does, and keeps what was matched."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)
        self._rows: list[tuple[Integers, Floats, Flags, Flags]] = []
        self._truths: list[Integers] = []

    def add(self, truth: Truth, detections: Detections) -> None:
        """Take in one picture, boxes of both in its own pixels; labels are indices into the class names."""
        classes = len(self.class_names)
        true_labels, crowd = truth.labels.numpy(), truth.crowd.numpy()
        scores, labels = detections.scores.cpu().numpy(), detections.labels.cpu().numpy()
        if max(true_labels.max(initial=-1), labels.max(initial=-1)) >= classes:
            raise ValueError(f"labels must lie in 0..{classes - 1}, one for each class name")
        order = _best_of_each_class(scores, labels)
        scores, labels = scores[order], labels[order]
        overlaps = _overlaps(detections.boxes.double().cpu().numpy()[order], truth.boxes.double().numpy(), crowd)
        overlaps[labels[:, None] != true_labels] = 0  # below every threshold
        hit, ignored = _match(overlaps, crowd)
        self._rows.append((labels.astype(np.int32), scores.astype(np.float32), hit, ignored))
        self._truths.append(np.bincount(true_labels[~crowd], minlength=classes).astype(np.int32))

    def matches(self) -> Matches:
        """Return what was matched in all pictures so far, at least one."""
        labels, scores, hit, ignored = (np.concatenate(column) for column in zip(*self._rows, strict=True))
        counts = [len(rows[0]) for rows in self._rows]
        pictures = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        return Matches(pictures, labels, scores, hit, ignored, np.stack(self._truths))


def _best_of_each_class(scores: Floats, labels: Integers) -> Integers:
    """Return the rows that COCO looks at, best score first, ties in their order: at most 100 of a class."""
    order = np.argsort(-scores, kind="stable")
    kept = [order[labels[order] == label][:_MOST_DETECTIONS] for label in np.unique(labels)]
    return np.concatenate(kept) if kept else order


def _overlaps(found: Floats, boxes: Floats, crowd: Flags) -> Floats:
    """Return (d, g) the IoU of each pair of xyxy boxes; with a crowd box, the share of the detection inside of it."""
    corners = np.minimum(found[:, None, 2:], boxes[:, 2:]) - np.maximum(found[:, None, :2], boxes[:, :2])
    inside = corners.clip(0).prod(-1)
    area = (found[:, 2:] - found[:, :2]).prod(-1)[:, None]
    whole = np.where(crowd, area, area + (boxes[:, 2:] - boxes[:, :2]).prod(-1) - inside)
    return np.divide(inside, whole, out=np.zeros_like(inside), where=inside > 0)


def _match(overlaps: Floats, crowd: Flags) -> tuple[Flags, Flags]:
    """Return (d, 10) which detections, best score first, hit a truth, and which only lie on a crowd box.

    overlaps: (d, g), 0 between two classes. crowd: (g,). A detection takes the free truth of highest overlap, of
    equal ones the last, as COCO does; a crowd box is never used up.
    """
    single = overlaps[:, ~crowd][:, ::-1]  # so that argmax finds the last of equal ones
    hit = np.zeros((len(overlaps), _LEVELS), bool)
    taken = np.zeros((_LEVELS, single.shape[1]), bool)
    levels = np.arange(_LEVELS)
    for row in np.flatnonzero(single.max(axis=1, initial=0) >= IOU_THRESHOLDS[0]):
        free = np.where(taken, 0, single[row])
        best = free.argmax(axis=1)
        hit[row] = free[levels, best] >= IOU_THRESHOLDS
        taken[levels, best] |= hit[row]
    on_crowd = overlaps[:, crowd].max(axis=1, initial=0)[:, None] >= IOU_THRESHOLDS
    return hit, on_crowd & ~hit


@final
class _Curves:
    """The precision-recall curves of every threshold and class, up to the weights of the pictures.

    Precision falls between two hits, so only the hits are kept: in one row, by threshold, then class, then
    descending score. What came before a hit on its curve is then a difference of two sums over all.
    """

    def __init__(self, matches: Matches) -> None:
        self.truths = matches.truths
        order = np.lexsort((-matches.scores, matches.labels))  # stable: equal scores stay in the order of pictures
        labels = matches.labels[order]
        self.pictures = matches.pictures[order]
        level, row = np.nonzero(matches.hit[order].T)
        self.label = labels[row].astype(np.intp)
        self.curve = level * self.truths.shape[1] + self.label
        self.hit_pictures = self.pictures[row]
        self.curve_start = np.searchsorted(self.curve, self.curve)
        self.row_end = row + 1
        self.row_start = np.searchsorted(labels, self.label)
        ignored_level, ignored_row = np.nonzero(matches.ignored[order].T)
        self.ignored_pictures = self.pictures[ignored_row]
        place = ignored_level * len(order) + ignored_row
        self.ignored_end = np.searchsorted(place, level * len(order) + row)
        self.ignored_start = np.searchsorted(place, level * len(order) + self.row_start)

    def average_precision(self, weights: npt.NDArray[np.float64]) -> float:
        """Return AP, 0..1, with picture i counted `weights[i]` times, NaN where nothing is to be found."""
        truths = weights @ self.truths
        counted = truths > 0
        if not counted.any():
            return float("nan")
        hits = _sums(weights[self.hit_pictures])
        found = _sums(weights[self.pictures])
        ignored = _sums(weights[self.ignored_pictures])
        true = hits[1:] - hits[self.curve_start]
        given = found[self.row_end] - found[self.row_start] - (ignored[self.ignored_end] - ignored[self.ignored_start])
        precision = true / np.where(given > 0, given, 1)
        recall = true / np.where(counted, truths, 1)[self.label]
        # a hit speaks for all recalls up to its own, that of `bins - 1`; of each bin the best hit, then of all above
        bins = self.curve * _BINS + np.searchsorted(_RECALLS, recall, side="right")
        first = np.flatnonzero(np.diff(bins, prepend=-1))
        best = np.zeros(_LEVELS * len(truths) * _BINS)
        best[bins[first]] = np.maximum.reduceat(precision, first) if len(first) else 0
        envelope = np.maximum.accumulate(best.reshape(_LEVELS, len(truths), _BINS)[..., :0:-1], axis=-1)
        return float(envelope[:, counted].mean())


def _sums(values: Floats) -> Floats:
    """Return the n + 1 sums of the first 0, 1, ... n values."""
    return np.concatenate([np.zeros(1), np.cumsum(values)])


def average_precision(matches: Matches, weights: Integers | Floats | None = None) -> float:
    """Return COCO's AP, 0..1: the mean over ten IoU thresholds, 101 recalls and the classes that have truths.

    weights: (pictures,), how often each picture counts, once unless given. With whole numbers the result is that
    of a data set with each picture repeated so often in its place, but for equal scores within one picture and
    class; other weights may round at a recall threshold. NaN where nothing is to be found. ValueError for weights
    that are negative or not one a picture.
    """
    pictures = len(matches.truths)
    used = np.ones(pictures) if weights is None else np.asarray(weights, dtype=np.float64)
    if used.shape != (pictures,) or not np.all(np.isfinite(used) & (used >= 0)):
        raise ValueError(f"weights must be {pictures} numbers from 0 up, one a picture, got shape {used.shape}")
    return matches.curves.average_precision(used)


Verdict: TypeAlias = Literal["reproduced", "refuted", "undecided", ""]
"""What runs say of the sign of a difference of the paper; nothing where the paper has none."""


@dataclass(frozen=True)
class Comparison:
    """How much higher our AP is than the baseline's, all of it in 0..1 of AP.

    difference: mean over the seeds. low, high: its confidence interval. resolution: the true difference that such
    runs would tell from 0 in 80 % of cases, as far as their own spread can say. seeds: pairs of runs; with 1, the
    interval knows nothing of how much another training would have changed. pictures: how many both were evaluated on.
    """

    difference: float
    low: float
    high: float
    resolution: float
    seeds: int
    pictures: int

    def verdict(self, paper_difference: float) -> Verdict:
        """Return what the interval says of the paper's difference; one seed decides nothing."""
        found = _verdict(self.low, self.high, paper_difference)
        return found if self.seeds > 1 or not found else "undecided"


@dataclass(frozen=True)
class Paired:
    """How much higher our figures of the same seeds are than the baseline's: the mean and its confidence interval."""

    difference: float
    low: float
    high: float

    def verdict(self, paper_difference: float) -> Verdict:
        """Return what the interval says of the paper's difference."""
        return _verdict(self.low, self.high, paper_difference)


def compare_figures(ours: Sequence[float], baseline: Sequence[float], *, level: float = 0.95) -> Paired:
    """Return the mean difference of two figures of the same seeds, at least two, with Student's interval.

    >>> one = compare_figures([0.64, 0.66], [0.60, 0.61])
    >>> round(one.difference, 3), one.low < 0 < one.high
    (0.045, True)
    """
    if len(ours) != len(baseline) or len(ours) < 2:
        raise ValueError(f"needs the figures of the same two seeds or more, got {len(ours)} and {len(baseline)}")
    differences = np.subtract(ours, baseline)
    mean = float(differences.mean())
    half = student_quantile((1 + level) / 2, len(ours) - 1) * float(differences.std(ddof=1)) / len(ours) ** 0.5
    return Paired(mean, mean - half, mean + half)


def _verdict(low: float, high: float, paper_difference: float) -> Verdict:
    """Return whether an interval excludes 0 on the side of the paper's difference, on the other, or not at all.

    Where the paper saw no difference, there is no side, and no verdict.
    """
    side = int(low > 0) - int(high < 0)
    if not paper_difference:
        return ""
    if side * paper_difference > 0:
        return "reproduced"
    return "refuted" if side * paper_difference < 0 else "undecided"


def compare(
    ours: Sequence[Matches],
    baseline: Sequence[Matches],
    *,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Return the difference of AP between two detectors with its confidence interval.

    ours[s] and baseline[s] are runs of the same seed, all on the same pictures. The pictures are resampled with
    replacement, the same for every run; `seed` sets which. Resampling the few seeds too would give too narrow an
    interval, by about sqrt((n - 1) / n) and the tails of Student's t, so the two sources are taken apart, each
    estimated without bias:

    - seeds: the variance s² of the n differences about their mean, over n. This holds the interplay of seed and
      pictures as well. Half-width: t quantile with n - 1 degrees of freedom, times s / sqrt(n).
    - pictures: what resampling moves in all seeds alike, the mean covariance of the differences of two seeds over
      the resamples (with one seed their variance). Half-width: t quantile times its root.

    The interval reaches the root of the sum of both squares to either side (Howe 1974, the mean of a sum of two
    independent quantities), which keeps the level or a little more with any number of seeds.

    ValueError for no runs, unequal numbers of runs, runs on different pictures, fewer than 2 pictures or resamples,
    a level outside 0..1, or nothing to be found in the pictures.
    """
    if not ours or len(ours) != len(baseline):
        raise ValueError(f"each side needs a run for each seed, got {len(ours)} of ours and {len(baseline)} others")
    at_least("resamples", resamples, 2)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    truths = ours[0].truths
    if not all(np.array_equal(run.truths, truths) for run in (*ours, *baseline)):
        raise ValueError("the runs were not evaluated on the same pictures: their numbers of true boxes differ")
    if len(truths) < 2 or not truths.any():
        raise ValueError(f"needs at least 2 pictures, and boxes to be found in them, got {len(truths)} pictures")

    def differences(weights: npt.NDArray[np.float64]) -> list[float]:
        pairs = zip(ours, baseline, strict=True)
        return [one.curves.average_precision(weights) - two.curves.average_precision(weights) for one, two in pairs]

    rng = np.random.default_rng(seed)
    measured = np.array(differences(np.ones(len(truths))))
    resampled = np.array([differences(_drawn(truths, rng)) for _ in range(resamples)])
    return _estimate(measured, resampled, pictures=len(truths), level=level)


def _drawn(truths: Integers, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return (pictures,) how often each picture is drawn, in as many draws, among them one with a true box."""
    pictures = len(truths)
    while True:
        weights = np.bincount(rng.integers(pictures, size=pictures), minlength=pictures).astype(np.float64)
        if (weights @ truths).any():
            return weights


def _estimate(measured: Floats, resampled: Floats, *, pictures: int, level: float) -> Comparison:
    """Return the interval of `compare` from (seeds,) differences and (resamples, seeds) those of drawn pictures."""
    seeds = len(measured)
    # a resample of n pictures varies like n - 1
    covariance = np.cov(resampled, rowvar=False).reshape(seeds, seeds) * pictures / (pictures - 1)
    if seeds == 1:
        of_seeds, shared = 0.0, float(covariance[0, 0])
    else:
        of_seeds = float(measured.var(ddof=1)) / seeds
        shared = float(covariance.sum() - covariance.trace()) / (seeds * (seeds - 1))
    of_pictures = max(0.0, shared)  # an estimate without bias may fall below

    def reach(share: float) -> float:
        squares = student_quantile(share, min(pictures, len(resampled)) - 1) ** 2 * of_pictures
        if seeds > 1:
            squares += student_quantile(share, seeds - 1) ** 2 * of_seeds
        return squares**0.5

    difference, half = float(measured.mean()), reach((1 + level) / 2)
    # where the truth lies farther out than the half-width by the reach of 80 %, so many estimates lie beyond it
    return Comparison(difference, difference - half, difference + half, half + reach(_POWER), seeds, pictures)


def student_quantile(p: float, dof: int) -> float:
    """Return the quantile of Student's t below which the share `p`, 0.5..1 without 1, of its mass lies.

    dof: degrees of freedom, from 1. With t = sqrt(dof) tan θ the density is cos(θ)^(dof - 1) up to a factor, which
    is integrated by trapezoids.
    """
    angles = np.linspace(0, np.pi / 2, 10_001)  # right to 1e-4 up to 10,000 degrees of freedom, which is as good as all
    density = np.cos(angles) ** (dof - 1)
    mass = _sums(density[1:] + density[:-1])
    angle = np.interp(2 * p - 1, mass / mass[-1], angles)
    return float(dof**0.5 * np.tan(angle))
