"""Matching detections to annotated boxes: COCO's rules, at one threshold."""

from __future__ import annotations

import pytest
import torch

from gfocal import Detections, EdgeDistributions
from gfocal.analysis.comparison import MatchRecorder
from gfocal.analysis.matching import match, matched_edges
from gfocal.structures import Truth

NAMES = ("a", "b")


def truth(boxes: list[list[float]], labels: list[int], crowd: list[bool] | None = None) -> Truth:
    flags = crowd or [False] * len(labels)
    return Truth(
        1,
        "1.png",
        (100, 100),
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.long),
        torch.tensor(flags, dtype=torch.bool),
    )


def detections(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores),
        torch.tensor(labels, dtype=torch.long),
        NAMES,
    )


def test_the_best_score_takes_the_box_and_the_next_takes_what_is_left() -> None:
    found = detections([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8]], [0.5, 0.9, 0.4], [0, 0, 0])
    two = truth([[0, 0, 10, 10], [0, 0, 10, 7]], [0, 0])
    matched = match(found, two)
    assert matched.truth.tolist() == [1, 0, -1]
    assert matched.iou.tolist() == pytest.approx([0.7, 0.9, 0])


def test_equal_overlaps_go_to_the_last_box_as_in_coco() -> None:
    same = truth([[0, 0, 10, 10]] * 2, [0, 0])
    assert match(detections([[0, 0, 10, 10]], [0.5], [0]), same).truth.tolist() == [1]


def test_a_class_matches_its_own_unless_told_otherwise() -> None:
    found, other = detections([[0, 0, 10, 10]], [0.5], [1]), truth([[0, 0, 10, 10]], [0])
    assert match(found, other).truth.tolist() == [-1]
    assert match(found, other, same_class=False).truth.tolist() == [0]


def test_a_crowd_is_never_taken_and_what_lies_in_it_counts_neither_way() -> None:
    crowd = truth([[0, 0, 50, 50]], [0], [True])
    found = detections([[0, 0, 10, 10], [10, 10, 20, 20], [60, 60, 70, 70]], [0.9, 0.8, 0.7], [0, 0, 0])
    matched = match(found, crowd)
    assert matched.truth.tolist() == [-1, -1, -1]
    assert matched.ignored.tolist() == [True, True, False]
    assert matched_edges([(crowd, found)]).outcomes.scores.tolist() == pytest.approx([0.7])


def test_empty_pictures_and_boxes_without_area_match_nothing() -> None:
    none = truth([], [])
    assert match(detections([], [], []), none).truth.tolist() == []
    assert match(detections([[5, 5, 5, 5]], [0.5], [0]), none).truth.tolist() == [-1]
    assert match(detections([[5, 5, 5, 5]], [0.5], [0]), truth([[5, 5, 5, 5]], [0])).truth.tolist() == [-1]
    with pytest.raises(ValueError, match="iou must lie above 0"):
        match(detections([], [], []), none, iou=0)
    with pytest.raises(ValueError, match="at least one picture"):
        matched_edges([])


@pytest.mark.parametrize("level", [0, 5])
def test_the_same_are_hit_and_ignored_as_in_average_precision(level: int) -> None:
    dice = torch.Generator().manual_seed(level)
    corner, side = 60 * torch.rand(30, 2, generator=dice), 5 + 30 * torch.rand(30, 2, generator=dice)
    boxes = torch.cat([corner, corner + side], 1)
    labels = torch.randint(2, (30,), generator=dice)
    known = truth(boxes[:12].tolist(), labels[:12].tolist(), [row % 5 == 4 for row in range(12)])
    jitter = boxes.repeat(2, 1) + 3 * torch.randn(60, 4, generator=dice)
    jitter[:, 2:] = torch.maximum(jitter[:, 2:], jitter[:, :2] + 1)
    found = detections(jitter.tolist(), torch.rand(60, generator=dice).tolist(), labels.repeat(2).tolist())
    recorder = MatchRecorder(NAMES)
    recorder.add(known, found)
    expected = recorder.matches()
    matched = match(found, known, iou=0.5 + 0.05 * level)
    hits = {round(score, 5) for score in found.scores[matched.truth >= 0].tolist()}
    assert hits == {round(float(score), 5) for score in expected.scores[expected.hit[:, level]]}
    crowd = {round(score, 5) for score in found.scores[matched.ignored].tolist()}
    assert crowd == {round(float(score), 5) for score in expected.scores[expected.ignored[:, level]]}


def test_rows_stay_aligned_over_pictures_and_under_selection() -> None:
    box = [[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0]]
    edges = EdgeDistributions(torch.rand(2, 4, 3).softmax(-1), torch.arange(3.0).expand(2, 4, 3))
    found = detections(box, [0.5, 0.9], [0, 1])
    found = Detections(found.boxes, found.scores, found.labels, NAMES, edges=edges, levels=torch.tensor([2, 1]))
    matched = matched_edges([(truth(box, [0, 1]), found), (truth([], []), found[:0]), (truth(box[:1], [0]), found)])
    assert matched.pictures.tolist() == [0, 0, 2]
    assert matched.labels.tolist() == [0, 1, 0]
    assert matched.levels.tolist() == [2, 1, 2]
    assert matched.edges is not None
    torch.testing.assert_close(matched.edges.probabilities, edges.probabilities[[0, 1, 0]])
    assert matched.outcomes.correct.tolist() == [True, True, True, False]
    assert (matched.num_pictures, matched.num_truths) == (3, 3)
    assert matched.softness.isnan().all()
    last = matched.of_pictures(torch.tensor([False, False, True]))
    assert (len(last), last.outcomes.correct.tolist()) == (1, [True, False])
    assert matched[matched.levels == 1].truths.tolist() == [box[1]]
    with pytest.raises(ValueError, match="only 1 of 2 pictures"):
        matched_edges([(truth(box, [0, 1]), found), (truth(box, [0, 1]), detections(box, [0.5, 0.9], [0, 1]))])
