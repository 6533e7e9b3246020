"""What the flatness of edge distributions tells of the quality of boxes (V2 Fig. 1b, 4, 9)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from torch import Tensor

from gfocal.analysis.figures.base import MOST_POINTS, Drawing, Material
from gfocal.analysis.figures.plotting import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    density,
    means_of_bins,
    sheet_of,
)
from gfocal.analysis.figures.samples import BATCH, seen, some_of
from gfocal.analysis.positives import Positives, pearson, positives
from gfocal.errors import UserError
from gfocal.model import Model

TOP_K = 4
SHIFTS = (0, 5, 10)
"""Bins by which the distribution of V2 Fig. 4 is moved; it stays within the bins."""


def sharpness_and_iou(material: Material) -> Drawing:
    """Draw the highest probability, mean of four sides, against the IoU of each positive's box (V2 Fig. 1b)."""
    found = positives(material.model_with_distributions(0), material.pictures, batch=BATCH)
    return _relation(
        found,
        found.iou,
        material=material,
        title="GFL V1",
        name="real IoU",
        colour=BLUE,
    )


def sharpness_and_predicted_quality(material: Material) -> Drawing:
    """Draw DGQP's input against its output at the positives (V2 Fig. 9)."""
    found = positives(material.model_with_distributions(0), material.pictures, batch=BATCH)
    if len(found) and bool(found.quality.isnan().any()):
        raise material.without_quality(0)
    return _relation(
        found,
        found.quality,
        material=material,
        title="DGQP of GFL V2",
        name="predicted IoU",
        colour=GREEN,
    )


def _relation(
    found: Positives, quality: Float[Tensor, " p"], *, material: Material, title: str, name: str, colour: str
) -> Drawing:
    """Draw a quality over the mean top-1 probability of all positives; the table has some of them."""
    top = found.top.mean(1)
    correlation = pearson(top, quality)
    sheet, (axes,) = sheet_of(1, 1, width=5.0, height=3.9)
    density(axes, top, quality, colour=colour, extent=(0, 1, 0, 1))
    middles, means = means_of_bins(top.numpy(), quality.numpy(), low=0, high=1)
    axes.plot(middles, means, color=VERMILION, marker="o", markersize=3.5, linewidth=1.4, label=f"mean {name}")
    axes.set(title=f"{title}: r = {correlation:.3f}", xlabel="top-1 probability, mean of four sides", ylabel=name)
    axes.legend(loc="lower right")
    some = some_of(len(top), most=MOST_POINTS, seed=material.seed)
    rows = [(*pair, correlation, len(top)) for pair in zip(top[some].tolist(), quality[some].tolist(), strict=True)]
    return Drawing(sheet, ("mean_top1", name.replace(" ", "_").lower(), "pearson_of_all", "positives"), rows)


def shift_and_scale(material: Material) -> Drawing:
    """Draw that Topkm stays when a distribution is shifted, and what it is for objects of all sizes (V2 Fig. 4).

    The table has its means on the levels of the pyramid, too.
    """
    found = topkm_of_positives(material.model_with_distributions(0), material)
    sheet, panels = sheet_of(1, 3, width=9.6, height=3.1)
    rows = _draw_shifts(panels[0], panels[1])
    x = np.arange(TOP_K + 1)
    thirds = zip(found.thirds(), ("small", "medium", "large"), (SKY, PURPLE, VERMILION), strict=True)
    for place, (chosen, size, colour) in enumerate(thirds):
        if not bool(chosen.any()):
            continue
        low, high = (float(end) for end in found.sizes[chosen].aminmax())
        name = f"{size}: {low:.0f} to {high:.0f} px"
        means = found.means(chosen)
        panels[2].bar(x + (place - 1) * 0.26, means, width=0.24, color=colour, label=name)
        rows += [(f"objects, {name}", _name(k), value, 4 * int(chosen.sum())) for k, value in enumerate(means)]
    for stride in found.strides.unique().int().tolist():
        chosen = found.strides == stride
        means = found.means(chosen)
        rows += [(f"level of stride {stride}", _name(k), value, 4 * int(chosen.sum())) for k, value in enumerate(means)]
    panels[2].set(title="Positives, by size of the object", xlabel="statistic", ylabel="mean over positives and sides")
    panels[2].legend()
    for axes in panels[1:]:
        axes.set_xticks(x, [_name(k) for k in range(TOP_K + 1)])
    return Drawing(sheet, ("of", "statistic", "value", "distributions"), rows)


def _draw_shifts(shapes: Axes, bars: Axes) -> list[tuple[str, str, float, int]]:
    masses = torch.tensor([0.05, 0.2, 0.4, 0.25, 0.1])
    rows: list[tuple[str, str, float, int]] = []
    for place, (shift, colour) in enumerate(zip(SHIFTS, (BLUE, ORANGE, GREEN), strict=True)):
        moved = torch.zeros(17)
        moved[1 + shift : 6 + shift] = masses
        name = f"shifted by {shift}" if shift else "as it is"
        shapes.bar(np.arange(17), moved.numpy(), width=0.85, color=colour, alpha=0.8, label=name)
        values = topkm(moved).tolist()
        bars.bar(np.arange(TOP_K + 1) + (place - 1) * 0.26, values, width=0.24, color=colour, label=name)
        rows += [(name, _name(k), value, 1) for k, value in enumerate(values)]
    shapes.set(title="A distribution, shifted", xlabel="distance y (strides)", ylabel="probability P(y)", ylim=(0, 0.6))
    shapes.legend(loc="upper right")
    bars.set(title=f"Its top {TOP_K} and their mean", xlabel="statistic", ylabel="value")
    return rows


def _name(place: int) -> str:
    return f"top-{place + 1}" if place < TOP_K else "mean"


def topkm(probabilities: Float[Tensor, "*n bins"]) -> Float[Tensor, "*n k"]:
    """Return the four highest probabilities of each distribution, and their mean (V2 Eq. 4)."""
    top = probabilities.topk(TOP_K, dim=-1).values
    return torch.cat([top, top.mean(-1, keepdim=True)], dim=-1)


@dataclass(frozen=True)
class OfPositives:
    """Topkm of each positive, mean over four sides: (p, k + 1). sizes: (p,) root of the area of its object in pixels.

    strides: (p,) pixels of its level.
    """

    values: Float[Tensor, "p k"]
    sizes: Float[Tensor, " p"]
    strides: Float[Tensor, " p"]

    def means(self, chosen: Bool[Tensor, " p"]) -> list[float]:
        """Return the means over some positives."""
        return self.values[chosen].double().mean(0).tolist()

    def thirds(self) -> list[Bool[Tensor, " p"]]:
        """Return which positives are of small, medium and large objects, a third each; those of one size together."""
        borders = torch.from_numpy(np.quantile(self.sizes.numpy(), (1 / 3, 2 / 3))).to(self.sizes.dtype)
        third = torch.searchsorted(borders, self.sizes.contiguous())
        return [third == place for place in range(3)]


def topkm_of_positives(model: Model, material: Material) -> OfPositives:
    """Return what DGQP would read at the positives of the test pictures; UserError where there is none."""
    found: list[Float[Tensor, "p c"]] = []
    for view in seen(model, material):
        probabilities = model.criterion.box.probabilities(view.raw.box.flatten(0, 1)[view.match.location])
        boxes = view.truth.boxes[view.match.truth]
        size = (boxes[:, 2:] - boxes[:, :2]).prod(1, keepdim=True).sqrt()
        stride = view.match.priors_of(view.raw.priors).strides[:, None]
        found.append(torch.cat([topkm(probabilities).mean(1), size, stride], dim=1).cpu())
    rows = torch.cat(found)
    if not len(rows):
        raise UserError("no object of the test pictures has a positive location: there is nothing to draw")
    return OfPositives(rows[:, :-2], rows[:, -2], rows[:, -1])
