"""COCO metrics equal those of pycocotools, and say what is missing."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gfocal.evaluation import STAT_NAMES, CocoEvaluator
from gfocal.structures import Detections, Truth

NAMES = ("cat", "dog", "owl")


def picture(rng, count, *, crowds=0):
    sides = rng.uniform(5, 150, (count, 2))
    corner = rng.uniform(0, 200, (count, 2))
    boxes = torch.from_numpy(np.concatenate([corner, corner + sides], 1).astype(np.float32))
    labels = torch.from_numpy(rng.integers(0, 3, count))
    truth = Truth(
        image_id=int(rng.integers(1, 10**6)),
        name="picture.jpg",
        size=(400, 400),
        boxes=boxes,
        labels=labels,
        crowd=torch.arange(count) < crowds,
        areas=torch.from_numpy((sides.prod(1) * rng.uniform(0.4, 1, count)).astype(np.float32)),
    )
    noisy = boxes.repeat(2, 1) + torch.from_numpy(rng.normal(0, 6, (2 * count, 4)).astype(np.float32))
    noisy[:, 2:] = torch.maximum(noisy[:, 2:], noisy[:, :2] + 1)
    guess = torch.where(torch.rand(2 * count) < 0.8, labels.repeat(2), torch.randint(0, 3, (2 * count,)))
    scores = torch.from_numpy(rng.uniform(0.05, 1, 2 * count).astype(np.float32))
    return truth, Detections(noisy, scores, guess, NAMES)


def reference(pairs):
    images, annotations, results = [], [], []
    for index, (truth, found) in enumerate(pairs, start=1):
        images.append({"id": index, "height": 400, "width": 400})
        for box, label, crowd, area in zip(truth.boxes, truth.labels, truth.crowd, truth.areas, strict=True):
            x1, y1, x2, y2 = box.double().tolist()
            row = {"id": len(annotations) + 1, "image_id": index, "category_id": int(label) + 1}
            annotations.append(row | {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": float(area), "iscrowd": int(crowd)})
        for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
            x1, y1, x2, y2 = box.double().tolist()
            row = {"image_id": index, "category_id": int(label) + 1, "score": float(score)}
            results.append(row | {"bbox": [x1, y1, x2 - x1, y2 - y1]})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        categories = [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]
        coco.dataset = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
        coco.createIndex()
        score = COCOeval(coco, coco.loadRes(results), "bbox")
        score.evaluate()
        score.accumulate()
        score.summarize()
    return score.stats


def test_the_twelve_figures_equal_those_of_pycocotools():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    pairs = [picture(rng, count, crowds=count // 4) for count in (3, 0, 9, 14, 1)]
    evaluator = CocoEvaluator(NAMES)
    for truth, found in pairs:
        evaluator.add(truth, found)
    metrics = evaluator.metrics()
    ours = [getattr(metrics, name) for name in STAT_NAMES]
    np.testing.assert_allclose(ours, reference(pairs), atol=1e-9)
    assert 0.05 < metrics.ap < 0.95
    assert metrics.ap == pytest.approx(np.mean([row.ap for row in metrics.classes]), abs=1e-9)
    assert metrics.num_pictures == 5
    assert metrics.num_boxes == sum(row.boxes for row in metrics.classes) == 27 - sum(c // 4 for c in (3, 0, 9, 14, 1))


def nothing_found():
    return Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long), NAMES)


def test_perfect_boxes_score_one_and_none_score_zero():
    rng = np.random.default_rng(1)
    truth, _ = picture(rng, 6)
    perfect = CocoEvaluator(NAMES)
    perfect.add(truth, Detections(truth.boxes, torch.ones(6), truth.labels, NAMES))
    assert perfect.metrics().ap == pytest.approx(1)
    blind = CocoEvaluator(NAMES)
    blind.add(truth, nothing_found())
    assert blind.metrics().ap == blind.metrics().ar100 == 0


def test_no_box_anywhere_is_nan_not_an_error():
    rng = np.random.default_rng(2)
    truth, _ = picture(rng, 0)
    evaluator = CocoEvaluator(NAMES)
    evaluator.add(truth, nothing_found())
    metrics = evaluator.metrics()
    assert math.isnan(metrics.ap)
    assert metrics.to_dict()["ap"] is None
    json.dumps(metrics.to_dict(), allow_nan=False)
    assert "–" in metrics.table()


def test_nothing_found_scores_zero_just_where_a_wrong_box_would():
    """Large boxes and one on the bound of medium ones; of the last class, crowd boxes alone."""
    boxes = torch.tensor([[0.0, 0, 96, 96], [0, 0, 200, 200], [200, 200, 210, 210], [0, 0, 150, 150]])
    truth = Truth(
        image_id=1,
        name="picture.jpg",
        size=(400, 400),
        boxes=boxes,
        labels=torch.tensor([0, 1, 2, 0]),
        crowd=torch.tensor([False, False, True, False]),
    )
    wrong = Detections(torch.tensor([[300.0, 0, 399, 9]]), torch.ones(1), torch.zeros(1, dtype=torch.long), NAMES)
    figures = []
    for found in (nothing_found(), wrong):
        evaluator = CocoEvaluator(NAMES)
        evaluator.add(truth, found)
        figures.append(evaluator.metrics().to_dict())
    assert figures[0] == figures[1]
    assert (figures[0]["ap_small"], figures[0]["ap_medium"], figures[0]["classes"][2]["ap"]) == (None, 0, None)
    assert {type(value) for value in figures[1].values()} <= {float, int, tuple, list, type(None)}


def test_a_class_without_boxes_is_nan_in_the_table_and_not_in_the_mean():
    rng = np.random.default_rng(3)
    truth, _ = picture(rng, 6)
    evaluator = CocoEvaluator((*NAMES, "yak"))
    evaluator.add(truth, Detections(truth.boxes, torch.ones(6), truth.labels, (*NAMES, "yak")))
    metrics = evaluator.metrics()
    assert math.isnan(metrics.classes[3].ap)
    assert metrics.ap == pytest.approx(1)
    lines = metrics.table().splitlines()
    assert lines[0] == "1 pictures, 6 boxes"
    assert lines[1].split()[:2] == ["AP", "100.0"]
    assert lines[-1].split() == ["yak", "0", "–", "–"]
