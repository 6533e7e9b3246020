"""Pictures made of several: each box stays on what it marks, and each label with its box."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from drawn import Box, blocks, check_on_block, noise, random_boxes
from gfocal.data.mixing import LARGEST_MOSAIC, Mix, MixUp, Mosaic, Sample, mixing
from gfocal.data.resizing import fitted_size
from gfocal.data.transforms import TrainTransform
from gfocal.errors import UserError

MIXES: dict[str, Callable[[], Mix]] = {
    "mosaic": lambda: Mosaic(1.0),
    "mosaic on a canvas of one": lambda: Mosaic(1.0, canvas=1.0),
    "mixup": lambda: MixUp(1.0),
    "both": lambda: mixing(mosaic=1.0, mixup=1.0) or pytest.fail("both are on"),
}
SEEDS = st.integers(0, 2**31)
any_mix = pytest.mark.parametrize("name", MIXES)


def sample(picture: np.ndarray, boxes: Tensor, labels: Tensor | None = None) -> Sample:
    return picture, boxes, torch.arange(len(boxes)) if labels is None else labels


def black(height: int, width: int) -> Sample:
    return sample(blocks(height, width, []), torch.zeros(0, 4))


def marked(height: int, width: int, block: Box, label: int) -> Sample:
    return sample(blocks(height, width, [block]), torch.tensor([block]).float(), torch.tensor([label]))


def from_list(samples: list[Sample]) -> Callable[[], Sample]:
    rest: Iterator[Sample] = iter(samples)
    return lambda: next(rest)


def bright(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)


@any_mix
@given(seed=SEEDS, which=st.integers(0, 4))
@example(seed=225, which=3)
def test_a_box_stays_on_its_block(name: str, seed: int, which: int) -> None:
    rng = np.random.default_rng(seed)
    count = {"mixup": 2, "both": 5}.get(name, 4)
    samples = [black(*(int(side) for side in rng.integers(60, 140, 2))) for _ in range(count)]
    height, width = samples[which % count][0].shape[:2]
    x, y = int(rng.integers(0, 20)), int(rng.integers(0, 20))
    block = (x, y, x + int(rng.integers(25, 40)), y + int(rng.integers(25, 40)))
    samples[which % count] = marked(height, width, block, 7)
    torch.manual_seed(seed)
    picture, boxes, labels = MIXES[name]()(samples[0], from_list(samples[1:]))
    assert labels.tolist() == [7] * len(boxes)
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([picture.shape[1], picture.shape[0]] * 2)).all()
    if len(boxes) and (boxes[0, 2:] - boxes[0, :2]).min() >= 3:
        # of the white of a mosaic, mixup may blend a part only
        check_on_block(bright(picture), boxes[0], least=0.3 if name == "both" else 0.5)
    assert len(boxes) or name != "mixup"


@pytest.mark.parametrize("canvas", [1.0, 1.5, 2.0])
@given(seed=SEEDS)
def test_boxes_of_a_mosaic_go_back_to_their_pictures(canvas: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(4):
        height, width = (int(side) for side in rng.integers(20, 300, 2))
        boxes = random_boxes(rng, height, width, 50)
        samples.append(sample(noise(height, width), boxes, torch.arange(50) + 50 * number))
    torch.manual_seed(seed)
    picture, moved, labels = Mosaic(1.0, canvas=canvas)(samples[0], from_list(samples[1:]))
    within = samples[0][0].shape[:2]
    assert picture.shape[:2] == (int(within[0] * canvas), int(within[1] * canvas))
    assert len(set(labels.tolist())) == len(labels) == len(moved)
    limit = torch.tensor([picture.shape[1], picture.shape[0]])
    for number, (own, boxes, _) in enumerate(samples):
        size = fitted_size((own.shape[0], own.shape[1]), (within[0], within[1]))
        ratio = torch.tensor([size[1] / own.shape[1], size[0] / own.shape[0]] * 2, dtype=torch.float64)
        mine = (labels // 50 == number) & ((moved[:, :2] > 0) & (moved[:, 2:] < limit)).all(1)
        if not mine.any():
            continue
        shifts = moved[mine].double() - boxes[labels[mine] % 50].double() * ratio
        shift = shifts[0].round()  # pictures lie on whole pixels
        assert torch.equal(shift[:2], shift[2:])
        back = (moved[mine].double() - shift) / ratio
        assert torch.allclose(back, boxes[labels[mine] % 50].double(), rtol=0, atol=1e-3)


def test_a_mosaic_has_its_pictures_around_one_point() -> None:
    levels = (40, 80, 120, 160)
    samples = [sample(np.full((40, 60, 3), level, dtype=np.uint8), torch.zeros(0, 4)) for level in levels]
    points = []
    for seed in range(300):
        torch.manual_seed(seed)
        picture, _, _ = Mosaic(1.0, fill=(1, 2, 3))(samples[0], from_list(samples[1:]))
        assert picture.shape == (80, 120, 3)
        ys, xs = np.nonzero(picture[..., 0] == 160)
        y, x = int(ys.min()), int(xs.min())
        assert [int(picture[b, a, 0]) for b in (y - 1, y) for a in (x - 1, x)] == list(levels)
        assert set(np.unique(picture[..., 2])) <= {3, *levels}
        points.append((x / 120, y / 80))
    low, high = np.min(points, axis=0), np.max(points, axis=0)
    assert (np.abs(low - 0.25) < 0.02).all()
    assert (np.abs(high - 0.75) < 0.02).all()
    assert (np.abs(np.mean(points, axis=0) - 0.5) < 0.05).all()  # five deviations of the mean of 300 even draws


def test_a_mosaic_drops_boxes_whose_centres_are_cut_off() -> None:
    boxes = random_boxes(np.random.default_rng(0), 50, 70, 40)
    four = [sample(noise(50, 70), boxes) for _ in range(4)]
    for seed in range(20):
        torch.manual_seed(seed)
        _, moved, labels = Mosaic(1.0, canvas=1.0)(four[0], from_list(four[1:]))
        assert 0 < len(moved) < 160
        full = boxes[labels, 2:] - boxes[labels, :2]
        left = moved[:, 2:] - moved[:, :2]
        assert (left >= full / 2 - 1e-3).all()  # a centre inside leaves half of each side
        assert (left <= full + 1e-3).all()


def test_a_mosaic_of_large_pictures_stays_small_enough_for_memory() -> None:
    long = sample(noise(3, 5000), torch.tensor([[0.0, 0, 5000, 3], [2000, 0, 2400, 3]]))
    for seed in range(5):
        torch.manual_seed(seed)
        picture, boxes, _ = Mosaic(1.0)(long, lambda: long)
        assert max(picture.shape) <= LARGEST_MOSAIC
        assert boxes.isfinite().all()


def test_a_blend_is_half_of_each_where_both_are() -> None:
    first = sample(np.full((40, 60, 3), 200, dtype=np.uint8), torch.tensor([[1.0, 2, 3, 4]]), torch.tensor([3]))
    second = sample(np.full((50, 50, 3), 100, dtype=np.uint8), torch.tensor([[0.0, 0, 50, 50]]), torch.tensor([5]))
    places = set()
    for seed in range(40):
        torch.manual_seed(seed)
        picture, boxes, labels = MixUp(1.0)(first, lambda: second)
        assert picture.shape == (40, 60, 3)
        assert boxes[0].tolist() == [1, 2, 3, 4]
        assert labels.tolist() == [3, 5]
        x1, y1, x2, y2 = (int(edge) for edge in boxes[1])
        assert (x2 - x1, y2 - y1) == (40, 40)
        assert (picture[y1:y2, x1:x2] == 150).all()
        assert (picture == 200).sum() == (40 * 60 - 40 * 40) * 3
        places.add(x1)
    assert len(places) > 10
    assert (first[0] == 200).all()


def test_chances_and_how_many_others_are_drawn() -> None:
    calls = 0

    def other() -> Sample:
        nonlocal calls
        calls += 1
        return black(30, 30)

    plain = sample(noise(30, 40), torch.tensor([[1.0, 2, 9, 9]]))
    mosaic, mixup, both = Mosaic(0.3), MixUp(0.3), mixing(mosaic=1.0, mixup=1.0)
    counts = {"mosaic": [], "mixup": []}
    for _ in range(500):
        for name, mix in (("mosaic", mosaic), ("mixup", mixup)):
            calls = 0
            mixed = mix(plain, other)
            counts[name].append(calls)
            assert calls or mixed is plain
    for name, most in (("mosaic", 3), ("mixup", 1)):
        assert set(counts[name]) == {0, most}
        assert abs(np.mean(counts[name]) / most - 0.3) < 0.1  # five deviations of the mean of 500 draws
    calls = 0
    assert both is not None
    both(plain, other)
    assert calls == 4


@any_mix
@pytest.mark.parametrize("first", [(1, 1), (1, 4000), (4000, 1), (40, 60)])
@pytest.mark.parametrize("second", [(1, 1), (1, 4000), (4000, 1), (40, 60)])
def test_any_pictures(name: str, first: tuple[int, int], second: tuple[int, int]) -> None:
    own, others = (sample(noise(*size), torch.tensor([[0.0, 0, size[1], size[0]]])) for size in (first, second))
    for seed in range(3):
        torch.manual_seed(seed)
        picture, boxes, labels = MIXES[name]()(own, lambda: others)
        assert picture.dtype == np.uint8
        assert min(picture.shape) >= 1
        assert len(boxes) == len(labels)
        assert boxes.isfinite().all()


@any_mix
@pytest.mark.parametrize("count", [0, 3000])
def test_any_number_of_boxes(name: str, count: int) -> None:
    own = sample(noise(40, 60), random_boxes(np.random.default_rng(0), 40, 60, count))
    picture, boxes, labels = MIXES[name]()(own, lambda: own)
    assert picture.flags.c_contiguous
    assert boxes.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert len(boxes) == len(labels)
    assert (len(boxes) > 0) == (count > 0)


@any_mix
def test_the_same_seed_gives_the_same_and_samples_stay(name: str) -> None:
    def own() -> Sample:
        return sample(noise(50, 70), random_boxes(np.random.default_rng(1), 50, 70, 6))

    kept, other, results = own(), sample(noise(30, 31), torch.tensor([[3.0, 4, 20, 30]])), []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        np.random.seed(len(results))
        results.append(MIXES[name]()(kept, lambda: other))
    for left, right in zip(results[0], results[1], strict=True):
        assert np.array_equal(left, right)
    assert not np.array_equal(results[0][0], results[2][0])
    assert np.array_equal(kept[0], own()[0])
    assert torch.equal(kept[1], own()[1])


def test_nothing_to_mix_is_none() -> None:
    assert mixing(mosaic=0.0, mixup=0.0) is None
    assert mixing(mosaic=0.1, mixup=0.0) is not None
    assert mixing(mosaic=0.0, mixup=0.1) is not None


EVERYTHING = {"jitter": (0.8, 1.25), "vertical_flip": 0.5, "distort": 0.5, "expand": 0.5, "iou_crop": 0.7}


@pytest.mark.parametrize("jitter_size", [None, (110, 130)])
@given(seed=SEEDS, which=st.integers(0, 4))
def test_a_box_stays_on_its_block_through_everything(
    jitter_size: tuple[int, int] | None, seed: int, which: int
) -> None:
    samples = [black(150, 200) for _ in range(5)]
    samples[which] = marked(150, 200, (40, 30, 160, 120), 4)
    mix = mixing(mosaic=0.5, mixup=0.5)
    # The last size is small, so that it hardly enlarges what a resize before it moved by a pixel.
    transform = TrainTransform((40, 60), 120, (0.0,) * 3, (1.0,) * 3, jitter_size=jitter_size, color=0.3, **EVERYTHING)
    torch.manual_seed(seed)
    assert mix is not None
    mixed = mix(samples[0], from_list(samples[1:]))
    made = transform(*mixed)
    assert made.labels.tolist() in ([], [4])
    assert jitter_size is None or tuple(made.image.shape[1:]) == jitter_size
    _, height, width = made.image.shape
    assert (made.boxes >= 0).all()
    assert (made.boxes <= torch.tensor([width, height, width, height])).all()
    if len(made.boxes) and (made.boxes[0, 2:] - made.boxes[0, :2]).min() >= 3:
        check_on_block(made.image, made.boxes[0], least=0.3)


@given(seed=SEEDS, count=st.integers(0, 6))
def test_labels_stay_with_their_boxes_through_everything(seed: int, count: int) -> None:
    # Blocks in the cells of a grid, each of the grey level that its label tells.
    def drawn(offset: int) -> Sample:
        picture, cells = np.zeros((160, 240, 3), dtype=np.uint8), list[Box]()
        for number in range(count):
            x, y = 80 * (number % 3), 80 * (number // 3)
            cells.append((x + 8, y + 8, x + 72, y + 72))
            picture[y + 8 : y + 72, x + 8 : x + 72] = 10 * (number + offset + 1)
        labels = torch.arange(count) + offset
        return sample(picture, torch.tensor(cells, dtype=torch.float32).reshape(-1, 4), labels)

    torch.manual_seed(seed)
    transform = TrainTransform((150, 260), 400, (0.0,) * 3, (1.0,) * 3, **EVERYTHING | {"distort": 0.0})
    made = transform(*Mosaic(0.5)(drawn(0), from_list([drawn(6), drawn(12), drawn(18)])))
    assert len(made.boxes) == len(made.labels)
    for box, label in zip(made.boxes, made.labels, strict=True):
        if (box[2:] - box[:2]).min() >= 8:  # its middle is not mixed with what lies around it
            x, y = ((box[:2] + box[2:]) / 2).long().tolist()
            assert (made.image[:, y, x] == 10 * (int(label) + 1)).all()


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda: Mosaic(2.0), r"mosaic must be between 0 and 1, got 2\.0"),
        (lambda: Mosaic(0.5, canvas=3.0), r"mosaic_canvas is 3\.0: must lie in 1\.\.2"),
        (lambda: MixUp(float("nan")), r"mixup must be between 0 and 1, got nan"),
        (lambda: mixing(mosaic=0.0, mixup=-0.5), r"mixup must be between 0 and 1, got -0\.5"),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], object], wanted: str) -> None:
    with pytest.raises(UserError, match=wanted):
        make()
