"""AP from stored matches is COCO's, also with weighted pictures; intervals of differences hold what they promise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfocal.analysis.comparison import (
    Comparison,
    Matches,
    MatchRecorder,
    _estimate,
    average_precision,
    compare,
    student_quantile,
)
from gfocal.errors import UserError
from gfocal.evaluation import CocoEvaluator
from gfocal.structures import Detections, Truth

NAMES = ("cat", "dog", "owl")
Picture = tuple[Truth, Detections]


def truth_of(boxes: Sequence[Sequence[float]], labels: Sequence[int], crowd: Sequence[bool] = ()) -> Truth:
    return Truth(
        image_id=1,
        name="picture.jpg",
        size=(400, 400),
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
        crowd=torch.tensor(crowd or [False] * len(labels), dtype=torch.bool),
    )


def found(boxes: Sequence[Sequence[float]], scores: Sequence[float], labels: Sequence[int]) -> Detections:
    rows = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Detections(rows, torch.tensor(scores), torch.tensor(labels, dtype=torch.long), NAMES)


def recorded(pictures: Sequence[Picture]) -> Matches:
    recorder = MatchRecorder(NAMES)
    for truth, detections in pictures:
        recorder.add(truth, detections)
    return recorder.matches()


def coco(pictures: Sequence[Picture]) -> float:
    evaluator = CocoEvaluator(NAMES)
    for truth, detections in pictures:
        evaluator.add(truth, detections)
    return evaluator.metrics().ap


def random_picture(rng: np.random.Generator, *, noise: float = 2.0, tied: bool = True) -> Picture:
    """Small whole-numbered boxes, so that overlaps are often equal or exactly at a threshold."""
    count, spurious = rng.integers(0, 7), rng.integers(0, 6)
    corners = rng.integers(0, 12, (count, 2))
    boxes = np.concatenate([corners, corners + rng.integers(2, 12, (count, 2))], axis=1)
    labels = rng.integers(0, 3, count)
    stray = rng.integers(0, 12, (spurious, 2))
    guesses = np.concatenate(
        [boxes, boxes, np.concatenate([stray, stray + rng.integers(2, 12, (spurious, 2))], axis=1)]
    )
    guesses = guesses + np.rint(rng.normal(0, noise / 2, guesses.shape))
    guesses[:, 2:] = np.maximum(guesses[:, 2:], guesses[:, :2] + 1)
    guessed = np.concatenate([labels, labels, rng.integers(0, 3, spurious)])
    scores = rng.integers(1, 6, len(guesses)) / 5 if tied else rng.permutation(len(guesses)) / 20 + 0.01
    crowd = (rng.random(count) < 0.2).tolist()
    return truth_of(boxes.tolist(), labels.tolist(), crowd), found(guesses.tolist(), scores.tolist(), guessed.tolist())


def two_pictures() -> list[Picture]:
    """One hit at every threshold; then a miss, and a hit of IoU 0.6 with a lower score."""
    square = [0, 0, 10, 10]
    return [
        (truth_of([square], [1]), found([square], [0.9], [1])),
        (truth_of([square], [1]), found([[50, 50, 60, 60], [0, 0, 10, 6]], [0.8, 0.7], [1, 1])),
    ]


def test_two_pictures_by_hand():
    # .50, .55 and .60: precision 1 up to recall 1/2, then 2 of 3; above, one of the two boxes is never found
    expected = (3 * (51 + 50 * 2 / 3) + 7 * 51) / 1010
    assert average_precision(recorded(two_pictures())) == pytest.approx(expected, abs=1e-12)
    assert coco(two_pictures()) == pytest.approx(expected, abs=1e-9)


def test_two_pictures_weighted_by_hand():
    # three boxes: precision 1 up to recall 1/3 (34 points), then 3 of 5 where the second is found
    matches = recorded(two_pictures())
    expected = (3 * (34 + 67 * 3 / 5) + 7 * 34) / 1010
    assert average_precision(matches, np.array([1, 2])) == pytest.approx(expected, abs=1e-12)
    assert average_precision(matches, np.array([0.5, 1.0])) == pytest.approx(expected, abs=1e-12)
    assert average_precision(matches, np.array([1, 0])) == pytest.approx(1)


def test_the_matches_of_two_pictures_by_hand():
    matches = recorded(two_pictures())
    assert matches.pictures.tolist() == [0, 1, 1]
    assert matches.labels.tolist() == [1, 1, 1]
    np.testing.assert_allclose(matches.scores, [0.9, 0.8, 0.7], rtol=1e-6)
    assert matches.hit.sum(1).tolist() == [10, 0, 3]
    assert not matches.ignored.any()
    assert matches.truths.tolist() == [[0, 1, 0], [0, 1, 0]]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_ap_equals_that_of_the_evaluator(seed: int):
    rng = np.random.default_rng(seed)
    pictures = [random_picture(rng) for _ in range(rng.integers(1, 9))]
    expected = coco(pictures)
    assert average_precision(recorded(pictures)) == pytest.approx(expected, abs=1e-9, nan_ok=True)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_a_weight_is_a_number_of_repetitions(seed: int):
    rng = np.random.default_rng(seed)
    pictures = [random_picture(rng, tied=False) for _ in range(rng.integers(1, 6))]
    weights = rng.integers(0, 4, len(pictures))
    weights[rng.integers(len(pictures))] = 2
    repeated = [picture for picture, weight in zip(pictures, weights, strict=True) for _ in range(weight)]
    ap = average_precision(recorded(pictures), weights)
    assert ap == pytest.approx(average_precision(recorded(repeated)), abs=1e-12, nan_ok=True)
    assert ap == pytest.approx(coco(repeated), abs=1e-9, nan_ok=True)


def test_equal_scores_keep_the_order_of_the_pictures():
    square, elsewhere = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]
    right = (truth_of([square], [0]), found([square], [0.5], [0]))
    wrong = (truth_of([square], [0]), found([elsewhere], [0.5], [0]))
    first, last = average_precision(recorded([right, wrong])), average_precision(recorded([wrong, right]))
    assert first == pytest.approx(51 / 101)
    assert last == pytest.approx(51 / 101 / 2)
    assert first == pytest.approx(coco([right, wrong]), abs=1e-9)
    assert last == pytest.approx(coco([wrong, right]), abs=1e-9)


def test_a_crowd_box_takes_any_number_of_detections_and_counts_neither_way():
    crowd, alone = [0.0, 0.0, 100.0, 100.0], [10.0, 10.0, 20.0, 20.0]
    truth = truth_of([crowd, alone], [0, 0], [True, False])
    inside = [[30.0, 30.0, 40.0, 40.0], [50.0, 50.0, 60.0, 60.0], [90.0, 0.0, 110.0, 10.0]]
    pictures = [(truth, found([*inside, alone], [0.9, 0.8, 0.7, 0.6], [0, 0, 0, 0]))]
    matches = recorded(pictures)
    assert matches.ignored.sum(1).tolist() == [10, 10, 1, 0], "the third lies half inside: at .50 only"
    assert matches.hit.sum(1).tolist() == [0, 0, 0, 10], "a box of its own goes before the crowd"
    assert matches.truths.tolist() == [[1, 0, 0]]
    # at nine thresholds the third is a miss before the hit
    assert average_precision(matches) == pytest.approx((1 + 9 * 0.5) / 10)
    assert coco(pictures) == pytest.approx((1 + 9 * 0.5) / 10)


def test_only_the_best_hundred_of_a_picture_and_class_count():
    square, elsewhere = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]
    for misses, kept in ((99, 1), (100, 0)):
        boxes = [elsewhere] * misses + [square]
        scores = [0.9] * misses + [0.5]
        # another class in the same picture has a hundred of its own
        pictures = [
            (truth_of([square, square], [0, 1]), found([*boxes, square], [*scores, 0.1], [0] * len(boxes) + [1]))
        ]
        matches = recorded(pictures)
        assert len(matches.scores) == 101
        assert average_precision(matches) == pytest.approx((1 + kept / 100) / 2)
        assert coco(pictures) == pytest.approx((1 + kept / 100) / 2)


def test_nothing_found_is_zero_and_nothing_to_find_is_nan():
    square = [0.0, 0.0, 10.0, 10.0]
    blind = recorded([(truth_of([square], [0]), found([], [], []))])
    assert blind.hit.shape == (0, 10)
    assert average_precision(blind) == 0
    for truth in (truth_of([], []), truth_of([square], [0], [True])):
        for detections in (found([], [], []), found([square], [0.5], [0])):
            assert math.isnan(average_precision(recorded([(truth, detections)])))
    seen = recorded([*two_pictures(), (truth_of([], []), found([], [], []))])
    assert math.isnan(average_precision(seen, np.array([0, 0, 1])))


def test_a_class_without_boxes_among_the_counted_pictures_is_left_out():
    square = [0.0, 0.0, 10.0, 10.0]
    pictures = [
        (truth_of([square], [0]), found([square], [0.5], [0])),
        (truth_of([square], [1]), found([square], [0.5], [2])),
    ]
    assert average_precision(recorded(pictures)) == pytest.approx(0.5)
    assert average_precision(recorded(pictures), np.array([3, 0])) == pytest.approx(1)


@pytest.mark.parametrize("weights", [[1], [1, -1], [1, math.nan], [[1, 1]]])
def test_weights_that_make_no_sense_are_refused(weights: list[float]):
    with pytest.raises(ValueError, match="weights must be 2 numbers from 0 up"):
        average_precision(recorded(two_pictures()), np.array(weights))


def test_a_label_without_a_class_name_is_refused():
    square = [0.0, 0.0, 10.0, 10.0]
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1"):
        MatchRecorder(NAMES[:2]).add(truth_of([square], [0]), found([square], [0.5], [2]))


def test_forty_thousand_classes_are_told_apart():
    names = tuple(map(str, range(40_000)))
    recorder, box = MatchRecorder(names), [0.0, 0.0, 10.0, 10.0]
    detections = Detections(torch.tensor([box]), torch.tensor([0.5]), torch.tensor([39_999]), names)
    recorder.add(truth_of([box], [39_999]), detections)
    assert average_precision(recorder.matches()) == pytest.approx(1)


def test_matches_come_back_from_their_file(tmp_path: Path):
    rng = np.random.default_rng(0)
    matches = recorded([random_picture(rng) for _ in range(5)])
    file = tmp_path / "deep" / "run.matches"
    matches.save(file)
    again = Matches.load(file)
    for field in fields(Matches):
        one, other = getattr(matches, field.name), getattr(again, field.name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    kinds = {"pictures": "int32", "labels": "int32", "scores": "float32", "hit": "bool", "ignored": "bool"}
    assert {name: str(getattr(again, name).dtype) for name in kinds} == kinds
    assert average_precision(again) == average_precision(matches)
    assert [path.name for path in file.parent.iterdir()] == ["run.matches"]


def test_a_file_that_is_no_file_of_matches_is_an_error_of_one_line(tmp_path: Path):
    file = tmp_path / "run.npz"
    with pytest.raises(UserError, match="there is no such file"):
        Matches.load(file)
    recorded(two_pictures()).save(file)
    whole = file.read_bytes()
    values = dict(np.load(file))

    def other(**changed: np.ndarray) -> Callable[[], None]:
        return lambda: np.savez(file, **(values | changed))

    def raw(content: bytes) -> Callable[[], int]:
        return lambda: file.write_bytes(content)

    broken = [raw(b""), raw(b"hello"), raw(whole[: len(whole) // 2]), lambda: np.savez(file, hit=np.zeros(3))]
    broken += [other(labels=values["labels"] + 7), other(pictures=values["pictures"] - 1)]
    broken += [other(hit=values["hit"][:, :5]), other(truths=np.zeros(3, np.int32))]
    for write in broken:
        write()
        with pytest.raises(UserError, match=r"run\.npz: not a whole file of matches") as caught:
            Matches.load(file)
        assert "\n" not in str(caught.value)


def run_of(seed: int, noise: float) -> Matches:
    """Return a run on forty pictures that are the same for all; its boxes are the truth, moved by `noise` pixels."""
    rng, scenes = np.random.default_rng(seed), np.random.default_rng(99)
    pictures: list[Picture] = []
    for _ in range(40):
        corners = scenes.uniform(0, 300, (4, 2))
        boxes = np.concatenate([corners, corners + scenes.uniform(20, 80, (4, 2))], axis=1)
        labels = scenes.integers(0, 3, 4).tolist()
        moved = boxes + rng.normal(0, noise, boxes.shape)
        detections = found(moved.tolist(), rng.uniform(0.1, 1, 4).tolist(), labels)
        pictures.append((truth_of(boxes.tolist(), labels), detections))
    return recorded(pictures)


def test_identical_runs_differ_by_exactly_nothing():
    runs = [run_of(seed, 3.0) for seed in range(2)]
    for count in (1, 2):
        result = compare(runs[:count], runs[:count], resamples=20)
        assert result == Comparison(0, 0, 0, 0, seeds=count, pictures=40)
        assert result.verdict(0.01) == result.verdict(-0.01) == "undecided"


def test_a_better_detector_is_told_from_a_worse_one():
    ours, baseline = ([run_of(10 * noise + seed, noise) for seed in range(3)] for noise in (2, 4))
    result = compare(ours, baseline, resamples=50)
    gains = [average_precision(one) - average_precision(two) for one, two in zip(ours, baseline, strict=True)]
    assert result.difference == pytest.approx(np.mean(gains), abs=1e-12)
    assert 0 < result.low < result.difference < result.high
    assert result.difference - result.low == pytest.approx(result.high - result.difference)
    assert result.resolution > result.high - result.difference
    assert (result.seeds, result.pictures) == (3, 40)
    assert result.verdict(0.008) == "reproduced"
    assert result.verdict(-0.008) == "refuted"
    assert result.verdict(0) == ""
    turned = compare(baseline, ours, resamples=50)
    assert turned.difference == -result.difference
    assert turned.verdict(0.008) == "refuted"
    assert compare(ours, baseline, resamples=50) == result, "the same seed draws the same pictures"
    assert compare(ours, baseline, resamples=50, level=0.5).low > result.low


def test_runs_of_one_quality_are_undecided():
    ours, baseline = ([run_of(start + seed, 3.0) for seed in range(3)] for start in (0, 50))
    result = compare(ours, baseline, resamples=50)
    assert result.low < 0 < result.high
    assert result.verdict(0.01) == "undecided"


def test_a_single_seed_speaks_of_the_pictures_only():
    ours, baseline = run_of(1, 2.0), run_of(2, 4.0)
    result = compare([ours], [baseline], resamples=100)
    assert result.seeds == 1
    rng = np.random.default_rng(5)
    draws = [np.bincount(rng.integers(40, size=40), minlength=40) for _ in range(400)]
    moved = [average_precision(ours, draw) - average_precision(baseline, draw) for draw in draws]
    error = (result.high - result.difference) / student_quantile(0.975, 39)
    assert error == pytest.approx(np.std(moved), rel=0.2)


def test_pictures_mostly_without_boxes_can_still_be_drawn():
    nothing = (truth_of([], []), found([], [], []))
    runs = recorded([two_pictures()[1], nothing]), recorded([two_pictures()[1], nothing])
    result = compare([runs[0]], [runs[1]], resamples=20)
    assert result.difference == result.low == result.high == 0


def test_what_cannot_be_compared_is_refused():
    run, other = recorded(two_pictures()), recorded(two_pictures()[:1] * 2)
    blank = recorded([(truth_of([], []), found([], [], []))] * 2)
    shorter = recorded(two_pictures()[:1])
    with pytest.raises(ValueError, match="a run for each seed, got 0"):
        compare([], [])
    with pytest.raises(ValueError, match="a run for each seed, got 2 of ours and 1"):
        compare([run, run], [run])
    with pytest.raises(ValueError, match="not evaluated on the same pictures"):
        compare([run], [shorter])
    with pytest.raises(ValueError, match="at least 2 pictures"):
        compare([shorter], [shorter])
    with pytest.raises(ValueError, match="boxes to be found"):
        compare([blank], [blank])
    with pytest.raises(ValueError, match="resamples must be at least 2"):
        compare([run], [other], resamples=1)
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        compare([run], [other], level=95)


def test_verdicts():
    above, below = Comparison(2, 1, 3, 1, seeds=3, pictures=9), Comparison(-2, -3, -1, 1, seeds=3, pictures=9)
    open_ended = Comparison(1, -1, 3, 2, seeds=3, pictures=9)
    assert [above.verdict(x) for x in (0.1, -0.1, 0, math.nan)] == ["reproduced", "refuted", "", "undecided"]
    assert [below.verdict(x) for x in (0.1, -0.1, 0)] == ["refuted", "reproduced", ""]
    assert [open_ended.verdict(x) for x in (0.1, -0.1, 0)] == ["undecided", "undecided", ""]
    assert [replace(above, seeds=1).verdict(x) for x in (0.1, 0)] == ["undecided", ""]


def test_students_quantiles_are_those_of_the_tables():
    table = {1: 12.7062, 2: 4.3027, 3: 3.1824, 7: 2.3646, 30: 2.0423, 120: 1.9799}
    for dof, expected in table.items():
        assert student_quantile(0.975, dof) == pytest.approx(expected, abs=1e-4)
    assert student_quantile(0.95, 4) == pytest.approx(2.1318, abs=1e-4)
    assert student_quantile(0.5, 4) == 0
    assert student_quantile(0.975, 10_000) == pytest.approx(1.9602, abs=1e-4)


@pytest.mark.parametrize("seeds", [1, 3, 8])
@pytest.mark.parametrize(
    ("of_seeds", "of_pictures", "of_both"),
    [(1.0, 1.0, 0.0), (3.0, 1.0, 1.0), (0.3, 0.3, 2.0), (0.0, 0.0, 1.0)],
)
def test_intervals_hold_the_truth_as_often_as_they_say(seeds: int, of_seeds: float, of_pictures: float, of_both: float):
    """The difference of a picture is a normal seed effect, a picture effect, and an effect of both together."""
    rng = np.random.default_rng(0)
    pictures, trials = 50, 300
    truth, held, told = 7.0, 0, []
    of_seeds *= seeds > 1  # a single seed does not speak of others
    for _ in range(trials):
        effects = rng.normal(0, of_both, (seeds, pictures)) + rng.normal(0, of_pictures, pictures)
        effects += truth + rng.normal(0, of_seeds / pictures**0.5, (seeds, 1))
        weights = rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=200)
        result = _estimate(effects.mean(1), weights @ effects.T / pictures, pictures=pictures, level=0.95)
        held += result.low <= truth <= result.high
        told.append((result.low - truth, result.resolution))
    low, resolution = np.array(told).T
    power = np.mean(low + np.mean(resolution**2) ** 0.5 > 0)
    assert 0.90 <= held / trials <= 0.99
    # the runs of a comparison know their spread only so well: a truth at their resolution
    assert 0.7 <= power <= 0.9
