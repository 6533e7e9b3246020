"""Detections of several views are mirrored, put in one row and mixed without losing what belongs together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gfocal.errors import UserError
from gfocal.structures import Detections, EdgeDistributions
from gfocal.tta import SAME_OBJECT_IOU, fuse_distributions, merged, mirror, mixtures
from helpers import assert_same_detections

NAMES = ("circle", "square", "star")
SEEDS = st.integers(0, 10_000)
HEIGHT, WIDTH = 64, 96


def random_edges(seed: int, count: int, bins: int, dtype: torch.dtype = torch.float32) -> EdgeDistributions:
    """Return distributions of any place and step, left and top descending with the bin."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, 4, bins, generator=generator, dtype=dtype)
    start = 400 * torch.rand(count, 4, 1, generator=generator, dtype=dtype)
    step = 0.5 + 40 * torch.rand(count, 4, 1, generator=generator, dtype=dtype)
    positions = start + step * torch.arange(bins) * torch.tensor([-1, -1, 1, 1])[:, None]
    return EdgeDistributions(logits.softmax(-1), positions)


def edges_around(boxes: Tensor, spread: float = 1.0) -> EdgeDistributions:
    """Return distributions over five bins `spread` pixels apart, of variance 1.2 · spread², with means at the boxes."""
    offsets = torch.arange(-2.0, 3.0) * torch.tensor([-1, -1, 1, 1])[:, None] * spread
    probabilities = torch.tensor([0.1, 0.2, 0.4, 0.2, 0.1]).expand(len(boxes), 4, 5)
    return EdgeDistributions(probabilities, boxes[..., None] + offsets)


def square(left: float, *, label: int = 0, score: float = 0.5, quality: float = 0.5, spread: float = 1.0) -> Detections:
    """Return one box of 20 pixels a side."""
    box = torch.tensor([[left, 10.0, left + 20, 30.0]])
    rows = torch.tensor([score]), torch.tensor([label])
    return Detections(box, *rows, NAMES, torch.tensor([quality]), edges_around(box, spread))


def random_detections(seed: int, count: int = 8, *, bare: bool = False) -> Detections:
    generator = torch.Generator().manual_seed(seed)
    edges = random_edges(seed, count, 9)
    labels = torch.randint(0, len(NAMES), (count,), generator=generator)
    scores, quality = torch.rand(2, count, generator=generator)
    found = Detections(edges.mean, scores, labels, NAMES, quality, edges)
    return replace(found, quality=None, edges=None) if bare else found


# ---------------------------------------------------------------- mirror


@settings(max_examples=20)
@given(seed=SEEDS, count=st.integers(0, 6), bare=st.booleans(), width=st.sampled_from([1, 333, 640.0]))
def test_mirroring_twice_changes_nothing(seed: int, count: int, bare: bool, width: float) -> None:
    found = random_detections(seed, count, bare=bare)
    assert_same_detections(mirror(mirror(found, width), width), found, pixels=1e-3)


@given(seed=SEEDS)
def test_a_mirrored_box_is_as_far_from_the_other_side(seed: int) -> None:
    found = random_detections(seed)
    there = mirror(found, 640)
    torch.testing.assert_close(there.boxes[:, 0], 640 - found.boxes[:, 2])
    torch.testing.assert_close(there.boxes[:, 2], 640 - found.boxes[:, 0])
    assert torch.equal(there.boxes[:, [1, 3]], found.boxes[:, [1, 3]])
    assert there.edges is not None
    assert found.edges is not None
    torch.testing.assert_close(there.edges.mean, there.boxes, rtol=0, atol=1e-3)
    torch.testing.assert_close(there.edges.std, found.edges.std[:, [2, 1, 0, 3]], rtol=1e-3, atol=1e-3)
    assert torch.equal(there.scores, found.scores)
    assert torch.equal(there.labels, found.labels)
    assert there.edges.positions[:, :2].diff().le(0).all()  # left and top descend with the bin, as before
    assert there.edges.positions[:, 2:].diff().ge(0).all()


# ---------------------------------------------------------------- merged


@settings(max_examples=20)
@given(seed=SEEDS, counts=st.lists(st.integers(0, 5), min_size=1, max_size=4), bare=st.booleans())
def test_rows_of_all_views_stay_whole(seed: int, counts: list[int], bare: bool) -> None:
    views = [random_detections(seed + place, count, bare=bare) for place, count in enumerate(counts)]
    together = merged(views)
    assert len(together) == sum(counts)
    rows = [row for view in views for row in view]
    for one, other in zip(together, rows, strict=True):
        assert_same_detections(one, other)
    assert (together.quality is None) == (together.edges is None) == bare


# ---------------------------------------------------------------- mixtures


@given(
    seed=SEEDS,
    parts=st.integers(1, 10),
    count=st.integers(1, 4),
    bins=st.integers(2, 33),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_a_mixture_has_the_mean_and_spread_of_its_parts(
    *, seed: int, parts: int, count: int, bins: int, dtype: torch.dtype
) -> None:
    edges = random_edges(seed, count * parts, bins, dtype)
    generator = torch.Generator().manual_seed(seed)
    row = (torch.arange(count * parts) % count)[torch.randperm(count * parts, generator=generator)]
    weight = torch.rand(count * parts, 4, generator=generator, dtype=dtype) + 0.01
    mixed = mixtures(edges, row, weight, count=count)
    assert len(mixed) == count
    assert mixed.probabilities.dtype == mixed.positions.dtype == dtype
    assert (mixed.probabilities >= 0).all()
    torch.testing.assert_close(mixed.probabilities.sum(-1), torch.ones(count, 4, dtype=dtype))
    close = {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-3}
    for index in range(count):
        mine = row == index
        share = weight[mine] / weight[mine].sum(0)
        mean = (share * edges.mean[mine]).sum(0)
        torch.testing.assert_close(mixed.mean[index], mean, **close)
        low, high = edges.positions[mine].amin((0, 2)), edges.positions[mine].amax((0, 2))
        step = (high - low) / (bins - 1)
        even = low[:, None] + step[:, None] * torch.arange(bins)
        # one mixed edge runs as its parts do: where these run either way, either way is right
        torch.testing.assert_close(mixed.positions[index].sort(-1).values, even, **close)
        # moving mass to the two bins around it adds at most a quarter of a step squared
        variance = (share * (edges.std[mine].square() + (edges.mean[mine] - mean).square())).sum(0)
        slack = 1e-3 * variance + 1e-3
        assert (mixed.std[index].square() >= variance - slack).all()
        assert (mixed.std[index].square() <= variance + step.square() / 4 + slack).all()
        assert (mixed.std[index] >= edges.std[mine].amin(0) * (1 - 1e-3) - 1e-3).all()


@given(seed=SEEDS, copies=st.integers(1, 5), bins=st.integers(2, 33))
def test_a_mixture_of_equal_parts_is_that_part(seed: int, copies: int, bins: int) -> None:
    edges = random_edges(seed, 3, bins)
    row = torch.arange(3).repeat(copies)
    weight = torch.rand(3 * copies, 4, generator=torch.Generator().manual_seed(seed)) + 0.01
    every = torch.arange(3).repeat(copies)
    mixed = mixtures(edges[every], row, weight, count=3)
    torch.testing.assert_close(mixed.mean, edges.mean, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(mixed.std, edges.std, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(mixed.positions, edges.positions, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(mixed.probabilities, edges.probabilities, rtol=1e-2, atol=1e-3)
    assert (mixed.entropy >= 0).all()


@given(seed=SEEDS, bins=st.integers(2, 33), bin_=st.integers(-2, 1))
def test_an_edge_without_doubt_stays_so(seed: int, bins: int, bin_: int) -> None:
    places = random_edges(seed, 20, bins).positions
    edges = EdgeDistributions(torch.eye(bins)[bin_].expand_as(places), places)
    mixed = mixtures(edges, torch.arange(20), torch.ones(20, 4), count=20)
    assert (mixed.probabilities >= 0).all()  # though rounding may put the last bin behind the end
    torch.testing.assert_close(mixed.mean, edges.mean, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(mixed.entropy, torch.zeros(20, 4), rtol=0, atol=1e-3)


# ---------------------------------------------------------------- fuse_distributions


def test_an_edge_is_the_mean_over_the_views_weighted_by_quality_over_variance() -> None:
    first = merged([square(10, score=0.9, quality=0.5), square(60, score=0.8)])
    other = merged(
        [
            square(12, score=0.6, quality=0.1),  # of the same object, but not the best
            square(11, score=0.7, quality=0.4, spread=2),
            square(13, score=0.8, label=1),
        ]
    )
    survivors = first[torch.tensor([1, 0])]
    fused = fuse_distributions(survivors, [first, other], size=(HEIGHT, WIDTH))
    weights = 0.5 / (1.2 + 1 / 12), 0.4 / (4 * 1.2 + 4 / 12)
    left = (10 * weights[0] + 11 * weights[1]) / sum(weights)
    expected = torch.tensor([[60.0, 10.0, 80.0, 30.0], [left, 10.0, left + 20, 30.0]])
    torch.testing.assert_close(fused.boxes, expected)
    assert fused.edges is not None
    torch.testing.assert_close(fused.edges.mean, expected)
    assert torch.equal(fused.scores, survivors.scores)
    assert torch.equal(fused.labels, survivors.labels)
    assert torch.equal(fused.quality, survivors.quality)

    views = [replace(view, quality=None) for view in (first, other)]
    by_score = fuse_distributions(replace(survivors, quality=None), views, size=(HEIGHT, WIDTH))
    weights = 0.9 / (1.2 + 1 / 12), 0.7 / (4 * 1.2 + 4 / 12)
    left = (10 * weights[0] + 11 * weights[1]) / sum(weights)
    torch.testing.assert_close(by_score.boxes[1], torch.tensor([left, 10.0, left + 20, 30.0]))


def test_each_edge_is_weighted_by_itself() -> None:
    one, other = square(10), square(12)
    assert one.edges is not None
    sharp = edges_around(one.boxes, 0.25).positions[:, 2]
    positions = torch.stack([*one.edges.positions.unbind(1)[:2], sharp, one.edges.positions[:, 3]], dim=1)
    one = replace(one, edges=EdgeDistributions(one.edges.probabilities, positions))
    fused = fuse_distributions(one, [one, other], size=(HEIGHT, WIDTH))
    torch.testing.assert_close(fused.boxes, torch.tensor([[11.0, 10.0, 30 + 2 / 17, 30.0]]))


def test_a_box_that_overlaps_less_than_the_limit_has_no_say() -> None:
    shift = 20 * (1 - SAME_OBJECT_IOU) / (1 + SAME_OBJECT_IOU)  # of two squares of 20 pixels: the IoU is the limit
    for off, joins in ((shift + 0.01, False), (shift - 0.01, True)):
        views = [square(10), square(10 + off)]
        fused = fuse_distributions(views[0], views, size=(HEIGHT, WIDTH))
        assert bool(fused.boxes[0, 0] > 10.5) == joins


@settings(max_examples=20)
@given(seed=SEEDS, views=st.integers(1, 4), bare=st.booleans())
def test_fused_boxes_are_the_means_inside_the_picture(seed: int, views: int, bare: bool) -> None:
    limit = torch.tensor([300.0, 200.0, 300.0, 200.0])
    found = [random_detections(seed + view, 12) for view in range(views)]
    found = [replace(view, boxes=view.boxes.clamp(min=0).minimum(limit)) for view in found]
    found = [replace(view, quality=None) for view in found] if bare else found
    survivors = merged(found)[torch.arange(0, 12 * views, 3)]
    fused = fuse_distributions(survivors, found, size=(200, 300))
    assert fused.edges is not None
    assert (fused.edges.probabilities >= 0).all()
    torch.testing.assert_close(fused.edges.probabilities.sum(-1), torch.ones(len(survivors), 4))
    torch.testing.assert_close(fused.boxes, fused.edges.mean.clamp(min=0).minimum(limit))
    assert torch.equal(fused.scores, survivors.scores)


def test_views_that_agree_leave_a_distribution_as_it_is() -> None:
    found = square(10)
    fused = fuse_distributions(found, [found, found[:0], found], size=(HEIGHT, WIDTH))
    assert fused.edges is not None
    assert found.edges is not None
    torch.testing.assert_close(fused.boxes, found.boxes)
    torch.testing.assert_close(fused.edges.std, found.edges.std)


def test_a_box_without_area_keeps_its_own_edges() -> None:
    flat = torch.tensor([[WIDTH, 3.0, WIDTH, 20.0]])
    flat = replace(square(0, score=0.9), boxes=flat, edges=edges_around(flat))
    views = [merged([flat, square(10)]), square(11)]
    fused = fuse_distributions(views[0], views, size=(HEIGHT, WIDTH))
    assert fused.edges is not None
    assert flat.edges is not None
    torch.testing.assert_close(fused.boxes[:1], flat.boxes)
    torch.testing.assert_close(fused.edges.std[:1], flat.edges.std)
    torch.testing.assert_close(fused.boxes[1, 0], torch.tensor(10.5))


def test_a_quality_of_zero_is_no_division_by_zero() -> None:
    views = [square(10, quality=0.0), square(11, quality=0.0)]
    fused = fuse_distributions(views[0], views, size=(HEIGHT, WIDTH))
    torch.testing.assert_close(fused.boxes, torch.tensor([[10.5, 10.0, 30.5, 30.0]]))


def test_an_edge_without_spread_is_no_division_by_zero() -> None:
    sure = square(10)
    assert sure.edges is not None
    certain = torch.eye(5)[2].expand(1, 4, 5)
    sure = replace(sure, edges=EdgeDistributions(certain, sure.edges.positions))
    fused = fuse_distributions(sure, [sure, sure], size=(HEIGHT, WIDTH))
    torch.testing.assert_close(fused.boxes, sure.boxes)


def test_nothing_fused_is_nothing() -> None:
    nothing = square(10)[:0]
    for views in ([nothing], [nothing, nothing], [square(10), nothing]):
        fused = fuse_distributions(nothing, views, size=(HEIGHT, WIDTH))
        assert len(fused) == 0
        assert fused.edges is not None


@pytest.mark.parametrize("count", [0, 3])
def test_boxes_without_distributions_cannot_be_fused(count: int) -> None:
    found = random_detections(0, count, bare=True)
    with pytest.raises(UserError, match="cannot be fused"):
        fuse_distributions(found, [found, found], size=(HEIGHT, WIDTH))
