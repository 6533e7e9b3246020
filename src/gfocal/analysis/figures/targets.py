"""How far true edges lie from the locations that learn them (V1 Fig. 5c)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gfocal.analysis.figures.base import Drawing, Material
from gfocal.analysis.figures.plotting import BLUE, DARK, VERMILION, sheet_of
from gfocal.analysis.runs import recipe_at_scale
from gfocal.data.collate import learnable, pad_size
from gfocal.data.resizing import resized_size
from gfocal.families import FAMILIES
from gfocal.ops.boxes import boxes_to_ltrb
from gfocal.recipes.v1 import gfl_r50_fpn_1x
from gfocal.structures import GroundTruth, Truth

REACH = 16
"""Strides: n of the papers' distributions, Δ being 1."""


def histogram_of_targets(material: Material) -> Drawing:
    """Draw the histogram of the regression targets of all positives of the test pictures under ATSS (V1 Fig. 5c)."""
    distances = np.sort(targets(material).flatten().numpy())
    beyond = float((distances > REACH).mean()) if len(distances) else 0.0
    last = max(REACH + 4, int(np.ceil(distances[-1])) if len(distances) else 0)
    counts, edges = np.histogram(distances, bins=2 * last, range=(0, last))
    shares = counts / max(len(distances), 1)
    sheet, (axes,) = sheet_of(1, 1, width=4.8, height=3.6)
    colours = [BLUE if edge < REACH else VERMILION for edge in edges[:-1]]
    axes.bar(edges[:-1], 100 * shares, width=0.46, align="edge", color=colours)
    axes.axvline(REACH, color=DARK, linewidth=1.2, linestyle="--")
    text = f"n = {REACH}\n{100 * beyond:.2f} % lie beyond"
    axes.text(REACH - 0.3, 0.97, text, ha="right", va="top", transform=axes.get_xaxis_transform())
    axes.set(
        title="Regression targets under ATSS, test pictures",
        xlabel="distance from a positive location to an edge (strides)",
        ylabel="share of all edges (%)",
        xlim=(0, last),
        xticks=range(0, last + 1, 4),
    )
    lows, highs = edges[:-1].tolist(), edges[1:].tolist()
    rows = [(*row, beyond) for row in zip(lows, highs, counts.tolist(), shares.tolist(), strict=True)]
    return Drawing(sheet, ("from_strides", "to_strides", "edges", "share", "share_beyond_16"), rows)


def targets(material: Material) -> Float[Tensor, "p 4"]:
    """Return the distances in strides from each positive of the test pictures to its edges, as GFL would learn them.

    Pictures are not read: where the locations lie follows from their sizes.
    """
    names = material.pictures.class_names
    pictures = recipe_at_scale(gfl_r50_fpn_1x(), material.plan, class_names=names).pictures
    found: list[Float[Tensor, "p 4"]] = [torch.zeros(0, 4)]
    for index in range(len(material.pictures)):
        truth = material.pictures.truth(index)
        size = resized_size(
            truth.size,
            short=pictures.short,
            long=pictures.long,
            upscale=pictures.upscale,
            keep_aspect=pictures.keep_aspect,
        )
        found.append(_targets(truth, size))
    return torch.cat(found)


def _targets(truth: Truth, size: tuple[int, int]) -> Float[Tensor, "p 4"]:
    family = FAMILIES["atss"]()
    height, width = pad_size(size)
    levels = [torch.empty(1, 0, -(-height // stride), -(-width // stride)) for stride in family.priors.strides]
    priors = family.priors(levels)
    boxes, labels = learnable(truth)
    ratio = torch.tensor([size[1] / truth.size[1], size[0] / truth.size[0]] * 2)
    boxes = boxes * ratio
    extents = torch.tensor([[height, width]], dtype=torch.float32)
    match = family.assigner(priors, GroundTruth(boxes, labels, torch.zeros_like(labels), extents)).positives()
    learning = match.priors_of(priors)
    return boxes_to_ltrb(learning.points, boxes[match.truth], learning.strides)
