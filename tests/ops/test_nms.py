from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gfocal.config import TestConfig
from gfocal.ops import nms_class_agnostic, nms_per_class, soft_nms_gaussian, soft_nms_linear
from gfocal.ops.nms import SUPPRESSIONS

DECAYS: dict[str, Callable[[float, float], float]] = {
    "soft_linear": lambda iou, threshold: 1 - iou if iou > threshold else 1.0,
    "soft_gaussian": lambda iou, threshold: math.exp(-(iou**2) / 0.5),
}
NAMES = st.sampled_from(sorted(SUPPRESSIONS))
SEEDS = st.integers(0, 10_000)
THRESHOLDS = st.sampled_from([0.0, 0.3, 0.6, 1.0])
FEW = settings(max_examples=20)  # where the loop takes its time


def crowd(seed: int, count: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes that overlap a lot, distinct scores and labels."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 60 - 10
    boxes = torch.cat([corner, corner + 1 + torch.rand(count, 2, generator=generator) * 40], dim=1)
    scores = (torch.randperm(count, generator=generator) + 1) / (count + 1)
    return boxes, scores, torch.randint(0, classes, (count,), generator=generator)


def overlap(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def brute_force(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> list[int]:
    kept: list[int] = []
    rows = boxes.double().tolist()
    for i in scores.argsort(descending=True).tolist():
        if all(labels[i] != labels[j] or overlap(rows[i], rows[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def brute_force_soft(
    boxes: Tensor, scores: Tensor, labels: Tensor, decay: Callable[[float], float]
) -> list[tuple[int, float]]:
    """Return index and decayed score of each box, best first, in plain Python (Bodla et al. 2017, Fig. 2)."""
    rows, left = boxes.double().tolist(), dict(enumerate(scores.double().tolist()))
    kept: list[tuple[int, float]] = []
    while left:
        best = max(left, key=lambda i: left[i])
        kept.append((best, left.pop(best)))
        for i in left:
            if labels[i] == labels[best]:
                left[i] *= decay(overlap(rows[best], rows[i]))
    return [(i, score) for i, score in kept if score >= 0.001]


@given(seed=SEEDS, count=st.integers(1, 40), classes=st.integers(1, 4), threshold=THRESHOLDS)
def test_what_survives_is_what_a_search_of_all_pairs_leaves(
    seed: int, count: int, classes: int, threshold: float
) -> None:
    boxes, scores, labels = crowd(seed, count, classes)
    kept, _ = nms_per_class(boxes, scores, labels, iou_threshold=threshold)
    assert kept.tolist() == brute_force(boxes, scores, labels, threshold)


@given(seed=SEEDS, count=st.integers(1, 40), classes=st.integers(1, 4), threshold=THRESHOLDS)
def test_without_regard_to_classes_all_boxes_compete(seed: int, count: int, classes: int, threshold: float) -> None:
    boxes, scores, labels = crowd(seed, count, classes)
    kept, _ = nms_class_agnostic(boxes, scores, labels, iou_threshold=threshold)
    assert kept.tolist() == brute_force(boxes, scores, torch.zeros_like(labels), threshold)


@given(seed=SEEDS, count=st.integers(1, 60), threshold=THRESHOLDS)
def test_with_one_class_it_makes_no_difference_whether_classes_count(seed: int, count: int, threshold: float) -> None:
    boxes, scores, _ = crowd(seed, count, 1)
    labels = torch.full((count,), 3)
    kept, its_scores = nms_class_agnostic(boxes, scores, labels, iou_threshold=threshold)
    same, same_scores = nms_per_class(boxes, scores, labels, iou_threshold=threshold)
    assert kept.tolist() == same.tolist()
    assert torch.equal(its_scores, same_scores)


@pytest.mark.parametrize("name", DECAYS)
@FEW
@given(seed=SEEDS, count=st.integers(1, 40), classes=st.integers(1, 4), threshold=THRESHOLDS)
def test_scores_decay_as_a_loop_over_all_boxes_lets_them(
    name: str, seed: int, count: int, classes: int, threshold: float
) -> None:
    boxes, scores, labels = crowd(seed, count, classes)
    kept, decayed = SUPPRESSIONS[name](boxes, scores, labels, iou_threshold=threshold)
    expected = brute_force_soft(boxes, scores, labels, lambda iou: DECAYS[name](iou, threshold))
    assert kept.tolist() == [i for i, _ in expected]
    torch.testing.assert_close(decayed, torch.tensor([score for _, score in expected]))


def test_scores_decay_by_the_overlap_as_counted_by_hand() -> None:
    # the second and the last are halves of the first, IoU 1/2, and share nothing; the third lies apart
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 2.0], [9.0, 9.0, 10.0, 10.0], [0.0, 2.0, 4.0, 4.0]])
    scores, labels = torch.tensor([0.8, 0.6, 0.5, 0.4]), torch.zeros(4, dtype=torch.long)
    kept, decayed = soft_nms_linear(boxes, scores, labels, iou_threshold=0.3)
    assert kept.tolist() == [0, 2, 1, 3]
    torch.testing.assert_close(decayed, torch.tensor([0.8, 0.5, 0.3, 0.2]))
    kept, decayed = soft_nms_gaussian(boxes, scores, labels, iou_threshold=0.3)
    assert kept.tolist() == [0, 2, 1, 3]
    factor = math.exp(-0.5)
    torch.testing.assert_close(decayed, torch.tensor([0.8, 0.5, 0.6 * factor, 0.4 * factor]))


@FEW
@given(seed=SEEDS, count=st.integers(1, 60), classes=st.integers(1, 4))
def test_linear_decay_at_threshold_one_keeps_everything_as_it_is(seed: int, count: int, classes: int) -> None:
    boxes, scores, labels = crowd(seed, count, classes)
    boxes = torch.cat([boxes, boxes])
    scores, labels = torch.cat([scores, scores]), torch.cat([labels, labels])
    kept, decayed = soft_nms_linear(boxes, scores, labels, iou_threshold=1.0)
    assert sorted(kept.tolist()) == list(range(2 * count))
    assert torch.equal(decayed, scores[kept])
    assert torch.equal(decayed, scores.sort(descending=True).values)


@pytest.mark.parametrize("name", DECAYS)
def test_scores_that_decay_to_nothing_are_dropped(name: str) -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).repeat(3, 1)
    scores, labels = torch.tensor([0.9, 0.005, 0.0005]), torch.tensor([0, 0, 1])
    kept, decayed = SUPPRESSIONS[name](boxes, scores, labels, iou_threshold=0.5)
    assert kept.tolist() == [0]
    torch.testing.assert_close(decayed, torch.tensor([0.9]))


@FEW
@given(name=NAMES, seed=SEEDS, count=st.integers(0, 60), threshold=THRESHOLDS)
def test_what_stays_is_told_best_first_and_once(name: str, seed: int, count: int, threshold: float) -> None:
    boxes, scores, labels = crowd(seed, count, 3)
    kept, its_scores = SUPPRESSIONS[name](boxes, scores, labels, iou_threshold=threshold)
    assert kept.dtype == torch.long
    assert its_scores.dtype == scores.dtype
    assert len(set(kept.tolist())) == len(kept) == len(its_scores)
    assert (its_scores.diff() <= 0).all()
    assert (its_scores <= scores[kept]).all()
    assert name in DECAYS or torch.equal(its_scores, scores[kept])
    if count:
        assert kept[0] == scores.argmax()


@FEW
@given(name=NAMES, seed=SEEDS, count=st.integers(0, 120), limit=st.sampled_from([0, 1, 2, 5, 30, 1000]))
def test_a_limit_cuts_the_list_and_changes_nothing_else(name: str, seed: int, count: int, limit: int) -> None:
    boxes, scores, labels = crowd(seed, count, 2)
    everything, all_scores = SUPPRESSIONS[name](boxes, scores, labels, iou_threshold=0.3)
    limited, its_scores = SUPPRESSIONS[name](boxes, scores, labels, iou_threshold=0.3, limit=limit)
    assert limited.tolist() == everything[:limit].tolist()
    assert torch.equal(its_scores, all_scores[:limit])


@FEW
@given(name=NAMES.filter(lambda name: name != "agnostic"), seed=SEEDS, count=st.integers(1, 60), threshold=THRESHOLDS)
def test_classes_do_not_disturb_each_other(name: str, seed: int, count: int, threshold: float) -> None:
    boxes, scores, labels = crowd(seed, count, 4)
    kept, its_scores = SUPPRESSIONS[name](boxes, scores, labels, iou_threshold=threshold)
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        alone, scores_alone = SUPPRESSIONS[name](boxes[rows], scores[rows], labels[rows], iou_threshold=threshold)
        assert rows[alone].tolist() == kept[labels[kept] == label].tolist()
        torch.testing.assert_close(scores_alone, its_scores[labels[kept] == label])


@pytest.mark.parametrize("seed", range(5))
def test_it_is_torchvisions_suppression_class_by_class(seed: int) -> None:
    boxes, scores, labels = crowd(seed, 300, 80)
    parts: list[Tensor] = []
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        parts.append(rows[torchvision.ops.nms(boxes[rows], scores[rows], 0.6)])
    expected = torch.cat(parts)
    expected = expected[scores[expected].argsort(descending=True)]
    assert nms_per_class(boxes, scores, labels, iou_threshold=0.6)[0].tolist() == expected.tolist()


def test_an_overlap_equal_to_the_threshold_is_kept() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    scores, labels = torch.tensor([0.4, 0.9]), torch.zeros(2, dtype=torch.long)
    assert nms_per_class(boxes, scores, labels, iou_threshold=0.5)[0].tolist() == [1, 0]
    assert nms_per_class(boxes, scores, labels, iou_threshold=0.49)[0].tolist() == [1]


def test_equal_boxes_of_other_classes_all_stay_however_many_classes_there_are() -> None:
    boxes = torch.tensor([[100.0, 3000.0, 4000.0, 7999.5]]).repeat(1000, 1)
    scores = torch.linspace(1, 0.1, 1000)
    kept, _ = nms_per_class(boxes, scores, torch.arange(1000), iou_threshold=0.6)
    assert kept.tolist() == list(range(1000))


def test_the_shift_between_classes_costs_no_precision() -> None:
    # a neighbour whose overlap differs from the threshold by less than float32 can tell at the shifted place
    base = torch.tensor([0.0, 0.0, 100.0, 100.0])
    near = torch.tensor([0.0, 0.0, 100.0, 50.0005])
    wide = torch.tensor([0.0, 0.0, 4000.0, 4000.0])
    boxes = torch.stack([wide, base, near])
    kept, _ = nms_per_class(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 79, 79]), iou_threshold=0.5)
    assert kept.tolist() == [0, 1]


@pytest.mark.parametrize("name", SUPPRESSIONS)
def test_no_box_leaves_none(name: str) -> None:
    nothing = torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long)
    kept, scores = SUPPRESSIONS[name](*nothing, iou_threshold=0.6, limit=100)
    assert kept.shape == scores.shape == (0,)
    assert kept.dtype == torch.long


@pytest.mark.parametrize("name", SUPPRESSIONS)
def test_boxes_without_area_are_in_nobodys_way(name: str) -> None:
    # clipping to the picture leaves such boxes at its edge
    boxes = torch.tensor(
        [[10.0, 0.0, 10.0, 20.0], [10.0, 0.0, 10.0, 20.0], [4.0, 4.0, 4.0, 4.0], [0.0, 0.0, 10.0, 20.0]]
    )
    scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 0, 1, 0])
    kept, its_scores = SUPPRESSIONS[name](boxes, scores, labels, iou_threshold=0.6)
    assert kept.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(its_scores, scores)


def test_a_recipe_can_name_every_suppression() -> None:
    assert set(get_args(TestConfig.model_fields["nms"].annotation)) == set(SUPPRESSIONS)
