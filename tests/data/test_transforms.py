"""Pictures are resized as the reference does it, and boxes stay on what they mark through every transform."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from gfocal.data.collate import Example, pad_size
from gfocal.data.placing import ResizeShortLong, ScaleJitter
from gfocal.data.preparing import Prepare, normalize
from gfocal.data.resizing import resize, resized_size
from gfocal.data.transforms import TrainTransform
from gfocal.errors import UserError

PARITY = Path(__file__).parents[2].parent / "shared" / "parity"
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SIDES = st.integers(1, 3000)
FAST = settings(deadline=None, max_examples=40)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def train_transform(**changes: object) -> TrainTransform:
    fields = {"short": (40, 60), "long": 120, "mean": MEAN, "std": STD} | changes
    return TrainTransform(**fields)  # pyright: ignore[reportArgumentType]


def sample(picture: np.ndarray, boxes: list[list[float]]) -> tuple[tv_tensors.Image, tv_tensors.BoundingBoxes]:
    size = picture.shape[:2]
    rows = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return (
        tv_tensors.Image(torch.from_numpy(picture).permute(2, 0, 1)),
        tv_tensors.BoundingBoxes(rows, format="XYXY", canvas_size=size),
    )


@pytest.mark.parametrize(
    ("size", "short", "long", "upscale", "wanted"),
    [
        ((480, 640), 800, 1333, True, (800, 1067)),  # the reference's sizes of two common pictures
        ((427, 640), 800, 1333, True, (800, 1199)),
        ((300, 420), 200, 333, True, (200, 280)),
        ((121, 203), 200, 333, True, (198, 333)),
        ((640, 480), 800, 1333, True, (1067, 800)),
        ((480, 640), 800, 1333, False, (480, 640)),
        ((1000, 500), 100, 1333, False, (200, 100)),
        ((1, 3000), 800, 1333, True, (1, 1333)),
        ((5000, 1), 800, 1333, True, (1333, 1)),
        ((1, 1), 1, 1, True, (1, 1)),
    ],
)
def test_resized_size(size: tuple[int, int], short: int, long: int, upscale: bool, wanted: tuple[int, int]) -> None:
    assert resized_size(size, short=short, long=long, upscale=upscale) == wanted


@FAST
@given(SIDES, SIDES, st.integers(1, 1500), st.integers(1, 1500), st.booleans())
def test_resized_size_fits_and_keeps_the_aspect(height: int, width: int, short: int, long: int, upscale: bool) -> None:
    new = resized_size((height, width), short=short, long=long, upscale=upscale)
    assert 1 <= min(new) <= short
    assert max(new) <= max(long, 1)
    assert upscale or (new[0] <= height and new[1] <= width)
    scale = min(long / max(height, width), short / min(height, width))
    scale = scale if upscale else min(scale, 1)
    for side, old in zip(new, (height, width), strict=True):
        assert side == 1 or abs(side - old * scale) <= 0.5
    assert resized_size((width, height), short=short, long=long, upscale=upscale) == new[::-1]


@pytest.mark.parametrize("new", [(7, 9), (40, 31), (1, 1), (90, 160), (60, 80)])
def test_resize_is_opencvs_bilinear(new: tuple[int, int]) -> None:
    picture = noise(60, 80)
    resized = resize(picture, new)
    assert resized.shape == (*new, 3)
    assert resized.dtype == np.uint8
    assert np.array_equal(resized, cv2.resize(picture, new[::-1], interpolation=cv2.INTER_LINEAR))
    assert new != (60, 80) or np.array_equal(resized, picture)


def test_resize_halves_by_averaging_pairs() -> None:
    picture = np.repeat(np.array([[0, 100, 50, 150], [20, 120, 70, 170]], dtype=np.uint8)[..., None], 3, -1)
    assert resize(picture, (1, 2))[..., 0].tolist() == [[60, 110]]


@pytest.mark.skipif(not PARITY.is_dir(), reason="the shared parity cases are not here")
@pytest.mark.parametrize("name", ["end_to_end_gfl_r50_fpn", "end_to_end_gflv2_r50_fpn"])
def test_resize_agrees_with_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PARITY))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import recipe

    case = dict(np.load(PARITY / "cases" / f"{name}.npz"))
    height, width = (int(side) for side in case["hw"])
    picture = recipe.image(height, width, int(case["seed"]))
    long, short = (int(side) for side in case["scale"])
    size = resized_size((height, width), short=short, long=long)
    assert size == case["resized"].shape[:2]
    assert np.array_equal(resize(picture, size), case["resized"])
    assert pad_size(size) == tuple(case["padded_hw"])
    prepared = Prepare(short, long, MEAN, STD)(picture)
    exact = (case["resized"] - np.array(MEAN)) / np.array(STD)
    assert np.array_equal(prepared.image.permute(1, 2, 0).numpy(), exact.astype(np.float32))


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 256), (300, 1), (33, 65)])
def test_normalize_agrees_with_float64(size: tuple[int, int], bgr: bool) -> None:
    picture = noise(*size)
    ours = normalize(picture, mean=MEAN, std=STD, bgr=bgr)
    exact = ((picture[..., ::-1] if bgr else picture) - np.array(MEAN)) / np.array(STD)
    assert ours.shape == (3, *size)
    assert ours.dtype == torch.float32
    assert ours.permute(1, 2, 0).is_contiguous()
    np.testing.assert_allclose(ours.numpy(), exact.transpose(2, 0, 1), rtol=1e-6, atol=0)


def test_normalize_near_the_mean_and_of_views() -> None:
    picture = np.full((4, 5, 3), 124, dtype=np.uint8)
    ours = normalize(picture, mean=(123.999999, 0.0, 254.0), std=(1.0, 1.0, 1.0))
    np.testing.assert_allclose(ours[:, 0, 0].numpy(), [1e-6, 124, -130], rtol=1e-6)
    view = noise(8, 9)[::-2, ::3]
    assert torch.equal(normalize(view, mean=MEAN, std=STD), normalize(view.copy(), mean=MEAN, std=STD))


def test_normalize_is_fast() -> None:
    picture, seconds = noise(480, 640), []
    for _ in range(7):
        start = time.perf_counter()
        normalize(picture, mean=MEAN, std=STD)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.03  # about 1 ms on a free core


def test_prepare() -> None:
    picture = noise(50, 80)
    prepared = Prepare(short=100, long=130, mean=MEAN, std=STD, bgr=True)(picture)
    assert prepared.size == (81, 130)
    assert prepared.image.shape == (3, 81, 130)
    assert prepared.scale == (130 / 80, 81 / 50)
    assert torch.equal(prepared.image, normalize(resize(picture, (81, 130)), mean=MEAN, std=STD, bgr=True))
    assert Prepare(100, 130, MEAN, STD, upscale=False)(picture).size == (50, 80)


def test_resize_short_long_draws_every_whole_number_alike() -> None:
    torch.manual_seed(0)
    step = ResizeShortLong((10, 13), 1000)
    heights = [step(*sample(noise(20, 30), []))[0].shape[-2] for _ in range(800)]
    counts = np.bincount(heights, minlength=14)
    assert counts[10:].sum() == 800
    assert counts[10:].min() > 135  # 200 each; five sigmas are 62


@FAST
@given(st.integers(2, 90), st.integers(2, 90), st.integers(1, 100), st.integers(0, 50), st.integers(0, 2**31))
def test_resized_boxes_go_back_by_the_ratio_of_each_axis(
    height: int, width: int, short: int, more: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 1, (5, 2, 2)), axis=1) * [width, height]
    boxes = [*corners.reshape(-1, 4).tolist(), [0, 0, width, height]]
    torch.manual_seed(seed)
    image, moved = ResizeShortLong((short, short + more), 200)(*sample(noise(height, width), boxes))
    new = image.shape[-2:]
    assert moved.canvas_size == new
    ratio = torch.tensor([new[1] / width, new[0] / height] * 2)
    back = moved.as_subclass(Tensor) / ratio
    assert torch.allclose(back, torch.tensor(boxes, dtype=torch.float32), rtol=1e-6, atol=1e-4)
    assert moved[-1].tolist() == [0, 0, new[1], new[0]]


def test_resize_short_long_leaves_its_inputs_alone() -> None:
    picture = noise(20, 30)
    image, boxes = sample(picture, [[1, 2, 13, 14]])
    labels = torch.tensor([4])
    out = ResizeShortLong((40, 40), 100)(image, boxes, labels)
    assert np.array_equal(picture, noise(20, 30))
    assert boxes.tolist() == [[1, 2, 13, 14]]
    assert out[1].tolist() == [[2, 4, 26, 28]]
    assert out[2] is labels
    assert isinstance(out[0], tv_tensors.Image)
    assert isinstance(out[1], tv_tensors.BoundingBoxes)


def blocks(height: int, width: int, boxes: list[tuple[int, int, int, int]]) -> np.ndarray:
    """Return a black picture with a white block in each box."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    for x1, y1, x2, y2 in boxes:
        picture[y1:y2, x1:x2] = 255
    return picture


def check_on_block(image: Tensor, box: Tensor) -> None:
    """The white of the image lies within the box, to a pixel."""
    rows, columns = (image.as_subclass(Tensor)[0] > 127).nonzero(as_tuple=True)
    seen = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert (seen - box.as_subclass(Tensor)).abs().max() <= 1.01


@FAST
@given(st.integers(0, 2**31), st.floats(0.3, 1), st.floats(1, 2.5))
def test_scale_jitter_moves_boxes_with_the_picture(seed: int, low: float, high: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = int(rng.integers(0, 50)), int(rng.integers(0, 30))
    block = (x, y, x + int(rng.integers(12, 30)), y + int(rng.integers(12, 30)))
    torch.manual_seed(seed)
    step = ScaleJitter((low, high))
    image, boxes = step(*sample(blocks(60, 80, [block]), [list(block)]))
    assert image.shape == (3, 60, 80)
    assert boxes.canvas_size == (60, 80)
    width, height = boxes[0, 2] - boxes[0, 0], boxes[0, 3] - boxes[0, 1]
    if width > 0 and height > 0:
        check_on_block(image, boxes[0])
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([80, 60, 80, 60])).all()


def test_scale_jitter_drops_a_box_whose_centre_leaves() -> None:
    step = ScaleJitter((2.0, 2.0))
    picture = noise(40, 40)
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        _, boxes = step(*sample(picture, [[0, 0, 20, 20]]))
        torch.manual_seed(seed)
        params = step.make_params(list(sample(picture, [])))
        inside = all(offset + 20 >= 0 for offset in params["offset"])  # the centre lies at 2 x 10 + offset
        assert bool((boxes[:, 2:] > boxes[:, :2]).all()) == inside
        seen.add(inside)
    assert seen == {True, False}


def test_scale_jitter_of_one_keeps_everything() -> None:
    image, boxes = sample(noise(31, 47), [[3, 4, 20, 21.5]])
    same, kept = ScaleJitter((1.0, 1.0))(image, boxes)
    assert torch.equal(same, image)
    assert torch.equal(kept, boxes)


def test_scale_jitter_fills_with_its_colour() -> None:
    image, _ = ScaleJitter((0.5, 0.5), fill=(7, 8, 9))(*sample(np.full((20, 20, 3), 200, dtype=np.uint8), []))
    pixels = image.as_subclass(Tensor).reshape(3, -1)
    assert sorted(set(map(tuple, pixels.T.tolist()))) == [(7, 8, 9), (200, 200, 200)]
    assert (pixels[0] == 200).sum() == 100


def test_train_transform_without_chance_is_the_test_transform() -> None:
    picture = noise(50, 80)
    transform = train_transform(short=(100, 100), long=130, flip=0.0, bgr=True)
    example = transform(picture, torch.tensor([[8.0, 5.0, 40.0, 50.0]]), torch.tensor([3]))
    assert torch.equal(example.image, Prepare(100, 130, MEAN, STD, bgr=True)(picture).image)
    torch.testing.assert_close(example.boxes, torch.tensor([[13.0, 8.1, 65.0, 81.0]]))
    assert example.labels.tolist() == [3]
    assert type(example.image) is type(example.boxes) is type(example.labels) is Tensor


@FAST
@given(st.integers(0, 2**31), st.booleans())
def test_flip_is_its_own_inverse(seed: int, upscale: bool) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(20, 100, 2))
    boxes = torch.from_numpy(np.sort(rng.uniform(0, 1, (4, 2, 2)), 1) * [width, height]).float().reshape(-1, 4)
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2] > 6).all(1)]  # above a pixel whatever happens
    labels = torch.arange(len(boxes))
    picture = noise(height, width, seed)
    fixed = {"short": (40, 40), "long": 120, "upscale": upscale}
    plain = train_transform(flip=0.0, **fixed)(picture, boxes, labels)
    mirror = train_transform(flip=1.0, **fixed)(picture, boxes, labels)
    new_width = plain.image.shape[2]
    assert torch.equal(mirror.image.flip(2), plain.image)
    back = mirror.boxes[:, [2, 1, 0, 3]] * torch.tensor([-1, 1, -1, 1]) + torch.tensor([new_width, 0, new_width, 0])
    assert torch.allclose(back, plain.boxes, atol=1e-4)
    assert torch.equal(mirror.labels, labels)


@FAST
@given(st.integers(0, 2**31))
def test_boxes_stay_on_their_blocks_through_everything(seed: int) -> None:
    torch.manual_seed(seed)
    block = (30, 20, 62, 50)
    transform = train_transform(short=(50, 90), long=160, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), jitter=(0.6, 1.7))
    example = transform(blocks(70, 100, [block]), torch.tensor([block]).float(), torch.tensor([1]))
    check_example(example)
    if len(example.boxes):
        check_on_block(example.image, example.boxes[0])


def check_example(example: Example) -> None:
    _, height, width = example.image.shape
    assert len(example.boxes) == len(example.labels)
    assert (example.boxes >= 0).all()
    assert (example.boxes <= torch.tensor([width, height, width, height])).all()
    assert (example.boxes[:, 2:] - example.boxes[:, :2] > 0.998).all()
    assert torch.isfinite(example.image).all()


@FAST
@given(st.integers(0, 2**31), st.integers(1, 200), st.integers(1, 200), st.integers(0, 6))
def test_labels_stay_with_their_boxes(seed: int, height: int, width: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), 1) * [width, height]
    boxes = torch.from_numpy(corners).float().reshape(-1, 4)
    labels = torch.arange(count)
    torch.manual_seed(seed)
    full = train_transform(jitter=(0.3, 3.0), color=0.5)
    check_example(full(noise(height, width, seed), boxes, labels))
    example = train_transform(flip=0.0)(noise(height, width, seed), boxes, labels)
    check_example(example)
    ratio = torch.tensor([example.image.shape[2] / width, example.image.shape[1] / height] * 2)
    assert torch.allclose(example.boxes, boxes[example.labels] * ratio, atol=1e-3)
    missing = boxes[[label for label in range(count) if label not in example.labels]] * ratio
    assert (missing[:, 2:] - missing[:, :2]).reshape(-1, 2).amin(1).le(1).all()


def test_boxes_that_shrink_under_a_pixel_are_dropped_with_their_labels() -> None:
    boxes = torch.tensor([[0.0, 0.0, 50.0, 50.0], [10.0, 10.0, 18.0, 60.0], [20.0, 20.0, 31.0, 31.0]])
    transform = train_transform(short=(10, 10), flip=0.0)
    example = transform(noise(100, 100), boxes, torch.tensor([5, 6, 7]))
    assert example.labels.tolist() == [5, 7]
    assert torch.allclose(example.boxes, boxes[[0, 2]] / 10)


def test_a_box_of_one_pixel_survives_where_nothing_changes() -> None:
    boxes = torch.tensor([[40.3, 20.7, 41.3, 21.7]])
    assert len(train_transform(short=(50, 50), flip=0.0)(noise(50, 80), boxes, torch.tensor([0])).boxes) == 1


def test_no_box_at_all() -> None:
    transform = train_transform(jitter=(0.5, 2.0), color=0.4)
    example = transform(noise(30, 40), torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    assert example.boxes.shape == (0, 4)
    assert example.labels.shape == (0,)
    assert example.labels.dtype == torch.int64


def test_color_changes_colours_only() -> None:
    picture, boxes = noise(50, 80), torch.tensor([[5.0, 6.0, 30.0, 40.0]])
    fixed = {"short": (50, 50), "flip": 0.0}
    plain = train_transform(**fixed)(picture, boxes, torch.tensor([0]))
    torch.manual_seed(1)
    coloured = train_transform(color=0.6, **fixed)(picture, boxes, torch.tensor([0]))
    assert torch.equal(plain.boxes, coloured.boxes)
    assert (plain.image - coloured.image).abs().mean() > 0.02
    assert np.array_equal(picture, noise(50, 80))


def test_chance_comes_from_torchs_generator() -> None:
    transform = train_transform(jitter=(0.5, 2.0), color=0.5)
    boxes, labels = torch.tensor([[5.0, 6.0, 30.0, 40.0]]), torch.tensor([0])
    images = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        np.random.seed(len(images))
        images.append(transform(noise(50, 80), boxes, labels).image)
    assert torch.equal(images[0], images[1])
    assert images[0].shape != images[2].shape or not torch.equal(images[0], images[2])


def test_steps_work_in_other_peoples_compositions() -> None:
    steps = v2.Compose([ScaleJitter((0.9, 1.1)), ResizeShortLong((20, 30), 50), v2.RandomHorizontalFlip(0.5)])
    image, boxes = sample(noise(40, 40), [[0, 0, 30, 30]])
    out = steps({"image": image, "target": {"boxes": boxes, "labels": torch.tensor([1])}})
    assert out["target"]["boxes"].canvas_size == out["image"].shape[-2:]
    assert out["target"]["labels"].tolist() == [1]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"short": (60, 40)}, "size is short"),
        ({"short": (0, 40)}, "size is short"),
        ({"long": 50}, "size is short"),
        ({"flip": 1.5}, r"flip must be between 0 and 1, got 1\.5"),
        ({"color": -0.1}, r"color must be between 0 and 1, got -0\.1"),
        ({"jitter": (0.0, 1.0)}, "jitter is"),
        ({"jitter": (2.0, 1.0)}, "jitter is"),
    ],
)
def test_impossible_fields_are_refused(changes: dict[str, object], wanted: str) -> None:
    with pytest.raises(UserError, match=wanted):
        train_transform(**changes)
