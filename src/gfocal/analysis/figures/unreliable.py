"""Where a quality that is learnt at objects alone says much of the background (V1 Fig. 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gfocal.analysis.figures.base import Cell, Drawing, Material
from gfocal.analysis.figures.plotting import (
    DARK,
    ORANGE,
    SKY,
    VERMILION,
    around,
    draw_box,
    sheet_of,
    show_picture,
)
from gfocal.analysis.figures.samples import Seen, locations, seen
from gfocal.analysis.positives import pearson
from gfocal.errors import UserError
from gfocal.structures import Truth

PATCHES = 8
LARGEST_SHARE = 0.1
"""Of a background box that may lie on objects; its IoU with each is then below this, too."""
SMALLEST_SIDE = 12.0
"""Pixels of a patch in its picture: of less, nobody sees what it shows."""


@dataclass(frozen=True)
class Patch:
    """A box predicted in the background. box: xyxy pixels of the picture. score: of the best class."""

    picture: int
    box: tuple[float, ...]
    quality: float
    score: float
    label: int


def background_patches(material: Material) -> Drawing:
    """Draw the background boxes of the highest predicted quality, one a picture (V1 Fig. 2a)."""
    patches = best_background(material)
    if not patches:
        raise UserError("there is no background to show: every box that is predicted lies on an object")
    sheet, panels = sheet_of(2, PATCHES // 2, width=8.4, height=5.3)
    for axes in panels[len(patches) :]:
        axes.set_visible(False)
    rows: list[tuple[Cell, ...]] = []
    for axes, patch in zip(panels, patches, strict=False):
        truth = material.pictures.truth(patch.picture)
        show_picture(axes, material.pictures.picture(patch.picture), window=around(patch.box, truth.size))
        for box in truth.boxes.tolist():
            draw_box(axes, box, colour="white", width=1.0)
        draw_box(axes, patch.box, colour=ORANGE)
        name = material.pictures.class_names[patch.label]
        axes.set_title(f"predicted IoU {patch.quality:.2f}", color=VERMILION)
        axes.set_xlabel(f"best class: {name}, {patch.score:.2f}")
        rows.append((truth.name, patch.picture, patch.quality, patch.score, name, *patch.box))
    sheet.suptitle("Background boxes (orange) of the highest predicted quality; objects are white", fontsize=10)
    return Drawing(
        sheet,
        ("picture", "index", "predicted_iou", "class_score", "class", "left", "top", "right", "bottom"),
        rows,
    )


def best_background(material: Material, *, most: int = PATCHES) -> list[Patch]:
    """Return the background boxes of the highest quality, best first, one a picture; UserError without a quality."""
    model = material.model(0)
    found: list[Patch] = []
    for view in seen(model, material):
        if view.raw.quality_logits is None:
            raise material.without_quality(0)
        of_pictures = (
            _best_of_picture(view, row, material.pictures.truth(index)) for row, index in enumerate(view.batch.indices)
        )
        found += [patch for patch in of_pictures if patch is not None]
    return sorted(found, key=lambda patch: -patch.quality)[:most]


def _best_of_picture(view: Seen, row: int, truth: Truth) -> Patch | None:
    assert view.raw.quality_logits is not None
    height, width = truth.size
    ratio = view.boxes.new_tensor(view.batch.scales[row] * 2)
    limit = view.boxes.new_tensor([width, height, width, height])
    boxes = (view.boxes[row] / ratio).clamp(min=0).minimum(limit)
    points = view.raw.priors.points / ratio[:2]
    free = background(boxes, points, truth.boxes.to(boxes)) & view.match.counted[row]
    free &= (boxes[:, 2:] - boxes[:, :2]).amin(1) >= SMALLEST_SIDE
    if not bool(free.any()):
        return None
    quality = view.raw.quality_logits[row].sigmoid()
    place = int(quality.masked_fill(~free, -1).argmax())
    score, label = view.raw.class_scores[row, place].max(dim=0)
    return Patch(view.batch.indices[row], tuple(boxes[place].tolist()), float(quality[place]), float(score), int(label))


def background(
    boxes: Float[Tensor, "n 4"], points: Float[Tensor, "n 2"], objects: Float[Tensor, "g 4"]
) -> Bool[Tensor, " n"]:
    """Return which locations show no object: the point lies in none, and under a tenth of the box on any."""
    low, high = objects[:, :2], objects[:, 2:]
    inside = ((points[:, None] >= low) & (points[:, None] <= high)).all(-1).any(1)
    sides = (torch.minimum(boxes[:, None, 2:], high) - torch.maximum(boxes[:, None, :2], low)).clamp(min=0)
    area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1)
    return ~inside & (sides.prod(-1).sum(1) < LARGEST_SHARE * area)


def scores_and_qualities(material: Material) -> Drawing:
    """Draw class score against predicted IoU of sampled locations, apart and as one number (V1 Fig. 2b)."""
    branch, joint = (locations(material.model(index), material) for index in (0, 1))
    if torch.equal(branch.class_scores, branch.quality):
        raise material.without_quality(0)
    if not torch.equal(joint.class_scores, joint.quality):
        raise UserError(f"{material.sources[1]}: the second model must predict class and quality as one number (V1)")
    sheet, panels = sheet_of(1, 2, width=8.4, height=4.0, sharex=True, sharey=True)
    rows: list[tuple[str, str, float, float, float, float]] = []
    for axes, name, found in zip(panels, ("IoU-branch", "joint (QFL)"), (branch, joint), strict=True):
        correlation = pearson(found.class_scores, found.quality)
        for kind, chosen, colour, mark in (
            ("negative", ~found.positive, SKY, "x"),
            ("positive", found.positive, VERMILION, "o"),
        ):
            x, y = found.class_scores[chosen], found.quality[chosen]
            axes.scatter(
                x.numpy(),
                y.numpy(),
                s=5,
                marker=mark,
                color=colour,
                linewidths=0.5,
                alpha=0.4,
                label=kind,
                rasterized=True,
            )
            own = pearson(x, y)
            rows += [(name, kind, *pair, own, correlation) for pair in zip(x.tolist(), y.tolist(), strict=True)]
        axes.set(title=f"{name}: r = {correlation:.3f}", xlabel="class score", xlim=(0, 1), ylim=(0, 1))
        axes.plot([0, 1], [0, 1], color=DARK, linewidth=0.7, linestyle=":")
    panels[0].set_ylabel("predicted IoU")
    legend = panels[1].legend(loc="lower right", markerscale=2.5)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
    return Drawing(
        sheet,
        ("model", "location", "class_score", "predicted_iou", "pearson_of_such_locations", "pearson_of_all"),
        rows,
    )
