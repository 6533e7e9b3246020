from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfocal.boxrep import Dirac, Gaussian, General
from gfocal.builder import build_parts
from gfocal.coding import Deltas, Distances, Logarithms
from gfocal.config import Recipe, TestConfig
from gfocal.ops.nms import SUPPRESSIONS
from gfocal.postprocess import PostProcess
from gfocal.priors import Anchors
from gfocal.structures import Raw
from helpers import assert_same_detections
from raws import COUNT, NAMES, RANKINGS, SIZES, STRIDES, N, processor, random_raw, raw_of


def overlap(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union else 0.0


def decoded(code: list[list[float]], x: float, y: float, stride: float) -> list[float]:
    ltrb = [sum(i * math.exp(v) for i, v in enumerate(edge)) / sum(math.exp(v) for v in edge) for edge in code]
    return [x - stride * ltrb[0], y - stride * ltrb[1], x + stride * ltrb[2], y + stride * ltrb[3]]


def best_pairs(scores: list[list[float]], *, ranking: str, threshold: float, most: int) -> list[tuple[int, int]]:
    """Return (row, label) of what is kept of one level."""
    if ranking == "locations":
        rows = sorted(range(len(scores)), key=lambda row: -max(scores[row]))[:most]
        return [(row, label) for row in rows for label, score in enumerate(scores[row]) if score > threshold]
    pairs = [(row, label) for row in range(len(scores)) for label in range(len(scores[row]))]
    pairs = [(row, label) for row, label in pairs if scores[row][label] > threshold]
    return sorted(pairs, key=lambda pair: -scores[pair[0]][pair[1]])[:most]


def slowly(
    raw: Raw, size: tuple[int, int], *, threshold: float, nms: float, per_level: int, ranking: str, most: int
) -> list[tuple[float, int, list[float]]]:
    """Return (score, label, box) of each detection of the first picture, in plain Python."""
    found: list[tuple[float, int, list[float]]] = []
    start = 0
    for (height, width), stride in zip(SIZES, STRIDES, strict=True):
        scores = raw.scores[0, start : start + height * width].tolist()
        for row, label in best_pairs(scores, ranking=ranking, threshold=threshold, most=per_level):
            y, x = divmod(row, width)
            box = decoded(raw.box[0, start + row].tolist(), x * stride, y * stride, stride)
            limit = (size[1], size[0], size[1], size[0])
            clipped = [min(max(value, 0.0), float(most_)) for value, most_ in zip(box, limit, strict=True)]
            found.append((scores[row][label], label, clipped))
        start += height * width
    kept: list[tuple[float, int, list[float]]] = []
    for score, label, box in sorted(found, key=lambda entry: -entry[0]):
        if all(label != other or overlap(box, its) <= nms for _, other, its in kept):
            kept.append((score, label, box))
    return kept[:most]


@given(
    seed=st.integers(0, 10_000),
    threshold=st.sampled_from([0.05, 0.5, 0.9]),
    nms=st.sampled_from([0.3, 0.6]),
    per_level=st.sampled_from([3, 20, 1000]),
    ranking=st.sampled_from(RANKINGS),
    most=st.sampled_from([5, 100]),
)
def test_it_ranks_thresholds_decodes_and_suppresses_as_written_out(
    *, seed: int, threshold: float, nms: float, per_level: int, ranking: str, most: int
) -> None:
    raw = random_raw(seed)
    process = processor(
        score_threshold=threshold, nms_threshold=nms, max_per_level=per_level, ranking=ranking, max_detections=most
    )
    (found,) = process(raw, [(44, 61)])
    expected = slowly(raw, (44, 61), threshold=threshold, nms=nms, per_level=per_level, ranking=ranking, most=most)
    assert found.labels.tolist() == [label for _, label, _ in expected]
    torch.testing.assert_close(found.scores, torch.tensor([score for score, _, _ in expected]))
    boxes = torch.tensor([box for _, _, box in expected]).reshape(-1, 4)
    torch.testing.assert_close(found.boxes, boxes, rtol=1e-4, atol=1e-3)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), per_level=st.sampled_from([1, 7, 20, 1000]))
def test_with_one_class_locations_are_pairs(seed: int, per_level: int) -> None:
    raw = random_raw(seed, classes=1)
    one, other = (processor(max_per_level=per_level, ranking=ranking)(raw, [(48, 64)])[0] for ranking in RANKINGS)
    assert len(one) > 0
    assert_same_detections(one, other)


def test_pairs_of_one_location_are_ranked_apart_from_each_other() -> None:
    scores = torch.full((1, COUNT, 3), 0.01)
    scores[0, 20], scores[0, 21, 0] = torch.tensor([0.5, 0.75, 0.25]), 0.6
    raw = raw_of(scores, torch.zeros(1, COUNT, 4, N + 1))
    (by_location,) = processor(max_per_level=1, ranking="locations")(raw, [(48, 64)])
    assert by_location.scores.tolist() == [0.75, 0.5, 0.25]
    (by_pair,) = processor(max_per_level=2, ranking="pairs")(raw, [(48, 64)])
    torch.testing.assert_close(by_pair.scores, torch.tensor([0.75, 0.6]))


@pytest.mark.parametrize("nms", SUPPRESSIONS)
@given(seed=st.integers(0, 10_000), ranking=st.sampled_from(RANKINGS), quality=st.booleans())
@settings(max_examples=8)
def test_suppressing_among_the_candidates_is_the_whole_of_it(nms: str, seed: int, ranking: str, quality: bool) -> None:
    raw = random_raw(seed, pictures=2)
    raw = raw if quality else replace(raw, quality_logits=None)
    process = processor(nms=nms, ranking=ranking, max_per_level=30, max_detections=20)
    sizes, scales = [(48, 64), (30, 50)], [(1.0, 1.0), (0.5, 2.0)]
    whole = process(raw, sizes, scales=scales, threshold=0.4)
    candidates = process.candidates(raw, sizes, scales=scales, threshold=0.4)
    for found, among in zip(whole, candidates, strict=True):
        assert len(among) > len(found) > 0
        assert_same_detections(process.suppressed(among), found)


def test_candidates_are_all_that_is_over_the_threshold() -> None:
    raw = random_raw(6, pictures=2)
    for picture, found in enumerate(processor(max_detections=3).candidates(raw, [(48, 64)] * 2, threshold=0.8)):
        scores = raw.scores[picture]
        assert sorted(found.scores.tolist()) == sorted(scores[scores > 0.8].tolist())


@pytest.mark.parametrize("nms", SUPPRESSIONS)
def test_every_suppression_gives_so_many_boxes_best_first(nms: str) -> None:
    raw = random_raw(7)
    (found,) = processor(nms=nms, max_detections=15)(raw, [(48, 64)])
    assert len(found) == 15
    assert (found.scores.diff() <= 0).all()
    assert found.scores[0] == raw.scores.max()


def test_decayed_scores_are_what_is_reported() -> None:
    scores = torch.full((1, COUNT, 3), 0.01)
    scores[0, 20, 0], scores[0, 21, 0] = 0.9, 0.8
    raw = raw_of(scores, torch.zeros(1, COUNT, 4, N + 1))  # both boxes 32 pixels wide and high, 8 apart: IoU 3/5
    (found,) = processor(nms="soft_linear", nms_threshold=0.5)(raw, [(480, 640)])
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.8 * 0.4]))
    (found,) = processor(nms="soft_gaussian")(raw, [(480, 640)])
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.8 * math.exp(-2 * 0.6**2)]))


def test_a_recipes_choices_reach_it(tiny_recipe: Recipe) -> None:
    test = TestConfig(
        nms="soft_linear", nms_threshold=0.4, ranking="pairs", max_per_level=7, max_detections=9, vote_sigma=0.02
    )
    process = build_parts(tiny_recipe.model_copy(update={"test": test})).postprocess
    assert {name: getattr(process, name) for name in TestConfig.model_fields} == test.model_dump()


@pytest.mark.parametrize("ranking", RANKINGS)
def test_what_belongs_to_a_detection_stays_with_it(ranking: str) -> None:
    raw = random_raw(5)
    assert raw.quality_logits is not None
    (found,) = processor(score_threshold=0.3, ranking=ranking)(raw, [(48, 64)])
    assert found.edges is not None
    assert found.quality is not None
    assert len(found) > 20
    for score, label, quality, edges in zip(
        found.scores, found.labels.tolist(), found.quality, found.edges.probabilities, strict=True
    ):
        row = int((raw.scores[0, :, label] == score).nonzero()[0, 0])
        torch.testing.assert_close(quality, raw.quality_logits[0, row].sigmoid())
        torch.testing.assert_close(edges, raw.box[0, row].softmax(-1))
    assert found.class_names == NAMES


def test_the_mean_of_the_edges_is_the_box_before_clipping() -> None:
    (found,) = processor(score_threshold=0.2)(random_raw(1), [(40, 50)])
    assert found.edges is not None
    limit = torch.tensor([50.0, 40.0, 50.0, 40.0])
    clipped = found.edges.mean.clamp(min=0).minimum(limit)
    torch.testing.assert_close(found.boxes, clipped, rtol=1e-5, atol=1e-3)
    assert (found.edges.mean != clipped).any()


def test_scales_bring_boxes_and_edges_back_to_the_picture() -> None:
    raw = random_raw(2)
    (found,) = processor(nms_threshold=1.0)(raw, [(48, 64)])
    (small,) = processor(nms_threshold=1.0)(raw, [(48, 64)], scales=[(2.0, 0.5)])
    ratio = torch.tensor([2.0, 0.5, 2.0, 0.5])
    torch.testing.assert_close(small.boxes, found.boxes / ratio)
    torch.testing.assert_close(small.scores, found.scores)
    assert small.edges is not None
    assert found.edges is not None
    torch.testing.assert_close(small.edges.mean, found.edges.mean / ratio, rtol=1e-5, atol=1e-3)


def test_boxes_lie_on_the_picture_with_their_corners_in_order() -> None:
    sizes = [(48, 64), (17, 64), (48, 1)]
    for found, (height, width) in zip(processor()(random_raw(3, pictures=3), sizes), sizes, strict=True):
        assert len(found) > 0
        assert (found.boxes >= 0).all()
        assert (found.boxes[:, 2:] >= found.boxes[:, :2]).all()
        assert (found.boxes <= torch.tensor([width, height, width, height])).all()
        assert (found.scores.diff() <= 0).all()


def test_pictures_are_told_apart() -> None:
    raw = random_raw(4, pictures=2)
    both = processor()(raw, [(48, 64), (48, 64)])
    second = Raw(raw.scores[1:], raw.class_scores[1:], raw.box[1:], raw.class_logits[1:], None, raw.priors)
    (alone,) = processor()(second, [(48, 64)])
    assert torch.equal(both[1].boxes, alone.boxes)
    assert torch.equal(both[1].scores, alone.scores)
    assert both[1].quality is not None
    assert alone.quality is None


def test_the_threshold_itself_is_dropped_and_can_be_replaced() -> None:
    scores = torch.full((1, COUNT, 3), 0.01)
    scores[0, 0, 0], scores[0, 0, 2], scores[0, 30, 1] = 0.5, 0.25, 0.25
    raw = raw_of(scores, torch.zeros(1, COUNT, 4, N + 1))
    process = processor(score_threshold=0.25)
    assert process(raw, [(48, 64)])[0].scores.tolist() == [0.5]
    assert process(raw, [(48, 64)], threshold=0.2)[0].scores.tolist() == [0.5, 0.25, 0.25]
    assert len(process(raw, [(48, 64)], threshold=0.5)[0]) == 0


def test_one_location_may_name_several_classes() -> None:
    scores = torch.full((1, COUNT, 3), 0.01)
    scores[0, 20] = torch.tensor([0.5, 0.75, 0.25])
    (found,) = processor()(raw_of(scores, torch.zeros(1, COUNT, 4, N + 1)), [(48, 64)])
    assert found.labels.tolist() == [1, 0, 2]
    assert found.names == ["square", "circle", "star"]
    assert (found.boxes == found.boxes[0]).all()


@pytest.mark.parametrize("ranking", RANKINGS)
@pytest.mark.parametrize("nms", SUPPRESSIONS)
@pytest.mark.parametrize("quality", [False, True])
def test_nothing_over_the_threshold_is_an_empty_result(*, quality: bool, nms: str, ranking: str) -> None:
    raw = raw_of(
        torch.full((1, COUNT, 3), 0.01),
        torch.zeros(1, COUNT, 4, N + 1),
        torch.zeros(1, COUNT) if quality else None,
    )
    (found,) = processor(nms=nms, ranking=ranking)(raw, [(48, 64)])
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.edges is not None
    assert found.edges.mean.shape == (0, 4)
    assert (found.quality is not None) == quality


def test_each_picture_needs_its_scale() -> None:
    with pytest.raises(ValueError, match="zip"):
        processor()(random_raw(0, pictures=2), [(48, 64), (48, 64)], scales=[(1.0, 1.0)])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_each_picture_needs_its_size(count: int) -> None:
    with pytest.raises(ValueError, match="size"):
        processor()(random_raw(0, pictures=2), [(48, 64)] * count)


def test_results_do_not_carry_gradients() -> None:
    raw = random_raw(0)
    code = raw.box.clone().requires_grad_()
    (found,) = processor()(raw_of(raw.scores.requires_grad_(), code, raw.quality_logits), [(48, 64)])
    assert not found.boxes.requires_grad
    assert not found.scores.requires_grad
    assert found.edges is not None
    assert not found.edges.probabilities.requires_grad


# ---------------------------------------------------------------- other codings and scores


def test_ranking_goes_by_the_score_and_the_threshold_by_the_class_score() -> None:
    class_scores = torch.full((1, COUNT, 3), 0.01)
    scores = class_scores.clone()
    # class scores over the threshold, under it, and far over it; their scores rank otherwise
    class_scores[0, [5, 20, 30], 0] = torch.tensor([0.06, 0.04, 0.9])
    scores[0, [5, 20, 30], 0] = torch.tensor([0.05, 0.04, 0.02])
    raw = replace(raw_of(scores, torch.zeros(1, COUNT, 4, N + 1)), class_scores=class_scores)
    for ranking in RANKINGS:
        (found,) = processor(ranking=ranking)(raw, [(48, 64)])
        torch.testing.assert_close(found.scores, torch.tensor([0.05, 0.02]))
        (first,) = processor(ranking=ranking, max_per_level=1)(raw, [(48, 64)])
        torch.testing.assert_close(first.scores, torch.tensor([0.05]))
        assert len(processor(ranking=ranking)(raw, [(48, 64)], threshold=0.9)[0]) == 0


def test_without_a_cap_all_of_a_level_are_kept() -> None:
    raw = raw_of(torch.rand(1, COUNT, 3) * 0.5 + 0.4, torch.zeros(1, COUNT, 4, N + 1))
    counts = []
    for ranking in RANKINGS:
        process = PostProcess(
            Distances(),
            General(n=N),
            NAMES,
            max_per_level=None,
            nms_threshold=1.0,
            max_detections=1000,
            ranking=ranking,
        )
        counts.append(len(process(raw, [(1000, 1000)])[0]))
    assert counts == [3 * COUNT] * 2


@pytest.mark.parametrize("coding", [Distances(), Deltas(), Logarithms()])
@pytest.mark.parametrize("box", [Dirac(), Gaussian()])
def test_codes_without_bins_are_decoded_by_their_family(
    coding: Distances | Deltas | Logarithms, box: Dirac | Gaussian
) -> None:
    code = torch.randn(1, COUNT, 4, box.width)
    raw = raw_of(torch.rand(1, COUNT, 3), code)
    process = PostProcess(coding, box, NAMES, score_threshold=0.3, nms_threshold=1.0, max_detections=1000)
    (found,) = process(raw, [(40, 50)])
    assert (found.edges is None) == (box.width == 1 or not coding.spreads)
    decoded_boxes = coding.decode(raw.priors, code[0, ..., 0])
    last = coding.last_pixel
    limit = torch.tensor([50.0 - last, 40.0 - last] * 2)
    location, label = (raw.scores[0] > 0.3).nonzero(as_tuple=True)
    scores = raw.scores[0, location, label]
    order = scores.argsort(descending=True)
    torch.testing.assert_close(found.scores, scores[order])
    torch.testing.assert_close(found.boxes, decoded_boxes[location].clamp(min=0).minimum(limit)[order])


def test_boxes_of_foveabox_end_on_the_last_pixel() -> None:
    raw = raw_of(torch.full((1, COUNT, 3), 0.5), torch.full((1, COUNT, 4, 1), 3.0))
    for coding, last in ((Distances(), 64.0), (Logarithms(), 63.0)):
        (found,) = PostProcess(coding, Dirac(), NAMES)(raw, [(48, 64)])
        assert found.boxes[:, 2].max() == last
        assert found.boxes[:, 3].max() == last - 16


def test_several_anchors_of_a_cell_are_locations_of_their_own() -> None:
    anchors = Anchors((8,), [torch.tensor([[16.0, 16.0], [32.0, 16.0]])])
    priors = anchors([torch.zeros(1, 1, 4, 4)])
    scores = torch.full((1, 32, 1), 0.01)
    scores[0, [10, 11], 0] = torch.tensor([0.5, 0.6])  # both anchors of the cell at (8, 8)
    raw = Raw(scores, scores, torch.zeros(1, 32, 4, 1), scores.logit(), None, priors)
    (found,) = PostProcess(Deltas(), Dirac(), ("thing",), nms_threshold=0.9)(raw, [(64, 64)])
    assert found.boxes.tolist() == [[0.0, 0.0, 24.0, 16.0], [0.0, 0.0, 16.0, 16.0]]
