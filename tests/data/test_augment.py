"""What SSD does to a picture, and large-scale jitter: boxes stay on what they mark, whatever the picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2

from drawn import blocks, check_on_block, inputs, noise, random_boxes
from gfocal.data.augment import LARGEST_CANVAS, Distort, Expand, IoUCrop
from gfocal.data.placing import Placing, ScaleJitter
from gfocal.errors import UserError

STEPS: dict[str, Callable[[], v2.Transform]] = {
    "expand": lambda: Expand(1.0),
    "crop": lambda: IoUCrop(1.0),
    "jitter": lambda: ScaleJitter((0.3, 2.0)),
    "large-scale jitter": lambda: ScaleJitter((0.1, 2.0), size=(90, 110)),
    "large-scale jitter, stretched": lambda: ScaleJitter((0.1, 2.0), size=(90, 110), keep_aspect=False),
    "flip": lambda: v2.RandomHorizontalFlip(1.0),
    "vertical flip": lambda: v2.RandomVerticalFlip(1.0),
    "distort": lambda: Distort(0.5),
}
PLACING = [name for name in STEPS if "flip" not in name and name != "distort"]
SEEDS = st.integers(0, 2**31)
any_step = pytest.mark.parametrize("name", STEPS)


@any_step
@given(seed=SEEDS)
def test_a_box_stays_on_its_block(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = int(rng.integers(0, 50)), int(rng.integers(0, 30))
    block = (x, y, x + int(rng.integers(30, 60)), y + int(rng.integers(30, 60)))
    torch.manual_seed(seed)
    image, boxes = STEPS[name]()(*inputs(blocks(95, 115, [block]), torch.tensor([block]).float()))
    assert boxes.canvas_size == image.shape[-2:]
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([image.shape[2], image.shape[1]] * 2)).all()
    if (boxes[0, 2:] - boxes[0, :2]).min() >= 3:
        check_on_block(image, boxes[0])
    elif name in ("expand", "flip", "vertical flip", "distort"):
        pytest.fail("a box is lost by what cuts nothing")


@pytest.mark.parametrize("name", PLACING)
@given(seed=SEEDS, height=st.integers(1, 300), width=st.integers(1, 300))
def test_boxes_go_back_to_where_they_were(name: str, seed: int, height: int, width: int) -> None:
    boxes = random_boxes(np.random.default_rng(seed), height, width, 20)
    image, moved = inputs(noise(height, width), boxes)
    step = STEPS[name]()
    torch.manual_seed(seed)
    params = step.make_params([image, moved])
    torch.manual_seed(seed)
    image, moved = step(image, moved)
    if not params:
        assert torch.equal(moved, boxes)
        return
    assert tuple(image.shape[-2:]) == params["canvas"]
    ratio = torch.tensor([params["size"][1] / width, params["size"][0] / height] * 2, dtype=torch.float64)
    shift = torch.tensor(params["offset"] * 2, dtype=torch.float64)
    canvas = torch.tensor([params["canvas"][1], params["canvas"][0]])
    there = boxes.double() * ratio + shift
    whole = ((there[:, :2] >= 0) & (there[:, 2:] <= canvas)).all(1)
    back = (moved.double() - shift) / ratio
    assert torch.allclose(back[whole], boxes[whole].double(), rtol=0, atol=1e-3)
    centre = (there[:, :2] + there[:, 2:]) / 2
    gone = ((centre < -1e-3) | (centre > canvas + 1e-3)).any(1)
    assert (moved[gone][:, 2:] == moved[gone][:, :2]).all()


@pytest.mark.parametrize("name", ["flip", "vertical flip"])
@given(seed=SEEDS)
def test_two_flips_are_none(name: str, seed: int) -> None:
    boxes = random_boxes(np.random.default_rng(seed), 480, 640, 10)
    step = STEPS[name]()
    image, moved = step(*step(*inputs(noise(48, 64), boxes / 10)))
    assert np.array_equal(image.permute(1, 2, 0).numpy(), noise(48, 64))
    assert (moved - boxes / 10).abs().max() < 1e-3


@any_step
@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (3, 2), (40, 60)])
@pytest.mark.parametrize("count", [0, 1, 3000])
def test_any_picture_and_any_number_of_boxes(name: str, size: tuple[int, int], count: int) -> None:
    boxes = random_boxes(np.random.default_rng(0), *size, count)
    step = STEPS[name]()
    for seed in range(3):
        torch.manual_seed(seed)
        image, moved = step(*inputs(noise(*size), boxes))
        assert image.dtype == torch.uint8
        assert min(image.shape[1:]) >= 1
        assert moved.shape == (count, 4)
        assert torch.isfinite(moved).all()
        assert (moved[:, 2:] >= moved[:, :2]).all()


@any_step
def test_the_same_seed_gives_the_same_and_inputs_stay(name: str) -> None:
    picture, boxes = noise(70, 90), random_boxes(np.random.default_rng(0), 70, 90, 5)
    step, results = STEPS[name](), []
    for seed in (3, 3):
        torch.manual_seed(seed)
        np.random.seed(len(results))
        results.append(step(*inputs(picture, boxes)))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert np.array_equal(picture, noise(70, 90))
    assert torch.equal(boxes, random_boxes(np.random.default_rng(0), 70, 90, 5))


@pytest.mark.parametrize("make", [Expand, IoUCrop])
def test_a_chance_is_how_often_it_happens(make: Callable[[float], Placing]) -> None:
    boxes = torch.tensor([[10.0, 10, 30, 30]])
    changed = [make(0.3)(*inputs(noise(40, 50), boxes))[0].shape != (3, 40, 50) for _ in range(600)]
    whole = 1 if make is Expand else 6 / 7  # no more than that, since one choice of the crop is no cut
    assert sum(changed) < 600 * 0.3 + 60
    assert sum(changed) > 600 * 0.3 * whole - 60
    assert all(make(0.0)(*inputs(noise(40, 50), boxes))[0].shape == (3, 40, 50) for _ in range(50))


def test_expansion_puts_the_picture_on_its_colour() -> None:
    picture = np.full((30, 40, 3), 200, dtype=np.uint8)
    sizes = []
    for _ in range(200):
        image, boxes = Expand(1.0, largest=3.0, fill=(7, 8, 9))(*inputs(picture, torch.tensor([[0.0, 0, 40, 30]])))
        x1, y1, x2, y2 = (int(edge) for edge in boxes[0])
        assert (x2 - x1, y2 - y1) == (40, 30)
        inside = torch.zeros(image.shape[1:], dtype=torch.bool)
        inside[y1:y2, x1:x2] = True
        assert (image[:, inside] == 200).all()
        assert (image[:, ~inside] == torch.tensor([[7], [8], [9]])).all()
        sizes.append(image.shape[2] / 40)
    assert 1 <= min(sizes) < 1.1
    assert 2.9 < max(sizes) <= 3
    assert abs(np.mean(sizes) - 2) < 0.2  # five deviations of the mean of 200 even draws


@given(height=st.sampled_from([1, 30, 3000]), width=st.sampled_from([1, 30, 1500, 9000]), seed=SEEDS)
@example(height=2, width=5000, seed=0)
def test_an_expanded_picture_stays_small_enough_for_memory(height: int, width: int, seed: int) -> None:
    image, boxes = inputs(np.zeros((height, width, 3), dtype=np.uint8), torch.tensor([[0.0, 0, width, height]]))
    torch.manual_seed(seed)
    params = Expand(1.0).make_params([image, boxes])
    assert max(params["canvas"]) <= LARGEST_CANVAS
    for side, corner, canvas in zip(params["size"], params["offset"][::-1], params["canvas"], strict=True):
        assert side >= 1
        assert 0 <= corner <= corner + side <= canvas
    shrink = max(params["size"]) / max(height, width)
    for side, old in zip(params["size"], (height, width), strict=True):
        assert abs(side - max(old * shrink, 1)) <= 1


@given(seed=SEEDS, count=st.integers(1, 8))
def test_a_crop_is_a_part_that_ssd_allows(seed: int, count: int) -> None:
    boxes = random_boxes(np.random.default_rng(seed), 120, 200, count)
    image, corners = inputs(noise(120, 200), boxes)
    torch.manual_seed(seed)
    params = IoUCrop(1.0).make_params([image, corners])
    if not params:
        return
    (height, width), (x, y) = params["canvas"], (-params["offset"][0], -params["offset"][1])
    assert params["size"] == (120, 200)
    assert 36 <= height <= 120
    assert 60 <= width <= 200
    assert 0.5 <= width / height <= 2
    assert 0 <= x <= x + width <= 200
    assert 0 <= y <= y + height <= 120
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centres > torch.tensor([x, y])) & (centres < torch.tensor([x + width, y + height]))).all(1)
    assert inside.any()
    torch.manual_seed(seed)
    image, moved = IoUCrop(1.0)(image, corners)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), noise(120, 200)[y : y + height, x : x + width])
    assert (moved[inside][:, 2:] > moved[inside][:, :2]).all()


BOX_SETS = {
    "one that fills the picture": [[2.0, 3, 60, 62]],
    "a small and a large one": [[5.0, 5, 15, 17], [20, 10, 60, 50]],
}


@pytest.mark.parametrize("name", BOX_SETS)
def test_crops_are_spread_as_those_of_torchvision(name: str) -> None:
    image, boxes = inputs(noise(64, 64), torch.tensor(BOX_SETS[name]))
    torch.manual_seed(0)
    ours = np.array([crop_of(IoUCrop(1.0), image, boxes) for _ in range(800)])
    theirs = np.array([crop_of(v2.RandomIoUCrop(), image, boxes) for _ in range(120)])
    spread = np.sqrt(ours.var(0) / len(ours) + theirs.var(0) / len(theirs))
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 4 * spread).all()


def crop_of(step: v2.Transform, image: Tensor, boxes: Tensor) -> list[float]:
    """Return what tells crops apart: whether it is none, its sides and corner, and how well it fits the first box."""
    params = step.make_params([image, boxes])
    if not params:
        return [1.0, 0, 0, 0, 0, 0]
    if "left" in params:
        x, y, width, height = (params[key] for key in ("left", "top", "width", "height"))
    else:
        x, y, (height, width) = -params["offset"][0], -params["offset"][1], params["canvas"]
    part = torch.tensor([[x, y, x + width, y + height]], dtype=torch.float32)
    return [0.0, width, height, x, y, float(box_iou(part, boxes.as_subclass(Tensor))[0, 0])]


def test_pictures_without_boxes_are_not_cut() -> None:
    image = tv_tensors.Image(torch.from_numpy(noise(40, 50)).permute(2, 0, 1))
    for seed in range(20):
        torch.manual_seed(seed)
        assert torch.equal(IoUCrop(1.0)(image), image)
        assert torch.equal(IoUCrop(1.0)(*inputs(noise(40, 50), torch.zeros(0, 4)))[0], image)


@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation", "hue", "order"])
def test_each_distortion_is_that_of_torchvision(kind: str) -> None:
    image, _ = inputs(noise(60, 80), torch.zeros(0, 4))
    step = Distort(1.0)
    for seed in range(10):
        torch.manual_seed(seed)
        drawn = step.make_params([image])
        key = "channel_permutation" if kind == "order" else f"{kind}_factor"
        only = {name: value if name in (key, "contrast_before") else None for name, value in drawn.items()}
        ours = step.transform(image, only).as_subclass(Tensor).float()
        theirs = v2.RandomPhotometricDistort().transform(image, only).as_subclass(Tensor).float()
        # Rounded here and cut off there: half a level apart on average. Hues of 8 bits stray further in few pixels.
        assert (ours - theirs).abs().mean() < 1
        assert (ours - theirs).abs().max() <= (12 if kind == "hue" else 2)


def test_distortions_are_drawn_as_those_of_torchvision() -> None:
    image, _ = inputs(noise(60, 80), torch.zeros(0, 4))
    seen = set()
    for seed in range(30):
        torch.manual_seed(seed)
        ours = Distort(0.5)(image).as_subclass(Tensor).float()
        torch.manual_seed(seed)
        theirs = v2.RandomPhotometricDistort(p=0.5)(image).as_subclass(Tensor).float()
        assert (ours - theirs).abs().mean() < 3  # of all changes one after the other
        seen.add(bool((ours - image).abs().mean() > 10))
    assert seen == {True, False}
    assert torch.equal(Distort(0.0)(image), image)


@given(seed=SEEDS, height=st.integers(1, 200), width=st.integers(1, 200), upscale=st.booleans())
def test_large_scale_jitter_is_a_factor_on_the_largest_that_fits(
    seed: int, height: int, width: int, upscale: bool
) -> None:
    image, boxes = inputs(noise(height, width), torch.zeros(0, 4))
    torch.manual_seed(seed)
    params = ScaleJitter((0.1, 2.0), size=(90, 120), upscale=upscale).make_params([image, boxes])
    torch.manual_seed(seed)
    factor = 0.1 + 1.9 * float(torch.rand(3)[0])
    fits = min(90 / height, 120 / width)
    scale = factor * (fits if upscale else min(fits, 1))
    assert params["canvas"] == (90, 120)
    for side, old in zip(params["size"], (height, width), strict=True):
        assert abs(side - max(old * scale, 1)) <= 0.5 + 1e-9 or side == 1


def test_large_scale_jitter_of_one_fills_its_size() -> None:
    params = ScaleJitter((1.0, 1.0), size=(90, 120)).make_params([inputs(noise(45, 60), torch.zeros(0, 4))[0]])
    assert params == {"size": (90, 120), "offset": (0, 0), "canvas": (90, 120)}
    stretched = ScaleJitter((1.0, 1.0), size=(90, 120), keep_aspect=False)
    assert stretched.make_params([inputs(noise(7, 60), torch.zeros(0, 4))[0]])["size"] == (90, 120)


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda: Expand(1.5), r"expand must be between 0 and 1, got 1\.5"),
        (lambda: Expand(0.5, largest=0.5), r"expand_max is 0\.5: must lie in 1\.\.4"),
        (lambda: Expand(0.5, largest=float("nan")), "expand_max is nan"),
        (lambda: IoUCrop(-1.0), r"iou_crop must be between 0 and 1, got -1\.0"),
        (lambda: Distort(float("nan")), r"distort must be between 0 and 1, got nan"),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], object], wanted: str) -> None:
    with pytest.raises(UserError, match=wanted):
        make()
