from __future__ import annotations

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gfocal.ops import nms_per_class


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


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 40),
    classes=st.integers(1, 4),
    threshold=st.sampled_from([0.0, 0.3, 0.6, 1.0]),
)
def test_what_survives_is_what_a_search_of_all_pairs_leaves(
    seed: int, count: int, classes: int, threshold: float
) -> None:
    boxes, scores, labels = crowd(seed, count, classes)
    kept = nms_per_class(boxes, scores, labels, iou_threshold=threshold)
    assert kept.tolist() == brute_force(boxes, scores, labels, threshold)


@given(seed=st.integers(0, 10_000), count=st.integers(0, 150), limit=st.sampled_from([1, 2, 5, 30, 1000]))
def test_a_limit_cuts_the_list_and_changes_nothing_else(seed: int, count: int, limit: int) -> None:
    boxes, scores, labels = crowd(seed, count, 2)
    everything = nms_per_class(boxes, scores, labels, iou_threshold=0.3)
    limited = nms_per_class(boxes, scores, labels, iou_threshold=0.3, limit=limit)
    assert limited.tolist() == everything[:limit].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_it_is_torchvisions_suppression_class_by_class(seed: int) -> None:
    boxes, scores, labels = crowd(seed, 300, 80)
    parts: list[Tensor] = []
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        parts.append(rows[torchvision.ops.nms(boxes[rows], scores[rows], 0.6)])
    expected = torch.cat(parts)
    expected = expected[scores[expected].argsort(descending=True)]
    assert nms_per_class(boxes, scores, labels, iou_threshold=0.6).tolist() == expected.tolist()


def test_an_overlap_equal_to_the_threshold_is_kept() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    scores, labels = torch.tensor([0.4, 0.9]), torch.zeros(2, dtype=torch.long)
    assert nms_per_class(boxes, scores, labels, iou_threshold=0.5).tolist() == [1, 0]
    assert nms_per_class(boxes, scores, labels, iou_threshold=0.49).tolist() == [1]


def test_equal_boxes_of_other_classes_all_stay_however_many_classes_there_are() -> None:
    boxes = torch.tensor([[100.0, 3000.0, 4000.0, 7999.5]]).repeat(1000, 1)
    scores = torch.linspace(1, 0.1, 1000)
    kept = nms_per_class(boxes, scores, torch.arange(1000), iou_threshold=0.6)
    assert kept.tolist() == list(range(1000))


def test_the_shift_between_classes_costs_no_precision() -> None:
    # a neighbour whose overlap differs from the threshold by less than float32 can tell at the shifted place
    base = torch.tensor([0.0, 0.0, 100.0, 100.0])
    near = torch.tensor([0.0, 0.0, 100.0, 50.0005])
    wide = torch.tensor([0.0, 0.0, 4000.0, 4000.0])
    boxes = torch.stack([wide, base, near])
    kept = nms_per_class(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 79, 79]), iou_threshold=0.5)
    assert kept.tolist() == [0, 1]


def test_no_box_leaves_none() -> None:
    kept = nms_per_class(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long), iou_threshold=0.6)
    assert kept.shape == (0,)
    assert kept.dtype == torch.long
