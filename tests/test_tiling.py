"""A large picture seen in tiles gives what one look would: each object once, in the picture's own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import gfocal
from exports import lively, small
from gfocal.calibration import Calibration
from gfocal.config import BackboneConfig, Recipe
from gfocal.errors import UserError
from gfocal.model import Model
from gfocal.structures import Detections, EdgeDistributions
from gfocal.tiling import Tiling, look_at_tiles, predict_tiled, put_together, shifted
from gfocal.tta import candidates, merged
from helpers import assert_same_detections, loud

NAMES = ("circle", "square", "star")


@pytest.fixture(scope="module")
def model(tiny_recipe: Recipe) -> Model:
    torch.manual_seed(0)
    return loud(gfocal.build(tiny_recipe, device="cpu"))


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# ---------------------------------------------------------------- where tiles lie


@given(st.integers(1, 3000), st.integers(1, 700), st.data())
def test_tiles_cover_a_picture_and_overlap_enough(length: int, tile: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, tile - 1))
    spans = Tiling((tile, tile), overlap).spans(length, tile)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(stop - start == min(tile, length) for start, stop in spans)
    assert all(before[1] - after[0] >= overlap for before, after in pairwise(spans))
    assert all(before[0] < after[0] for before, after in pairwise(spans))
    # one fewer could not reach
    assert len(spans) == 1 or (len(spans) - 1) * (tile - overlap) + overlap < length


@pytest.mark.parametrize(("tile", "overlap"), [(64, 64), (64, -1), ((64, 32), 32), (0, 0)])
def test_an_overlap_that_leaves_nothing_of_a_tile_is_refused(tile: int | tuple[int, int], overlap: int) -> None:
    with pytest.raises(UserError, match="cannot overlap"):
        Tiling.of(tile, overlap)


# ---------------------------------------------------------------- what is found


@pytest.mark.parametrize("options", [{}, {"threshold": 0.2}, {"precision": "bfloat16"}, {"size": (64, 96)}])
def test_one_tile_over_all_is_one_look(model: Model, options: dict[str, object]) -> None:
    picture = noise(64, 96)  # a size that the tiny recipe does not resize
    found = predict_tiled(model, picture, tile=(64, 96), overlap=8, **options)  # pyright: ignore[reportArgumentType]
    assert len(found) > 5
    assert_same_detections(found, model.predict(picture, **options))  # pyright: ignore[reportArgumentType]
    larger = predict_tiled(model, picture, tile=500, **options)  # pyright: ignore[reportArgumentType]
    assert_same_detections(larger, found)


def test_boxes_and_distributions_are_those_of_a_tile_moved_to_its_place(model: Model) -> None:
    picture = noise(64, 160)
    found = predict_tiled(model, picture, tile=(64, 96), overlap=32)
    prepare = model.prepare((64, 96))
    views = [
        shifted(candidates(model, prepare(picture[:, x : x + 96]), precision=None, threshold=None), x, 0)
        for x in (0, 64)
    ]
    tiles = merged(views)
    assert len(found) > 5
    assert found.edges is not None
    assert tiles.edges is not None
    from_right = 0
    for index in range(len(found)):
        same = (tiles.boxes == found.boxes[index]).all(1) & (tiles.scores == found.scores[index])
        row = int(same.nonzero()[0, 0])
        assert torch.equal(tiles.edges.positions[row], found.edges.positions[index])
        assert torch.equal(tiles.edges.probabilities[row], found.edges.probabilities[index])
        from_right += row >= len(views[0])
    assert 0 < from_right < len(found)


def test_distributions_move_with_their_boxes(model: Model) -> None:
    found = model.predict(noise(64, 96))
    moved = shifted(found, 100, 7)
    offset = torch.tensor([100.0, 7, 100, 7])
    assert found.edges is not None
    assert moved.edges is not None
    assert torch.equal(moved.boxes, found.boxes + offset)
    assert torch.equal(moved.edges.positions, found.edges.positions + offset[:, None])
    assert torch.equal(moved.edges.probabilities, found.edges.probabilities)
    torch.testing.assert_close(moved.edges.std, found.edges.std)


def test_a_size_is_that_of_each_tile(model: Model) -> None:
    picture = noise(64, 96)
    found = predict_tiled(model, picture, tile=(64, 96), size=(128, 192))
    assert_same_detections(found, model.predict(picture, size=(128, 192)))


def test_tiles_are_enlarged_to_what_the_family_takes() -> None:
    ssd = lively(small("ssd512_vgg16", backbone=BackboneConfig(name="ssd_vgg16", weights="none", width=0.25)))
    picture = noise(32, 32)
    found = predict_tiled(ssd, picture, tile=600)
    assert len(found) > 5
    assert_same_detections(found, ssd.predict(picture))  # which sees it at 512 x 512
    assert len(predict_tiled(ssd, picture, tile=600, size=(512, 512))) == len(found)


def rectangles(tile: NDArray[np.uint8]) -> Detections:
    """Return the bright rectangles of a picture, a part of one as sure as a whole one, with distributions."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(tile[..., 0]))
    left, top, width, height, _ = torch.as_tensor(stats[1:]).float().unbind(1)
    boxes = torch.stack([left, top, left + width, top + height], dim=1)
    outwards = torch.tensor([-1.0, -1, 1, 1])[:, None] * torch.tensor([-1.0, 1])
    edges = EdgeDistributions(torch.full((len(boxes), 4, 2), 0.5), boxes[..., None] + outwards)
    return Detections(boxes, torch.full((len(boxes),), 0.9), torch.zeros(len(boxes)).long(), NAMES, edges=edges)


def found_in(picture: NDArray[np.uint8], model: Model, *, tile: int | tuple[int, int], overlap: int) -> Detections:
    return put_together(look_at_tiles(picture, Tiling.of(tile, overlap), rectangles), model.postprocess)


def with_rectangles(size: tuple[int, int], boxes: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    picture = np.zeros((*size, 3), dtype=np.uint8)
    for left, top, right, bottom in boxes:
        picture[top:bottom, left:right] = 255
    return picture


def assert_found_once(found: Detections, boxes: Sequence[Sequence[int]]) -> None:
    torch.testing.assert_close(
        torch.tensor(sorted(found.boxes.round().tolist())).view(-1, 4),
        torch.tensor(sorted(boxes), dtype=torch.float32).view(-1, 4),
    )
    assert found.edges is not None
    torch.testing.assert_close(found.edges.mean, found.boxes, atol=0.05, rtol=0)


@pytest.mark.parametrize("left", [*range(60, 132, 6), 96, 128, 95, 127])
def test_an_object_across_a_border_gives_one_whole_box(model: Model, left: int) -> None:
    box = (left, 40, left + 30, 64)
    found = found_in(with_rectangles((128, 320), [box]), model, tile=128, overlap=32)
    assert_found_once(found, [box])


@settings(max_examples=25)
@given(st.data())
def test_whatever_is_no_larger_than_the_overlap_is_found_once_and_whole(model: Model, data: st.DataObject) -> None:
    boxes: list[tuple[int, int, int, int]] = []
    for row, column in product(range(3), range(5)):  # a cell each, so that no two touch
        width, height = data.draw(st.tuples(st.integers(8, 40), st.integers(8, 40)))
        x, y = data.draw(st.tuples(st.integers(1, 59 - width), st.integers(1, 59 - height)))
        if data.draw(st.booleans()):
            boxes.append((60 * column + x, 60 * row + y, 60 * column + x + width, 60 * row + y + height))
    picture = with_rectangles((180, 300), boxes)
    overlap = data.draw(st.integers(40, 60))
    found = found_in(picture, model, tile=(128, 96), overlap=overlap)
    assert_found_once(found, boxes)


def test_what_is_larger_than_the_overlap_is_not_lost(model: Model) -> None:
    box = (70, 40, 190, 64)
    found = found_in(with_rectangles((128, 320), [box]), model, tile=128, overlap=16)
    assert len(found) >= 1
    assert (found.boxes[:, 0] >= 70).all()
    assert (found.boxes[:, 2] <= 190).all()


def test_a_large_picture_may_hold_more_boxes_than_a_small_one(model: Model) -> None:
    boxes = [(x, y, x + 8, y + 8) for x in range(4, 400, 20) for y in range(4, 200, 20)]
    limit = model.postprocess.max_detections
    assert len(boxes) > limit
    found = found_in(with_rectangles((200, 400), boxes), model, tile=100, overlap=20)
    assert_found_once(found, boxes)


def test_a_huge_picture_with_objects_in_one_corner(model: Model) -> None:
    boxes = [(5900, 5890, 5930, 5950), (5950, 5960, 6000, 6000)]
    found = found_in(with_rectangles((6000, 6000), boxes), model, tile=1536, overlap=64)
    assert_found_once(found, boxes)


def test_tiles_are_calibrated_like_one_look(model: Model) -> None:
    around = Calibration((), (0.9,), "constant", (0,) * 3, ((2.0,) * 4,), ((3.0,),), ((1.0,),), NAMES, 500, 0.5)
    calibrated = model.with_calibration(around)
    found = predict_tiled(calibrated, noise(64, 160), tile=96)
    assert found.bands is not None
    plain = predict_tiled(model, noise(64, 160), tile=96)
    assert torch.equal(found.boxes, plain.boxes)
    torch.testing.assert_close(found.bands.interval(0.9)[0], plain.boxes - 2)
