"""Whether the bins of a recipe reach: which share of the distances that a data set asks for they would clip."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from gfocal.assign.base import Assigner
from gfocal.boxrep import General
from gfocal.coding import Coding
from gfocal.config import PicturesConfig, Recipe, is_outside
from gfocal.data.collate import learnable, pad_size
from gfocal.data.dataset import Dataset
from gfocal.data.resizing import resized_size
from gfocal.errors import UserError
from gfocal.families import Family, family_of, options_in
from gfocal.priors import Anchors
from gfocal.structures import GroundTruth, Match, Priors

MUCH = 0.01
"""Share of clipped targets above which training is worse for it, and says so."""
LITTLE = 0.001
"""Share of clipped targets that is aimed at, from below."""
MOST_LEVELS = 10
PICTURES_AT_ONCE = 16
"""Pictures of one batch of the assigner: more take no less time, and more memory."""
SIZES = 16
"""Sizes of batches whose priors are kept."""
PLAIN = 5_000
"""Targets of which more than `MUCH` that are clipped show that a pyramid clips no less than `LITTLE` of all."""


@dataclass(frozen=True)
class LevelClipping:
    """The regression targets of one level: how many edges its locations learn, and how many of them are clipped."""

    stride: int
    targets: int
    clipped: int


@dataclass(frozen=True)
class Clipping:
    """Which regression targets lie beyond the bins of a recipe, over the pictures of a data set.

    A target is the distance in strides of a location that learns a box from one of its edges; it is clipped where it
    is greater than n · delta. pictures: looked at. levels: finest first. smallest_n, smallest_delta, smallest_levels:
    what alone, in place of the recipe's, would clip less than 0.1 %; levels count from the finest, leave no more boxes
    unlearnt, and are None where no number of them would do. histogram: number of targets in 0..1, 1..2, … strides.
    """

    recipe: str
    n: int
    delta: float
    pictures: int
    levels: tuple[LevelClipping, ...]
    smallest_n: int
    smallest_delta: float
    smallest_levels: int | None
    histogram: tuple[int, ...]

    @property
    def targets(self) -> int:
        """Number of targets over all levels: four for each location that learns a box."""
        return sum(level.targets for level in self.levels)

    @property
    def clipped(self) -> int:
        """Number of targets beyond the last bin."""
        return sum(level.clipped for level in self.levels)

    @property
    def share(self) -> float:
        """Share of targets beyond the last bin, 0..1; 0 where there is no target."""
        return self.clipped / max(self.targets, 1)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        return asdict(self) | {"targets": self.targets, "clipped": self.clipped, "share": self.share}


def has_bins(recipe: Recipe) -> bool:
    """Return whether the edges of a recipe's boxes are distributions over bins of this package."""
    return not is_outside(recipe.box) and recipe.box["name"] == "general"


def clipped_targets(dataset: Dataset, recipe: Recipe, *, pictures: int | None = None) -> Clipping:
    """Return which regression targets of a data set the bins of a recipe would clip, at the recipe's test size.

    Pictures are not read: where locations lie follows from their sizes. Assigner and coding are the recipe's own; what
    lies before 0, at locations outside of their box, no bins would mend, and it does not count as clipped. pictures:
    how many to look at, spread evenly over the data set; None for all. UserError where the recipe has no bins.
    """
    if not has_bins(recipe):
        raise UserError(
            f"recipe {recipe.name}: its boxes are {recipe.box['name']!r} and have no bins that could clip: name a "
            "recipe with box 'general'"
        )
    box = General(**options_in(recipe.box))
    family = family_of(recipe.family)
    views = _views(dataset, recipe.pictures, pictures)
    n, limit = box.width - 1, (box.width - 1) * box.delta
    batches = _batches(views)
    parts = list(_learnt(batches, _Pyramid(family.priors, family.assigner, family.coding)))
    none, places = torch.zeros(0, dtype=torch.float64), range(len(family.priors.strides))
    own = [torch.cat([none, *(part.levels[place] for part in parts)]).numpy() for place in places]
    everything = np.sort(np.concatenate(own))
    reach = _reach(everything)
    return Clipping(
        recipe=recipe.name,
        n=n,
        delta=box.delta,
        pictures=len(views),
        levels=tuple(
            LevelClipping(stride, len(part), int((part > limit).sum()))
            for stride, part in zip(family.priors.strides, own, strict=True)
        ),
        smallest_n=max(math.ceil(reach / box.delta), 1),
        smallest_delta=reach / n,
        smallest_levels=_fewest_levels(batches, family, limit=limit, learnt=sum(part.boxes for part in parts)),
        histogram=tuple(np.bincount(np.maximum(everything, 0).astype(np.int64)).tolist()),
    )


@dataclass(frozen=True)
class _View:
    """The boxes of a picture at its test size, (g, 4) xyxy pixels, and the padded (height, width) they lie on."""

    boxes: Float[Tensor, "g 4"]
    extent: tuple[int, int]


@dataclass(frozen=True)
class _Pyramid:
    """The levels of a detector, and who learns what on them."""

    priors: Anchors
    assigner: Assigner
    coding: Coding


def _views(dataset: Dataset, config: PicturesConfig, pictures: int | None) -> list[_View]:
    """Return so many pictures of a data set at their test size, in the order of their extents."""
    count = len(dataset) if pictures is None else min(pictures, len(dataset))
    chosen = np.linspace(0, len(dataset) - 1, count).round().astype(np.int64).tolist() if count else []
    views: list[_View] = []
    for index in chosen:
        truth = dataset.truth(index)
        size = resized_size(
            truth.size, short=config.short, long=config.long, upscale=config.upscale, keep_aspect=config.keep_aspect
        )
        ratio = torch.tensor([size[1] / truth.size[1], size[0] / truth.size[0]] * 2, dtype=torch.float32)
        views.append(_View(learnable(truth)[0] * ratio, pad_size(size)))
    # pictures of one extent need no padding up to one another
    return sorted(views, key=lambda view: view.extent)


class _Learnt(NamedTuple):
    """What a batch learns: the targets of each level, in strides, and how many boxes have any location at all."""

    levels: list[Float[Tensor, " e"]]
    boxes: int


def _learnt(batches: Iterable[Sequence[_View]], pyramid: _Pyramid) -> Iterator[_Learnt]:
    """Yield what each batch learns."""
    made = lru_cache(SIZES)(partial(_priors, pyramid.priors))
    for batch in batches:
        priors = made((max(view.extent[0] for view in batch), max(view.extent[1] for view in batch)))
        match = pyramid.assigner(priors, _ground_truth(batch)).positives()
        levels = list(_values(match, priors, batch, pyramid.coding))
        yield _Learnt(levels, len(match.truth.unique()))


def _batches(views: Sequence[_View]) -> list[Sequence[_View]]:
    with_boxes = [view for view in views if len(view.boxes)]
    return [with_boxes[i : i + PICTURES_AT_ONCE] for i in range(0, len(with_boxes), PICTURES_AT_ONCE)]


def _priors(anchors: Anchors, size: tuple[int, int]) -> Priors:
    return anchors([torch.empty(1, 0, -(-size[0] // stride), -(-size[1] // stride)) for stride in anchors.strides])


def _ground_truth(batch: Sequence[_View]) -> GroundTruth:
    picture = torch.arange(len(batch)).repeat_interleave(torch.tensor([len(view.boxes) for view in batch]))
    extents = torch.tensor([view.extent for view in batch], dtype=torch.float32)
    return GroundTruth(torch.cat([view.boxes for view in batch]), torch.zeros_like(picture), picture, extents)


def _values(match: Match, priors: Priors, batch: Sequence[_View], coding: Coding) -> Iterator[Float[Tensor, " e"]]:
    """Yield the targets of each level. match: of positives alone."""
    chosen = match.priors_of(priors)
    boxes = torch.cat([view.boxes for view in batch])[match.truth]
    values = coding.encode(chosen, boxes).double()  # so that n and delta are found to the last bit
    return (values[chosen.strides == grid.stride].flatten() for grid in priors.grids)


def _reach(rising: npt.NDArray[np.float64]) -> float:
    """Return the smallest distance beyond which less than `LITTLE` of the targets lie, at least 0."""
    if not len(rising):
        return 0.0
    beyond = math.ceil(LITTLE * len(rising)) - 1
    return max(float(rising[len(rising) - 1 - beyond]), 0.0)


def _fewest_levels(batches: Sequence[Sequence[_View]], family: Family, *, limit: float, learnt: int) -> int | None:
    """Return the fewest levels that clip less than `LITTLE`, and that leave no more boxes without a location than so.

    learnt: boxes that have one under the family's own levels. A level beyond those that learns nothing is the last to
    be tried: what the bins do not reach then is long, not large.
    """
    mixed = list(batches)
    random.Random(0).shuffle(mixed)  # of all sizes, for `_tried` to judge from a part of them
    for count in range(1, MOST_LEVELS + 1):
        share, boxes, last = _tried(mixed, _with_levels(family, count), limit)
        if share < LITTLE and boxes >= (1 - LITTLE) * learnt:
            return count
        if count > len(family.priors.strides) and not last:
            return None
    return None


def _tried(batches: Iterable[Sequence[_View]], pyramid: _Pyramid, limit: float) -> tuple[float, int, int]:
    """Return the share of targets that a pyramid clips, how many boxes learn, and how many targets the last level has.

    It stops where a part of the batches is enough to see that the share is far too large.
    """
    targets = clipped = boxes = last = 0
    for part in _learnt(batches, pyramid):
        targets += sum(map(len, part.levels))
        clipped += sum(int((level > limit).sum()) for level in part.levels)
        boxes += part.boxes
        last += len(part.levels[-1])
        if targets >= PLAIN and clipped > MUCH * targets:
            break
    return clipped / max(targets, 1), boxes, last


def _with_levels(family: Family, count: int) -> _Pyramid:
    """Return the pyramid that a family would have with another number of levels, each of twice the stride before."""
    own = family.priors
    factors = [2 ** max(level + 1 - len(own.strides), 0) for level in range(count)]
    places = [min(level, len(own.strides) - 1) for level in range(count)]
    strides = [own.strides[place] * factor for place, factor in zip(places, factors, strict=True)]
    sides = [own.sides[place] * factor for place, factor in zip(places, factors, strict=True)]
    return _Pyramid(Anchors(strides, sides, offset=own.offset), family.assigner.with_levels(count), family.coding)
