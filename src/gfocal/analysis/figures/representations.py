"""What models of Dirac delta, Gaussian and General boxes say of the same objects (V1 Fig. 7)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gfocal.analysis.figures.base import Cell, Drawing, Material
from gfocal.analysis.figures.plotting import sheet_of, show_picture
from gfocal.analysis.figures.samples import some_of
from gfocal.analysis.scales import get_scale
from gfocal.boxrep import BoxRepresentation, Gaussian
from gfocal.data.collate import pad
from gfocal.draw.pictures import draw_detections
from gfocal.errors import UserError
from gfocal.model import Model
from gfocal.ops.boxes import box_iou_pairwise
from gfocal.postprocess import PostProcess
from gfocal.structures import Detections, EdgeDistributions, Truth

PICTURES = 3
MOST_OBJECTS = 4
"""In a picture: of more, the profiles cover each other."""
FOUND = 0.5
"""IoU with an object from where on a box may stand for it."""
STEP = 0.125
"""Strides between the bins that Gaussians are drawn in."""
TITLES = ("Dirac delta", "Gaussian", "General w/ DFL")


@final
class GaussianInBins(BoxRepresentation):
    """A Gaussian as the masses of fine bins, so that it can be drawn as a General distribution is.

    reach: of the bins, in the unit of the values. step: their distance. What lies beyond goes to the bins at the ends.
    """

    def __init__(self, gaussian: Gaussian, *, reach: float = 24.0, step: float = STEP) -> None:
        self.gaussian = gaussian
        self.width = gaussian.width
        self.bins = tuple(step * index for index in range(-round(2 / step), round(reach / step) + 1))

    def values(self, code: Float[Tensor, "*n 4 w"]) -> Float[Tensor, "*n 4"]:
        """Return the means."""
        return self.gaussian.values(code)

    def probabilities(self, code: Float[Tensor, "*n 4 w"]) -> Float[Tensor, "*n 4 bins"]:
        """Return the mass between the middles of neighbouring bins."""
        bins = code.new_tensor(self.bins)
        borders = (bins[1:] + bins[:-1]) / 2
        deviation = self.gaussian.variances(code).sqrt()[..., None]
        below = (1 + torch.erf((borders - self.values(code)[..., None]) / (deviation * math.sqrt(2)))) / 2
        ends = torch.zeros_like(below[..., :1])
        return torch.cat([ends, below, ends + 1], dim=-1).diff(dim=-1)

    def distribution(
        self, code: Float[Tensor, "*n 4 w"]
    ) -> tuple[Float[Tensor, "*n 4 bins"], Float[Tensor, "*n 4 bins"]] | None:
        """Return the masses, and the bins."""
        mass = self.probabilities(code)
        return mass, code.new_tensor(self.bins).expand_as(mass)

    def losses(self, code: Float[Tensor, "p 4 w"], targets: Float[Tensor, "p 4"]) -> dict[str, Float[Tensor, " p"]]:
        """Return the Gaussian's."""
        return self.gaussian.losses(code, targets)


def three_representations(material: Material) -> Drawing:
    """Draw the detections of three models on the same pictures, with the distributions of their edges (V1 Fig. 7)."""
    models = (material.model(0), material.model(1), material.model_with_distributions(2))
    steps = (models[0].postprocess, _in_bins(models[1], material), models[2].postprocess)
    indices = chosen_pictures(material)
    sheet, panels = sheet_of(len(indices), 3, width=8.6, height=2.95 * len(indices))
    rows: list[tuple[Cell, ...]] = []
    for place, (index, column) in enumerate((index, column) for index in indices for column in range(3)):
        truth, picture = material.pictures.truth(index), material.pictures.picture(index)
        found = _shown(_detections(models[column], steps[column], picture, material), truth)
        visible = _as_densities(found, STEP) if column == 1 else found
        drawn = draw_detections(picture, visible, threshold=0.0, truth=truth)
        show_picture(panels[place], np.asarray(drawn))
        if place < 3:
            panels[place].set_title(TITLES[column])
        for one, fits in zip(found, pairwise(found, truth).tolist(), strict=True):
            spread = (math.nan,) * 4 if one.edges is None else one.edges.std[0].tolist()
            score = float(one.scores[0])
            overlap = max(fits, default=0.0)
            rows.append((truth.name, TITLES[column], one.names[0], score, overlap, *one.boxes[0].tolist(), *spread))
    sheet.suptitle(
        "The best-scored box of each object with the distributions of its edges; true boxes are white", fontsize=10
    )
    sides = ("left", "top", "right", "bottom")
    head = ("picture", "model", "class", "score", "iou_with_truth", *sides, *(f"std_{side}_pixels" for side in sides))
    return Drawing(sheet, head, rows)


def chosen_pictures(material: Material) -> list[int]:
    """Return a few test pictures drawn at random among those with one object to four; among all, where none has."""
    counts = [len(material.pictures.truth(index).boxes) for index in range(len(material.pictures))]
    fitting = [index for index, count in enumerate(counts) if 1 <= count <= MOST_OBJECTS] or list(range(len(counts)))
    return [fitting[place] for place in some_of(len(fitting), most=PICTURES, seed=material.seed).tolist()]


def pairwise(found: Detections, truth: Truth) -> Float[Tensor, "n g"]:
    """Return the IoU of each detection with each true box."""
    count, objects = len(found), len(truth.boxes)
    pairs = box_iou_pairwise(found.boxes.repeat_interleave(objects, 0), truth.boxes.repeat(count, 1))
    return pairs.view(count, objects)


def _in_bins(model: Model, material: Material) -> PostProcess:
    box = model.criterion.box
    if not isinstance(box, Gaussian):
        raise UserError(f"{material.sources[1]}: the second model must have box 'gaussian', not {model.recipe.box}")
    if not model.criterion.family.coding.spreads:
        raise UserError(f"{material.sources[1]}: its Gaussians are not of distances to edges: train with such a coding")
    return replace(model.postprocess, box=GaussianInBins(box))


def _detections(model: Model, postprocess: PostProcess, picture: np.ndarray, material: Material) -> Detections:
    prepared = model.prepare()(picture)
    raw = model.forward(pad(prepared.image), precision=get_scale(material.plan.scale).precision)
    (found,) = postprocess(raw, [prepared.size], scales=[prepared.scale], threshold=0.0)
    return found.cpu()


def _shown(found: Detections, truth: Truth) -> Detections:
    """Return the box of the highest score on each object; the best of all where none is found."""
    fits = pairwise(found, truth) >= FOUND
    best = [int(column.nonzero()[0, 0]) for column in fits.T if bool(column.any())]
    return found[torch.tensor(sorted(set(best)) or [0])[: len(found)]]


def _as_densities(found: Detections, step: float) -> Detections:
    """Return fine bins as tall as General's, whose masses are each of one stride; the tallest spikes are cut."""
    assert found.edges is not None
    edges = EdgeDistributions((found.edges.probabilities / step).clamp(max=1), found.edges.positions)
    return replace(found, edges=edges)
