"""What the bins of a recipe clip, against a computation of one picture and one candidate at a time."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from gfocal.analysis.doctor import clipped_targets
from gfocal.analysis.doctor.clipping import LITTLE, has_bins
from gfocal.assign.atss import ATSS
from gfocal.assign.base import Assigner
from gfocal.config import Recipe
from gfocal.data.collate import learnable, pad_size
from gfocal.data.dataset import FolderDataset, Record
from gfocal.data.resizing import resized_size
from gfocal.errors import UserError
from gfocal.families import FAMILIES
from gfocal.priors import Anchors, square_sides
from gfocal.recipes import get_recipe
from gfocal.structures import GroundTruth, Truth


def recipe_of(name: str = "gfl_r18_mini", *, n: int = 16, delta: float = 1.0, family: str | None = None) -> Recipe:
    recipe = get_recipe(name)
    changes = {"box": {"name": "general", "n": n, "delta": delta}}
    return recipe.model_copy(update=changes | ({"family": {"name": family}} if family else {}))


def dataset_of(count: int, *, seed: int = 0, boxes: int = 6) -> FolderDataset:
    """Pictures of several sizes with boxes of all sizes and shapes, one a crowd and one without area."""
    noise = torch.Generator().manual_seed(seed)
    records: list[Record] = []
    for index in range(count):
        size = [(240, 320), (480, 300), (333, 500)][index % 3]
        limit = torch.tensor([size[1], size[0]])
        sides = limit * 10 ** -(1.5 * torch.rand(boxes, 2, generator=noise))
        corners = torch.rand(boxes, 2, generator=noise) * (limit - sides)
        rows = torch.cat([corners, corners + sides], dim=1)
        rows[1, 2] = rows[1, 0]
        crowd = torch.arange(boxes) == 2
        truth = Truth(index, f"{index}", size, rows, torch.zeros(boxes, dtype=torch.long), crowd)
        records.append(Record(Path(f"{index}.png"), truth))
    return FolderDataset(("thing",), tuple(records))


def one_by_one(
    dataset: FolderDataset,
    recipe: Recipe,
    *,
    priors: Anchors,
    assigner: Assigner,
    owners: set[tuple[int, int]] | None = None,
) -> dict[int, list[float]]:
    """Return the distances of each stride, in strides, picture by picture and candidate by candidate.

    owners: takes up the picture and place of each box that is learnt.
    """
    found: dict[int, list[float]] = {stride: [] for stride in priors.strides}
    config = recipe.pictures
    for index in range(len(dataset)):
        truth = dataset.truth(index)
        rows, columns = resized_size(truth.size, short=config.short, long=config.long, upscale=config.upscale)
        boxes, labels = learnable(truth)
        boxes = boxes * torch.tensor([columns / truth.size[1], rows / truth.size[0]] * 2)
        extent = pad_size((rows, columns))
        grid = priors([torch.empty(1, 0, math.ceil(extent[0] / s), math.ceil(extent[1] / s)) for s in priors.strides])
        match = assigner(grid, GroundTruth(boxes, labels, torch.zeros_like(labels), torch.tensor([extent]).float()))
        chosen = match.positive.nonzero()[:, 0]
        for place, owner in zip(match.location[chosen].tolist(), match.truth[chosen].tolist(), strict=True):
            x, y = grid.points[place].tolist()
            stride = int(grid.strides[place])
            left, top, right, bottom = boxes[owner].tolist()
            if owners is not None:
                owners.add((index, owner))
            found[stride] += [value / stride for value in (x - left, y - top, right - x, bottom - y)]
    return found


def share(found: dict[int, list[float]], limit: float) -> float:
    every = [value for values in found.values() for value in values]
    return sum(value > limit for value in every) / len(every)


@pytest.mark.parametrize(("n", "delta"), [(16, 1.0), (8, 0.5)])
@pytest.mark.parametrize("family", ["atss", "fcos", "retinanet", "foveabox"])
def test_shares_are_those_of_one_picture_at_a_time(family: str, n: int, delta: float) -> None:
    dataset, recipe = dataset_of(8), recipe_of(n=n, delta=delta, family=family)
    parts = FAMILIES[family]()
    found = one_by_one(dataset, recipe, priors=parts.priors, assigner=parts.assigner)
    clipping = clipped_targets(dataset, recipe)
    assert (clipping.n, clipping.delta, clipping.pictures) == (n, delta, 8)
    assert [level.stride for level in clipping.levels] == list(found)
    assert [level.targets for level in clipping.levels] == [len(values) for values in found.values()]
    # the two divide by the stride in another precision: what lies at the limit itself may fall on either side
    beyond = [sum(value > n * delta for value in values) for values in found.values()]
    assert [level.clipped for level in clipping.levels] == pytest.approx(beyond, abs=1)
    assert clipping.share == pytest.approx(share(found, n * delta), abs=1e-3)
    assert clipping.share == clipping.clipped / clipping.targets
    assert sum(clipping.histogram) == clipping.targets


@pytest.mark.parametrize(("n", "delta"), [(16, 1.0), (8, 0.5), (5, 1.3)])
def test_the_smallest_n_and_delta_are_the_first_that_reach(n: int, delta: float) -> None:
    dataset, recipe = dataset_of(15), recipe_of(n=n, delta=delta)
    parts = FAMILIES["atss"]()
    found = one_by_one(dataset, recipe, priors=parts.priors, assigner=parts.assigner)
    clipping = clipped_targets(dataset, recipe)
    first = next(count for count in range(1, 1000) if share(found, count * delta) < LITTLE)
    assert clipping.smallest_n == first
    assert share(found, n * clipping.smallest_delta * (1 + 1e-5)) < LITTLE
    assert share(found, n * clipping.smallest_delta * (1 - 1e-5)) >= LITTLE


@pytest.mark.parametrize("n", [7, 16, 30])
def test_the_fewest_levels_are_found_by_trying_them_all(n: int) -> None:
    dataset, recipe = dataset_of(6, seed=3), recipe_of(n=n)
    enough: list[bool] = []
    own = set[tuple[int, int]]()
    one_by_one(dataset, recipe, priors=FAMILIES["atss"]().priors, assigner=ATSS(), owners=own)
    for count in range(1, 7):
        strides = [8 * 2**level for level in range(count)]
        priors = Anchors(strides, square_sides(strides, 8.0))
        learnt = set[tuple[int, int]]()
        found = one_by_one(dataset, recipe, priors=priors, assigner=ATSS(), owners=learnt)
        enough.append(share(found, n) < LITTLE and len(learnt) > 0.999 * len(own))
    wanted = enough.index(True) + 1 if any(enough) else None
    assert clipped_targets(dataset, recipe).smallest_levels == wanted


def test_large_objects_of_a_small_pyramid_need_more_levels() -> None:
    size = (1024, 1024)
    boxes = torch.tensor([[0.0, 0.0, 1024.0, 1024.0]])
    truth = Truth(0, "0", size, boxes, torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.bool))
    dataset = FolderDataset(("thing",), (Record(Path("0.png"), truth),))
    recipe = recipe_of("gfl_r50_fpn_1x", n=5)
    pictures = recipe.pictures.model_copy(update={"short": 2048, "long": 2048})
    clipping = clipped_targets(dataset, recipe.model_copy(update={"pictures": pictures}))
    assert clipping.share > 0.5
    assert clipping.smallest_levels == 6


def test_a_sample_is_spread_over_the_data_set() -> None:
    dataset, recipe = dataset_of(9), recipe_of()
    sample = clipped_targets(dataset, recipe, pictures=3)
    assert sample.pictures == 3
    chosen = FolderDataset(("thing",), tuple(dataset.records[index] for index in (0, 4, 8)))
    assert sample == clipped_targets(chosen, recipe)
    assert clipped_targets(dataset, recipe, pictures=100) == clipped_targets(dataset, recipe)


def test_pictures_without_boxes_have_no_targets() -> None:
    for dataset in (dataset_of(0), FolderDataset(("thing",), (dataset_of(1, boxes=3).records[0],))):
        clipping = clipped_targets(dataset, recipe_of(), pictures=0)
        assert (clipping.targets, clipping.clipped, clipping.share) == (0, 0, 0)
        assert (clipping.smallest_n, clipping.smallest_delta, clipping.smallest_levels) == (1, 0, 1)


def test_recipes_without_bins_are_refused() -> None:
    for name in ("fcos_r50_fpn_1x", "ssd512_vgg16"):
        assert not has_bins(get_recipe(name))
        with pytest.raises(UserError, match=f"recipe {name}: .* no bins"):
            clipped_targets(dataset_of(1), get_recipe(name))
    outside = get_recipe("gfl_r18_mini").model_copy(update={"box": {"name": "mine:Box"}})
    assert not has_bins(outside)
