"""Whether scores mean what they say: reliability, D-ECE and LaECE of all detections, matched or not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gfocal.analysis.matching import Outcomes

Floats = npt.NDArray[np.float64]

BINS = 20
"""Of D-ECE and the reliability diagram, evenly over the scores."""

LOCALISATION_BINS = 25
"""Of LaECE, as its authors use them."""


@dataclass(frozen=True)
class ScoreBin:
    """One bin of scores: its ends, how many detections, their mean score, share of correct ones and mean IoU.

    The IoU counts 0 for a detection that is not correct.
    """

    low: float
    high: float
    count: int
    score: float
    precision: float
    iou: float


@dataclass(frozen=True)
class ScoreReliability:
    """How well the scores of detections tell what becomes of them.

    d_ece: detection expected calibration error; la_ece: localisation-aware (`detection_error`, `localisation_error`),
    NaN without detections. bins: those of the reliability diagram, empty ones left out. detections: how many.
    """

    d_ece: float
    la_ece: float
    bins: tuple[ScoreBin, ...]
    detections: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def score_reliability(outcomes: Outcomes, *, bins: int = BINS) -> ScoreReliability:
    """Return how well the scores of detections tell whether they are correct.

    >>> from gfocal.analysis.calibration.synthetic import synthetic_matches
    >>> reliability = score_reliability(synthetic_matches(5000).outcomes)
    >>> reliability.d_ece < 0.02, reliability.detections
    (True, 10000)
    """
    return ScoreReliability(
        d_ece=detection_error(outcomes, bins=bins),
        la_ece=localisation_error(outcomes),
        bins=score_bins(outcomes, bins=bins),
        detections=len(outcomes),
    )


def score_bins(outcomes: Outcomes, *, bins: int = BINS) -> tuple[ScoreBin, ...]:
    """Return the bins of scores that hold a detection.

    >>> from gfocal.analysis.calibration.synthetic import synthetic_matches
    >>> len(score_bins(synthetic_matches(5000).outcomes, bins=4))
    4
    """
    scores, correct, iou = _columns(outcomes)
    place = _places(scores, bins)
    count = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=column, minlength=bins) for column in (scores, correct, iou)]
    return tuple(
        ScoreBin(i / bins, (i + 1) / bins, int(count[i]), *(float(total[i] / count[i]) for total in sums))
        for i in np.flatnonzero(count).tolist()
    )


def detection_error(outcomes: Outcomes, *, bins: int = BINS) -> float:
    """Return D-ECE: the mean of |precision - mean score| over bins of scores, weighted by their detections.

    It is the form of Küppers et al. (Multivariate Confidence Calibration for Object Detection, CVPR Workshops 2020)
    that looks at the confidence alone; their bins over the position and size of boxes are left out. Of all classes
    together; NaN without detections.

    >>> import torch
    >>> sure = Outcomes(torch.full((4,), 0.9), torch.zeros(4).long(), torch.tensor([True, True, False, False]),
    ...                 torch.zeros(4), torch.zeros(4, 4), torch.zeros(4).long())
    >>> round(detection_error(sure), 3)
    0.4
    """
    scores, correct, _ = _columns(outcomes)
    return _error(scores, correct, bins)


def localisation_error(outcomes: Outcomes, *, bins: int = LOCALISATION_BINS) -> float:
    """Return LaECE: the mean over classes of the error of scores against precision times mean IoU.

    In each of 25 bins of a class, |mean score - precision · mean IoU of the correct ones|, weighted by its detections
    (Oksuz et al., Towards Building Self-Aware Object Detectors, CVPR 2023). A detection is correct at the IoU it was
    matched at, which is the measure's own threshold. Classes without detections are left out; NaN where there is none.

    >>> import torch
    >>> half = Outcomes(torch.full((4,), 0.5), torch.zeros(4).long(), torch.ones(4).bool(), torch.full((4,), 0.75),
    ...                 torch.zeros(4, 4), torch.zeros(4).long())
    >>> localisation_error(half)
    0.25
    """
    scores, _, iou = _columns(outcomes)
    labels = outcomes.labels.numpy()
    errors = [_error(scores[labels == label], iou[labels == label], bins) for label in np.unique(labels)]
    return float(np.mean(errors)) if errors else float("nan")


def _columns(outcomes: Outcomes) -> tuple[Floats, Floats, Floats]:
    """Return scores, correctness and IoU, which is 0 for what is not correct."""
    correct = outcomes.correct.double().numpy()
    return outcomes.scores.double().numpy(), correct, outcomes.iou.double().numpy() * correct


def _places(scores: Floats, bins: int) -> npt.NDArray[np.intp]:
    return np.minimum((scores * bins).astype(np.intp), bins - 1)


def _error(scores: Floats, target: Floats, bins: int) -> float:
    """Return the mean over bins of |mean target - mean score|, weighted by the number of values."""
    if not len(scores):
        return float("nan")
    difference = np.bincount(_places(scores, bins), weights=target - scores, minlength=bins)
    return float(np.abs(difference).sum() / len(scores))
