"""`gfocal.calibrate`: detect, match, fit on one part of the pictures, and report on the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from gfocal.analysis.calibration.box_metrics import box_coverage, box_coverage_of_quantiles
from gfocal.analysis.calibration.classification import score_reliability
from gfocal.analysis.calibration.edge_metrics import coverage, edge_scores
from gfocal.analysis.calibration.fitting import LEAST_OF_CLASS, fit_calibration
from gfocal.analysis.calibration.report import (
    MAIN,
    Alternative,
    CalibrationReport,
    ClassCoverage,
    Part,
    Repeated,
)
from gfocal.analysis.calibration.softness import softness_report
from gfocal.analysis.matching import MatchedEdges, matched_edges
from gfocal.bands import Bands
from gfocal.calibration import Calibration, Spread
from gfocal.data.dataset import Dataset
from gfocal.errors import UserError, unknown
from gfocal.heads import is_heads, open_heads
from gfocal.loading import load_inner
from gfocal.model import Model
from gfocal.predictor import Predictor
from gfocal.structures import Detections, EdgeDistributions, Truth
from gfocal.testing import detect, open_for

Pairs = Iterable[tuple[Truth, Detections]]


def calibrate(
    model: Predictor | str | Path,
    data: str | Path | Dataset,
    *,
    split: str = "val",
    fit_split: str | None = None,
    fit_share: float = 0.5,
    iou: float = 0.5,
    same_class: bool = True,
    spread: Spread | None = None,
    least: int = LEAST_OF_CLASS,
    seed: int = 0,
    splits: int = 1,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    workers: int = 0,
    precision: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[CalibrationReport, Model | None]:
    """Return how well a model's edges and scores are calibrated, and the model with the calibration that was fitted.

    model: a Model, weights that `gfocal.load` takes, or an npz file of `gfocal.heads`, for which the second result is
    None. What is calibrated already is calibrated anew. data: what --data takes, or an open data set. The pictures of
    `split` are parted at random (`seed`), a share `fit_share` to fit on and the rest to report on; with `fit_split`,
    all of that split are fitted on, and all of `split` reported on. Take none that the model was trained on.

    iou, same_class: of the matching of `gfocal.analysis.matching.match`. spread, least: of
    `gfocal.analysis.calibration.fit_calibration`. splits: also part the pictures anew so many times, with seeds from
    `seed` on, and tell mean and spread of the coverage. progress: called with the number of pictures done. UserError
    where there are too few pictures, or no box is matched in one of the parts.

    >>> import gfocal
    >>> report, calibrated = gfocal.calibrate("runs/mine", "data.yaml")  # doctest: +SKIP
    >>> print(report.text())  # doctest: +SKIP
    >>> calibrated.save("calibrated.safetensors")  # doctest: +SKIP
    """
    _refuse_options(spread=spread, fit_share=fit_share, splits=splits, fit_split=fit_split)
    loaded = None if is_heads(model) else load_inner(model)
    _refuse_no_spread(loaded, spread)
    seeing = {"size": size, "batch": batch, "workers": workers, "precision": precision}

    def matches(name: str, done: int) -> tuple[MatchedEdges, tuple[str, ...]]:
        pairs, names = _pairs(loaded, str(model), data, name, seeing)
        return _matched(pairs, iou=iou, same_class=same_class, progress=progress, done=done), names

    found, class_names = matches(split, 0)
    if fit_split is None:
        chosen = random_part(found.num_pictures, fit_share, seed=seed)
        fitted, tested = found.of_pictures(chosen), found.of_pictures(~chosen)
        counts = int(chosen.sum()), int((~chosen).sum())
    else:
        fitted, tested = matches(fit_split, found.num_pictures)[0], found
        counts = fitted.num_pictures, found.num_pictures
    _refuse_empty(fitted, tested, counts)
    report = calibration_report(
        fitted, tested, class_names, pictures=counts, iou=iou, same_class=same_class, spread=spread, least=least
    )
    if splits > 1:
        parts = [random_part(found.num_pictures, fit_share, seed=seed + place) for place in range(splits)]
        repeated = coverage_over_splits(found, class_names, parts, spread=spread, least=least, iou=iou)
        report = replace(report, repeated=repeated, splits=splits)
    source = str(model) if isinstance(model, str | Path) else model.recipe.name
    report = replace(report, source=source, data=f"{_name(data)} ({split})")
    return report, None if loaded is None else loaded.with_calibration(report.calibration)


def _refuse_options(*, spread: str | None, fit_share: float, splits: int, fit_split: str | None) -> None:
    """Raise UserError for options that there are not, or that go without each other."""
    if spread is not None and spread not in get_args(Spread):
        raise unknown("spread", str(spread), get_args(Spread))
    if not 0 < fit_share < 1:
        raise UserError(f"the share of pictures to fit on must lie between 0 and 1, got {fit_share}")
    if splits > 1 and fit_split is not None:
        raise UserError("splits parts one split anew each time: it goes without fit_split")


def _refuse_no_spread(model: Model | None, spread: Spread | None) -> None:
    """Raise UserError where errors are to be measured by a spread that the model does not predict."""
    if spread == "predicted" and model is not None and not model.postprocess.tells_spread:
        raise UserError(
            f"the model's boxes are {model.recipe.box['name']!r}, which predict no spread: "
            "take spread 'side' or 'constant'"
        )


def _pairs(
    model: Model | None, heads: str, data: str | Path | Dataset, split: str, seeing: dict[str, Any]
) -> tuple[Pairs, tuple[str, ...]]:
    """Return the pairs of truth and detections of a model, or where there is none of arrays, and the class names."""
    if model is None:
        opened = open_heads(heads, data, split=split)
        return opened, opened.class_names
    dataset = open_for(model, data, split)
    return detect(model.with_calibration(None), dataset, **seeing), model.class_names


def _name(data: str | Path | Dataset) -> str:
    return str(data) if isinstance(data, str | Path) else "data"


def calibration_report(
    fitted: MatchedEdges,
    tested: MatchedEdges,
    class_names: tuple[str, ...],
    *,
    pictures: tuple[int, int],
    iou: float = 0.5,
    same_class: bool = True,
    spread: Spread | None = None,
    least: int = LEAST_OF_CLASS,
) -> CalibrationReport:
    """Return the report of a calibration fitted on some matched boxes, of others. pictures: how many either are of.

    >>> from gfocal.analysis.calibration.synthetic import synthetic_matches
    >>> fitted, tested = synthetic_matches(1500, temperature=2.0), synthetic_matches(1500, temperature=2.0, seed=1)
    >>> report = calibration_report(fitted, tested, ("thing",), pictures=(50, 50))
    >>> [round(float(stage.intervals[2].coverage), 1) for stage in (report.before, report.tempered)]
    [0.8, 0.9]
    """
    calibration = fit_calibration(fitted, class_names, spread=spread, least=least, iou=iou)
    edges, bands = calibrated(calibration, tested)
    truths, masses = tested.truths, calibration.masses
    before = tested.edges
    return CalibrationReport(
        source="",
        data="",
        fit=Part(pictures[0], len(fitted)),
        test=Part(pictures[1], len(tested)),
        iou=iou,
        same_class=same_class,
        before=None if before is None else edge_scores(before, truths, masses=masses),
        tempered=None if edges is None else edge_scores(edges, truths, masses=masses),
        conformal=tuple(coverage(*bands.interval(mass), truths, mass=mass) for mass in masses),
        boxes_before=() if before is None else box_coverage_of_quantiles(before, truths, masses=masses),
        boxes=box_coverage(bands, tested.boxes, truths),
        alternatives=tuple(_alternatives(calibration, fitted, tested, least=least)),
        classes=tuple(_classes(calibration, fitted, tested, bands)),
        scores=score_reliability(tested.outcomes),
        softness=softness_report(tested, bands, calibrated=edges),
        repeated=(),
        splits=1,
        calibration=calibration,
    )


def calibrated(calibration: Calibration, matched: MatchedEdges) -> tuple[EdgeDistributions | None, Bands]:
    """Return the distributions of matched boxes at their temperatures, and the bands around these boxes.

    >>> from gfocal.analysis.calibration.synthetic import synthetic_matches
    >>> matched = synthetic_matches(500)
    >>> edges, bands = calibrated(fit_calibration(matched, ("thing",)), matched)
    >>> len(edges), bands.masses
    (500, (0.5, 0.8, 0.9, 0.95))
    """
    edges = matched.edges
    if edges is not None and calibration.temperatures:
        edges = calibration.edges(edges, matched.levels)
    return edges, calibration.bands(matched.boxes, edges, matched.labels)


def random_part(pictures: int, share: float, *, seed: int) -> Bool[Tensor, " pictures"]:
    """Return which pictures belong to a random part of them: one at least, and one at least not.

    >>> int(random_part(10, 0.5, seed=0).sum())
    5
    """
    if pictures < 2:
        raise UserError(f"a calibration needs pictures to fit on and others to report on, and there is only {pictures}")
    count = min(max(round(share * pictures), 1), pictures - 1)
    order = torch.randperm(pictures, generator=torch.Generator().manual_seed(seed))
    chosen = torch.zeros(pictures, dtype=torch.bool)
    chosen[order[:count]] = True
    return chosen


def coverage_over_splits(
    found: MatchedEdges,
    class_names: tuple[str, ...],
    parts: list[Bool[Tensor, " pictures"]],
    *,
    spread: Spread | None = None,
    least: int = LEAST_OF_CLASS,
    iou: float = 0.5,
) -> tuple[Repeated, ...]:
    """Return mean and standard deviation of the coverage over several parts of the pictures to fit on.

    >>> from gfocal.analysis.calibration.synthetic import synthetic_matches
    >>> parts = [random_part(50, 0.5, seed=seed) for seed in range(5)]
    >>> conformal = coverage_over_splits(synthetic_matches(1000, temperature=3.0), ("thing",), parts)[2]
    >>> conformal.stage, round(conformal.means[2], 2)
    ('conformal', 0.9)
    """
    columns: dict[str, list[list[float]]] = {}
    for chosen in parts:
        fitted, tested = found.of_pictures(chosen), found.of_pictures(~chosen)
        if not len(fitted) or not len(tested):
            continue
        calibration = fit_calibration(fitted, class_names, spread=spread, least=least, iou=iou)
        edges, bands = calibrated(calibration, tested)
        masses = calibration.masses
        stages = {"before": tested.edges, "tempered": edges}
        for stage, distributions in stages.items():
            if distributions is not None:
                held = [coverage(*distributions.interval(mass), tested.truths, mass=mass).coverage for mass in masses]
                columns.setdefault(stage, []).append(held)
        held = [coverage(*bands.interval(mass), tested.truths, mass=mass).coverage for mass in masses]
        columns.setdefault("conformal", []).append(held)
        boxes = box_coverage(bands, tested.boxes, tested.truths)
        columns.setdefault("outer", []).append([row.outer for row in boxes])
        columns.setdefault("inner", []).append([row.inner for row in boxes])
    return tuple(
        Repeated(stage, tuple(np.mean(rows, axis=0).tolist()), tuple(np.std(rows, axis=0).tolist()))
        for stage, rows in columns.items()
    )


def _matched(
    pairs: Pairs, *, iou: float, same_class: bool, progress: Callable[[int], None] | None, done: int
) -> MatchedEdges:
    def counted() -> Iterator[tuple[Truth, Detections]]:
        for number, pair in enumerate(pairs, start=done + 1):
            yield pair
            if progress is not None:
                progress(number)

    return matched_edges(counted(), iou=iou, same_class=same_class)


def _refuse_empty(fitted: MatchedEdges, tested: MatchedEdges, pictures: tuple[int, int]) -> None:
    for part, count, what in ((fitted, pictures[0], "fit on"), (tested, pictures[1], "report on")):
        if not len(part):
            raise UserError(
                f"no detection matches an annotation in the {count} pictures to {what}: take more pictures, a model "
                "that was trained on these classes, or a lower IoU"
            )


def _alternatives(
    calibration: Calibration, fitted: MatchedEdges, tested: MatchedEdges, *, least: int
) -> Iterator[Alternative]:
    kinds: tuple[Spread, ...] = ("predicted", "side", "constant")
    for kind in kinds if fitted.edges is not None else kinds[1:]:
        names, temperatures = calibration.class_names, calibration.temperatures
        fit = fit_calibration(
            fitted, names, masses=(MAIN,), spread=kind, least=least, temperatures=temperatures or None
        )
        row = coverage(*calibrated(fit, tested)[1].interval(MAIN), tested.truths, mass=MAIN)
        yield Alternative(kind, row.coverage, row.width, row.relative)


def _classes(
    calibration: Calibration, fitted: MatchedEdges, tested: MatchedEdges, bands: Bands
) -> Iterator[ClassCoverage]:
    lower, upper = bands.interval(MAIN)
    held = ((lower <= tested.truths) & (tested.truths <= upper)).double().mean(-1)
    for label, name in enumerate(calibration.class_names):
        mine = tested.labels == label
        count = int(mine.sum())
        yield ClassCoverage(
            name=name,
            fitted=int((fitted.labels == label).sum()),
            boxes=count,
            own=calibration.groups[label] > 0,
            coverage=float(held[mine].mean()) if count else float("nan"),
        )
