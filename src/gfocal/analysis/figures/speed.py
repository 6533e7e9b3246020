"""Speed against accuracy (V1 Fig. 8, V2 Fig. 6): models on this machine, and what the papers' tables say."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes

from gfocal.analysis.figures.base import Drawing, Material
from gfocal.analysis.figures.plotting import BLUE, DARK, GREY, VERMILION, sheet_of
from gfocal.analysis.runs import EVALUATION_BATCH, outcome_of
from gfocal.analysis.scales import get_scale
from gfocal.data.collate import Prepared, pad
from gfocal.model import Model
from gfocal.recipes.tables import Row, get_table
from gfocal.testing import evaluate

TIMED = 20
"""Test pictures that every model is timed on, in turns with the others."""
WARM_UP = 2
SLOWEST = 160.0
"""Milliseconds: the paper's slower detectors are in the CSV alone, so that the others can be told apart."""
OURS = ((BLUE, "s"), (VERMILION, "o"))


@dataclass(frozen=True)
class Point:
    """A detector: milliseconds a picture, and AP in percent. ours: whether the papers present it."""

    method: str
    backbone: str
    milliseconds: float
    ap: float
    ours: bool


def speed_and_accuracy_v1(material: Material) -> Drawing:
    """Draw V1 Fig. 8."""
    return _speed_and_accuracy(material, "v1-table4")


def speed_and_accuracy_v2(material: Material) -> Drawing:
    """Draw V2 Fig. 6."""
    return _speed_and_accuracy(material, "v2-table7")


def _speed_and_accuracy(material: Material, table: str) -> Drawing:
    rows = get_table(table).rows
    trained = [row for row in rows if row.recipe is not None]
    here = measured(trained, material)
    paper = published(rows)
    sheet, (left, right) = sheet_of(1, 2, width=10.4, height=5.0)
    _draw(left, here)
    device = "GPU" if torch.cuda.is_available() and material.plan.device != "cpu" else "CPU"
    left.set(
        title=f"Measured here: {_scale_of(material)}, {device}",
        xlabel="time a picture: forward and post-processing (ms)",
        ylabel="AP on the test pictures (%)",
    )
    _draw(right, [point for point in paper if point.milliseconds <= SLOWEST])
    right.set(
        title=f"The paper's table, up to {SLOWEST:g} ms",
        xlabel="time a picture: 1000 / FPS (ms)",
        ylabel="AP on COCO test-dev (%)",
    )
    sheet.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    cells = [
        (where, point.method, point.backbone, point.milliseconds, point.ap)
        for where, points in (("here", here), ("paper", paper))
        for point in points
    ]
    return Drawing(sheet, ("where", "method", "backbone", "milliseconds", "ap"), cells)


def published(rows: Sequence[Row]) -> list[Point]:
    """Return the points of a table that have a speed."""
    return [
        Point(*_method_and_backbone(row.label), 1000 / row.paper["fps"], row.paper["ap"], row.recipe is not None)
        for row in rows
        if "fps" in row.paper
    ]


def _method_and_backbone(label: str) -> tuple[str, str]:
    method, _, backbone = label.partition(", ")
    return method, backbone


def measured(rows: Sequence[Row], material: Material) -> list[Point]:
    """Return the points of the models of rows: median time over a few pictures, and AP over all."""
    models = [material.model(index) for index in range(len(rows))]
    times = milliseconds(models, material)
    points: list[Point] = []
    for index, (row, model, time_of) in enumerate(zip(rows, models, times, strict=True)):
        method, backbone = _method_and_backbone(row.label)
        points.append(Point(method, material.label(index, backbone), time_of, 100 * _ap(index, model, material), True))
    return points


def _scale_of(material: Material) -> str:
    """Return what was measured: the user's models, or the scale's, whose backbones may be others than rows say."""
    return get_scale(material.plan.scale).name if material.runs else "the models named"


def _ap(index: int, model: Model, material: Material) -> float:
    """Return AP in 0..1: what the run came to, or measured for a model that the user named."""
    outcome = outcome_of(material.runs[index], material.plan) if material.runs else None
    if outcome is not None:
        return outcome.metrics["ap"] or 0.0
    precision = get_scale(material.plan.scale).precision
    return evaluate(model, material.pictures, batch=EVALUATION_BATCH, precision=precision).ap


def milliseconds(models: Sequence[Model], material: Material) -> list[float]:
    """Return the median time that each model takes for a prepared picture, to its detections."""
    precision = get_scale(material.plan.scale).precision
    count = min(TIMED, len(material.pictures))
    times: list[list[float]] = [[] for _ in models]
    for turn in range(count + WARM_UP):
        picture = material.pictures.picture(turn % count)
        # who goes first changes, so that what the one leaves in the caches helps the other as often
        order = range(len(models)) if turn % 2 else reversed(range(len(models)))
        for index in order:
            taken = _time(models[index], models[index].prepare()(picture), precision)
            if turn >= WARM_UP:
                times[index].append(1000 * taken)
    return [statistics.median(values) for values in times]


def _time(model: Model, prepared: Prepared, precision: str | None) -> float:
    images = pad(prepared.image).to(model.device)
    start = time.perf_counter()
    raw = model.forward(images, precision=precision)
    model.postprocess(raw, [prepared.size], scales=[prepared.scale])
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter() - start


def _draw(axes: Axes, points: Sequence[Point]) -> None:
    """Draw the detectors of each method as a line from its fastest to its slowest, ours in strong colours."""
    methods = dict.fromkeys(point.method for point in points)
    ours = [method for method in methods if any(point.ours for point in points if point.method == method)]
    for method in methods:
        of_method = sorted((p for p in points if p.method == method), key=lambda point: point.milliseconds)
        x, y = [p.milliseconds for p in of_method], [p.ap for p in of_method]
        if method in ours:
            colour, mark = OURS[ours.index(method)]
            axes.plot(x, y, color=colour, marker=mark, markersize=7, linewidth=2, zorder=3, label=method)
            for point in of_method:
                # of two methods the first lies lower: its names stand below, the other's above
                below = len(ours) > 1 and method == ours[0]
                _name(axes, point, point.backbone, colour=colour, place=(7, -9) if below else (-6, 4))
        else:
            axes.plot(x, y, color=GREY, marker="o", markersize=3.5, linewidth=0.8, alpha=0.7)
            _name(axes, max(of_method, key=lambda point: point.ap), method, colour=DARK, place=(4, 3))
    axes.margins(0.14, 0.08)


def _name(axes: Axes, point: Point, text: str, *, colour: str, place: tuple[int, int]) -> None:
    """Write a name beside a point. place: offset in typographic points."""
    axes.annotate(
        text,
        (point.milliseconds, point.ap),
        xytext=place,
        textcoords="offset points",
        ha="right" if place[0] < 0 else "left",
        fontsize=7,
        color=colour,
        zorder=4,
    )
