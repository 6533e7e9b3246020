"""Boxes before and after suppression: whether the best candidate of an object survives (V2 Fig. 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes

from gfocal.analysis.figures.base import Drawing, Material
from gfocal.analysis.figures.plotting import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    YELLOW,
    around,
    draw_box,
    sheet_of,
    show_picture,
)
from gfocal.analysis.figures.samples import seen
from gfocal.errors import UserError
from gfocal.model import Model
from gfocal.ops.boxes import box_iou_pairwise
from gfocal.structures import Detections

OBJECTS = 3
TOP = 4
FOUND = 0.5
"""IoU from where on a candidate of the true class stands for an object."""
COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
"""Of the top scores; boxes of lower ones that are left have others."""
FURTHER = (SKY, VERMILION, YELLOW, GREY)
MODELS = ("GFL V1", "GFL V2")


@dataclass(frozen=True)
class Candidates:
    """What a model says of one object: its candidates, best score first, and which of them survives suppression.

    boxes: (n, 4) xyxy pixels of the picture; scores, iou: (n,). kept: indices of those left.
    """

    boxes: list[list[float]]
    scores: list[float]
    iou: list[float]
    kept: tuple[int, ...]

    @property
    def lost(self) -> float:
        """IoU of the best candidate less that of the best one that is left."""
        return max(self.iou) - max(self.iou[index] for index in self.kept)


Objects = dict[tuple[int, int], Candidates]
"""Candidates by index of picture and of true box."""


def before_and_after_suppression(material: Material) -> Drawing:
    """Draw the candidates of a few objects before and after NMS, of two models side by side (V2 Fig. 7).

    Shown are the objects in which the two models differ most in what suppression costs, the first losing more; what it
    costs over all objects that both found stands above.
    """
    first, second = (candidates_of(material.model(index), material) for index in (0, 1))
    names = [material.label(index, usual) for index, usual in enumerate(MODELS)]
    both = [key for key in first if key in second]
    order = sorted(both, key=lambda key: first[key].lost - second[key].lost, reverse=True)[:OBJECTS]
    if not order:
        raise UserError("the two models find no object in common in the test pictures: there is nothing to draw")
    sheet, panels = sheet_of(len(order), 4, width=9.6, height=2.4 * len(order) + 0.7)
    for row, key in enumerate(order):
        for column, found in enumerate((first[key], second[key])):
            pair = panels[4 * row + 2 * column : 4 * row + 2 * column + 2]
            _draw_object(pair, key, found, material=material)
    for axes, text in zip(
        panels, [f"{name}, {when} NMS" for name in names for when in ("before", "after")], strict=False
    ):
        axes.set_title(text)
    means = [sum(found[key].lost for key in both) / len(both) for found in (first, second)]
    sheet.suptitle(
        f"Top {TOP} scores (IoU with the true box, white) of the objects where the first loses most against the second."
        "\n"
        f"Over all {len(both)} objects suppression costs "
        + " and ".join(f"{mean:.4f} IoU ({name})" for mean, name in zip(means, names, strict=True)),
        fontsize=9.5,
    )
    rows = [
        (name, *key, rank, score, iou, int(rank in found[key].kept), found[key].lost, mean, *box)
        for name, found, mean in zip(names, (first, second), means, strict=True)
        for key in order
        for rank, (score, iou, box) in enumerate(zip(found[key].scores, found[key].iou, found[key].boxes, strict=True))
    ]
    head = ("model", "picture", "object", "rank", "score", "iou", "kept", "lost_iou", "lost_iou_of_all")
    return Drawing(sheet, (*head, "left", "top", "right", "bottom"), rows)


def candidates_of(model: Model, material: Material) -> Objects:
    """Return the candidates of every object that has any and of which one survives."""
    found: Objects = {}
    for view in seen(model, material):
        every = model.postprocess.candidates(view.raw, view.batch.sizes, scales=view.batch.scales)
        left = model.postprocess(view.raw, view.batch.sizes, scales=view.batch.scales)
        for index, before, after in zip(view.batch.indices, every, left, strict=True):
            truth, pair = material.pictures.truth(index), (before.cpu(), after.cpu())
            for place, (box, label) in enumerate(zip(truth.boxes.tolist(), truth.labels.tolist(), strict=True)):
                one = _of_object(*pair, box=box, label=label)
                if one is not None:
                    found[index, place] = one
    return found


def _of_object(before: Detections, after: Detections, *, box: Sequence[float], label: int) -> Candidates | None:
    """Return the candidates of an object; None where no candidate or none that is left has its class and place."""
    overlap = box_iou_pairwise(before.boxes, torch.tensor(box).expand_as(before.boxes))
    mine = ((overlap >= FOUND) & (before.labels == label)).nonzero()[:, 0]
    mine = mine[before.scores[mine].argsort(descending=True, stable=True)]
    boxes, scores = before.boxes[mine], before.scores[mine]
    same = (boxes[:, None] == after.boxes).all(-1) & (after.labels == label) & (scores[:, None] == after.scores)
    kept = same.any(1).nonzero()[:, 0].tolist()
    if not kept:
        return None
    return Candidates(boxes.tolist(), scores.tolist(), overlap[mine].tolist(), tuple(kept))


def _draw_object(panels: Sequence[Axes], key: tuple[int, int], found: Candidates, *, material: Material) -> None:
    """Draw the top candidates of an object, and beside them those of all that are left."""
    index, place = key
    truth = material.pictures.truth(index)
    box = truth.boxes[place].tolist()
    window = around(box, truth.size)
    picture = material.pictures.picture(index)
    for axes, ranks in zip(panels, (range(min(TOP, len(found.boxes))), found.kept[:TOP]), strict=True):
        show_picture(axes, picture, window=window)
        draw_box(axes, box, colour="white", width=1.2)
        for line, rank in enumerate(ranks):
            colour = COLOURS[rank] if rank < TOP else FURTHER[line]
            draw_box(axes, found.boxes[rank], colour=colour, width=1.4)
            axes.text(
                0.02, 0.98 - 0.105 * line, f"{found.scores[rank]:.2f} ({found.iou[rank]:.2f})",
                transform=axes.transAxes, va="top", fontsize=7.5, color="black",
                bbox={"facecolor": "white", "edgecolor": colour, "linewidth": 1.5, "pad": 1.5},
            )  # fmt: skip
