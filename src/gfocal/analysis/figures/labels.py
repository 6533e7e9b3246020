"""Labels of quality at positives: why IoU serves better than centerness (V1 supplement E, Fig. 11 and 12)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.lines import Line2D
from torch import Tensor

from gfocal.analysis.figures.base import Drawing, Material
from gfocal.analysis.figures.plotting import (
    BLUE,
    GREEN,
    GREY,
    SKY,
    VERMILION,
    around,
    draw_box,
    sheet_of,
    show_picture,
)
from gfocal.analysis.figures.samples import BATCH, Seen, seen
from gfocal.analysis.positives import positives
from gfocal.errors import UserError
from gfocal.ops.boxes import box_iou_pairwise, boxes_to_ltrb, centerness

OBJECTS = 4
LABEL_BINS = 20


@dataclass(frozen=True)
class Owned:
    """An object and the positives that learn it, in pixels of its picture.

    points: (p, 2). strides: (p,) along x, of their levels. centerness, iou: (p,) their labels. box: the true one.
    predicted: the box of the positive of highest IoU.
    """

    picture: int
    box: tuple[float, ...]
    label: int
    points: Float[Tensor, "p 2"]
    strides: Float[Tensor, " p"]
    centerness: Float[Tensor, " p"]
    iou: Float[Tensor, " p"]
    predicted: tuple[float, ...]

    @property
    def best_centerness(self) -> float:
        """The highest label that any of its positives has."""
        return float(self.centerness.max())


def small_centerness(material: Material) -> Drawing:
    """Draw the objects whose best centerness label is the lowest, with their positives (V1 Fig. 11)."""
    model = material.model(0)
    objects = [one for view in seen(model, material) for one in objects_of(view)]
    if not objects:
        raise UserError("no object of the test pictures has a positive location: there is nothing to draw")
    worst = sorted(objects, key=lambda one: one.best_centerness)[:OBJECTS]
    sheet, panels = sheet_of(1, OBJECTS, width=9.6, height=3.3)
    for axes in panels[len(worst) :]:
        axes.set_visible(False)
    for axes, one in zip(panels, worst, strict=False):
        truth = material.pictures.truth(one.picture)
        window = around(one.box, truth.size)
        show_picture(axes, material.pictures.picture(one.picture), window=window)
        stride = float(one.strides.mode().values)
        for start, stop, draw in ((window[0], window[2], axes.axvline), (window[1], window[3], axes.axhline)):
            for line in np.arange(np.ceil(start / stride) * stride, stop, stride):
                draw(line, color=GREY, linewidth=0.4, alpha=0.7)
        draw_box(axes, one.box, colour="white")
        draw_box(axes, one.predicted, colour=GREEN)
        x, y = one.points.T.numpy()
        axes.scatter(x, y, s=26, color=VERMILION, edgecolors="white", linewidths=0.8, zorder=3)
        axes.set_title(f"centerness {_range(one.centerness)}\nIoU {_range(one.iou)}")
        name = material.pictures.class_names[one.label]
        axes.set_xlabel(f"{name}, points of stride {stride:g} px")
    handles = [
        Line2D([], [], color="#bbbbbb", label="true box (white)"),
        Line2D([], [], color=GREEN, label="predicted box"),
        Line2D([], [], color=VERMILION, marker="o", linestyle="", label="positive location"),
    ]
    sheet.legend(handles=handles, loc="outside lower center", ncols=3)
    rows = [
        (material.pictures.truth(one.picture).name, *one.box, *point, *rest)
        for one in worst
        for point, *rest in zip(
            one.points.tolist(), one.strides.tolist(), one.centerness.tolist(), one.iou.tolist(), strict=True
        )
    ]
    head = ("picture", "left", "top", "right", "bottom", "x", "y", "stride", "centerness", "iou")
    return Drawing(sheet, head, rows)


def _range(labels: Float[Tensor, " p"]) -> str:
    low, high = float(labels.min()), float(labels.max())
    return f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"


def objects_of(view: Seen) -> Iterator[Owned]:
    """Yield the objects of a batch that have positives, with these and their labels."""
    priors, owners = view.match.priors_of(view.raw.priors), view.match.truth
    boxes = view.truth.boxes[owners]
    decoded = view.boxes.flatten(0, 1)[view.match.location]
    iou = box_iou_pairwise(decoded, boxes)
    central = centerness(boxes_to_ltrb(priors.points, boxes, priors.strides))
    for owner in owners.unique().tolist():
        mine = owners == owner
        row = int(view.truth.picture[owner])
        ratio = view.boxes.new_tensor(view.batch.scales[row] * 2)
        best = int(iou.masked_fill(~mine, -1).argmax())
        yield Owned(
            picture=view.batch.indices[row],
            box=tuple((view.truth.boxes[owner] / ratio).tolist()),
            label=int(view.truth.labels[owner]),
            points=(priors.points[mine] / ratio[:2]).cpu(),
            strides=(priors.strides[mine] / ratio[0]).cpu(),
            centerness=central[mine].cpu(),
            iou=iou[mine].cpu(),
            predicted=tuple((decoded[best] / ratio).tolist()),
        )


def histograms_of_labels(material: Material) -> Drawing:
    """Draw how IoU and centerness labels spread over all positives (V1 Fig. 12)."""
    found = positives(material.model(0), material.pictures, batch=BATCH)
    edges = np.linspace(0, 1, LABEL_BINS + 1)
    sheet, panels = sheet_of(1, 2, width=8.4, height=3.3, sharey=True)
    rows: list[tuple[str, float, float, int, float]] = []
    for axes, name, labels, colour in zip(
        panels, ("IoU", "centerness"), (found.iou, found.centerness), (BLUE, SKY), strict=True
    ):
        counts, _ = np.histogram(labels.numpy(), bins=edges)
        shares = counts / max(len(labels), 1)
        low = float((labels < 0.2).double().mean()) if len(labels) else 0.0
        axes.bar(edges[:-1], 100 * shares, width=0.046, align="edge", color=colour)
        axes.set(
            title=f"{name} labels: {100 * low:.1f} % below 0.2",
            xlabel=f"{name} label of a positive, test pictures",
            xlim=(0, 1),
        )
        rows += [
            (name, *row)
            for row in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), shares.tolist(), strict=True)
        ]
    panels[0].set_ylabel("share of all positives (%)")
    return Drawing(sheet, ("label", "from", "to", "positives", "share"), rows)
