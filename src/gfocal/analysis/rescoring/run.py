"""`gfocal.rescore`: fit a rescorer, and measure it by cross-fitting on every picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from gfocal.analysis.rescoring.measuring import Report, Samples, Suppress, matches, signals, with_interval
from gfocal.analysis.rescoring.rescorer import Pairs, Rescorer, fit_rescorer
from gfocal.data.dataset import Dataset
from gfocal.errors import UserError, at_least
from gfocal.heads import is_heads, open_heads, suppressed
from gfocal.loading import load_inner
from gfocal.predictor import Predictor
from gfocal.structures import Detections, Truth
from gfocal.testing import detect_candidates, open_for

POWERS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""The exponents of the quality that are tried; that of the score stays 1, because only their ratio ranks."""
INNER_FOLDS = 3
MOST_PICTURES = 500
"""Pictures that exponents are chosen on at most."""

Source = str | Path | Predictor | Iterable[tuple[Truth, Detections]]


@dataclass(frozen=True)
class Rescoring:
    """What `rescore` returns. rescorer: fitted on all pictures. report: of rescorers like it, on pictures not seen."""

    rescorer: Rescorer
    report: Report


def rescore(
    source: Source,
    data: str | Path | Dataset | None = None,
    *,
    split: str = "val",
    top_k: int = 4,
    hidden: int = 64,
    folds: int = 4,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Rescoring:
    """Fit a quality predictor on the edge distributions of finished detections, and tell what it is worth.

    source: an npz file of a head's arrays (`gfocal.heads`), a Model or weights that `gfocal.load` takes, or pairs of
    truth and candidates before suppression. data, split: as --data takes them, a COCO JSON, or an open data set; not
    with pairs. top_k, hidden: k and p of V2's predictor. folds: parts of the pictures; each is scored by a rescorer
    fitted on the others, so the report speaks of pictures not seen, exponents included. resamples, level: of the
    bootstrap over pictures. progress: called with the number of folds done, and once more for all pictures.

    The quality learns the IoU of boxes by cross-entropy (`fit_rescorer`). Its exponent is the one of `POWERS` with the
    highest AP on the fitting pictures, scored by inner folds and smoothed over neighbours. Likelihood was tried and
    left: it counts every candidate alike, and gave exponents below 0 that cost 3 AP on 64 pictures of COCO.

    UserError where there are fewer pictures than 2 × folds, or nothing to learn from, or no edge distributions.

    >>> import gfocal
    >>> result = gfocal.rescore("heads.npz", "val.json")  # doctest: +SKIP
    >>> print(result.report.text())  # doctest: +SKIP
    """
    at_least("folds", folds, 2)
    at_least("resamples", resamples, 2)
    pairs, suppress = _collected(source, data, split)
    if len(pairs) < 2 * folds:
        raise UserError(f"{len(pairs)} pictures are too few for {folds} folds: give at least {2 * folds}")
    if any(found.edges is None for _, found in pairs):
        raise UserError("this detector has no edge distributions to read a quality from: give one with box 'general'")
    bins = min(found.edges.positions.shape[-1] for _, found in pairs if found.edges is not None)
    if top_k > bins:
        raise UserError(f"top_k: an edge of this detector has {bins} probabilities, {top_k} were asked for")

    def fit(part: Pairs) -> Rescorer:
        return fit_rescorer(part, top_k=top_k, hidden=hidden, seed=seed)

    groups = _groups(len(pairs), folds, seed)
    scored: dict[int, Detections] = {}
    powers: list[float] = []
    for done, group in enumerate(groups, start=1):
        others = [pairs[index] for other in groups if other is not group for index in other]
        rescorer = _with_power(fit(others), others, fit, suppress, seed)
        powers.append(rescorer.quality_power)
        scored |= {index: _comparable(rescorer, others, pairs[index][1]) for index in group}
        if progress is not None:
            progress(done)
    final = _with_power(fit(pairs), pairs, fit, suppress, seed)
    if progress is not None:
        progress(folds + 1)
    ordered = [scored[index] for index in range(len(pairs))]
    report = _report(pairs, ordered, suppress, final, powers=tuple(powers), resamples=resamples, level=level, seed=seed)
    return Rescoring(final, report)


def _groups(count: int, folds: int, seed: int) -> list[list[int]]:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return [order[start::folds] for start in range(folds)]


def _with_power(
    rescorer: Rescorer, pairs: Pairs, fit: Callable[[Pairs], Rescorer], suppress: Suppress, seed: int
) -> Rescorer:
    """Return the rescorer with the exponent that does best on pictures that its like was not fitted on."""
    pairs = pairs[:MOST_PICTURES]
    qualities: dict[int, Tensor] = {}
    groups = _groups(len(pairs), INNER_FOLDS, seed + 1)
    for group in groups:
        inner = fit([pairs[index] for other in groups if other is not group for index in other])
        qualities |= {index: _quality(inner, pairs[index][1]) for index in group}
    reached: list[float] = []
    for power in POWERS:
        scores = [found.scores * qualities[index] ** power for index, (_, found) in enumerate(pairs)]
        matched = matches(pairs, scores, suppress)
        reached.append(matched.curves.average_precision(torch.ones(len(pairs)).double().numpy()))
    # differences between neighbours are mostly chance: each counts half of a place beside it, ends repeat
    padded = [reached[0], *reached, reached[-1]]
    smooth = [padded[place] / 4 + padded[place + 1] / 2 + padded[place + 2] / 4 for place in range(len(reached))]
    best = max(range(len(smooth)), key=smooth.__getitem__)
    return replace(rescorer, score_power=1.0, quality_power=POWERS[best])


def _quality(rescorer: Rescorer, found: Detections) -> Tensor:
    assert found.edges is not None
    return rescorer.quality(found.edges)


def _comparable(rescorer: Rescorer, fitted: Pairs, found: Detections) -> Detections:
    """Return candidates, in their order, with scores that rank among those of other folds.

    Rescorers of two folds may have two exponents, so each divides by the quality that is usual on its own pictures.
    """
    usual = torch.cat([_quality(rescorer, other) for _, other in fitted]).log().mean().exp()
    quality = _quality(rescorer, found)
    scores = found.scores**rescorer.score_power * (quality / usual) ** rescorer.quality_power
    return replace(found, scores=scores, quality=quality)


def _report(
    pairs: Pairs,
    scored: Sequence[Detections],
    suppress: Suppress,
    final: Rescorer,
    *,
    powers: tuple[float, ...],
    resamples: int,
    level: float,
    seed: int,
) -> Report:
    before = matches(pairs, [found.scores for _, found in pairs], suppress).curves
    after = matches(pairs, [found.scores for found in scored], suppress).curves
    samples: Samples = signals(pairs, scored)
    options = {"pictures": len(pairs), "resamples": resamples, "seed": seed}
    ap = with_interval(before.average_precision, after.average_precision, level=level, **options)
    pearson = with_interval(
        lambda weights: samples.correlation("score", weights),
        lambda weights: samples.correlation("rescored", weights),
        level=level,
        **options,
    )
    single = ("score", "top", "variance", "quality")
    return Report(
        pictures=len(pairs),
        boxes=len(samples.iou),
        folds=len(powers),
        level=level,
        ap_before=ap[0],
        ap_after=ap[1],
        ap_gain=ap[2],
        pearson_before=pearson[0],
        pearson_after=pearson[1],
        pearson_gain=pearson[2],
        signals={name: samples.correlation(name) for name in single},
        score_power=final.score_power,
        quality_power=final.quality_power,
        fold_powers=powers,
    )


def _collected(source: Source, data: str | Path | Dataset | None, split: str) -> tuple[Pairs, Suppress]:
    """Return the candidates of every picture with its truth, and what suppresses them."""
    if not isinstance(source, str | Path | Predictor):
        if data is not None:
            raise ValueError("data goes with a model or a file; pairs bring their truth along")
        return list(source), suppressed
    if data is None:
        raise UserError("name the data set that the boxes are held against: give data")
    if is_heads(source):
        return list(open_heads(source, data, split=split, suppress=False)), suppressed
    model = load_inner(source)
    # as the network puts them out: a calibration is for reading, not for ranking
    pairs = detect_candidates(model.with_calibration(None), open_for(model, data, split))
    return [(truth, found.cpu()) for truth, found in pairs], model.postprocess.suppressed
