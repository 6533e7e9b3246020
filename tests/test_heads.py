"""Arrays of anybody's head: what is decoded from them, and how a broken file is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gfocal.errors import UserError
from gfocal.evaluation import CocoEvaluator
from gfocal.heads import HeadOutputs, level_strides, open_heads
from real_heads import ANNOTATIONS, HEADS, needs_real_heads


def arrays(rows: int = 4) -> dict[str, np.ndarray]:
    dice = np.random.default_rng(0)
    return {
        "image_id": np.array([1, 1, 2, 2])[:rows],
        "scores": dice.uniform(0.1, 0.9, (rows, 2)).astype(np.float16),
        "logits": dice.normal(size=(rows, 4, 8)).astype(np.float16),
        "points": dice.uniform(20, 60, (rows, 2)).astype(np.float32),
        "stride": np.array([8, 16, 8, 16], np.float32)[:rows],
    }


def saved(folder: Path, **changed: np.ndarray | None) -> Path:
    held = {name: value for name, value in (arrays() | changed).items() if value is not None}
    np.savez(folder / "heads.npz", **held)
    return folder / "heads.npz"


def annotations(folder: Path, ids: tuple[int, ...] = (1, 2), classes: int = 2) -> Path:
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 80} for i in ids],
        "annotations": [],
        "categories": [{"id": 7 + c, "name": f"class {c}"} for c in range(classes)],
    }
    (folder / "val.json").write_text(json.dumps(content))
    return folder / "val.json"


def test_an_edge_lies_at_the_point_plus_stride_times_the_expected_bin() -> None:
    logits = torch.full((1, 4, 4), -50.0)
    for edge, place in enumerate((1, 2, 3, 0)):
        logits[0, edge, place] = 50
    heads = HeadOutputs(
        torch.tensor([5]), torch.tensor([[0.7]]), logits, torch.tensor([[40.0, 30.0]]), torch.tensor([10.0])
    )
    found = heads.detections(5, ("thing",))
    assert found.boxes.tolist() == [[30, 10, 70, 30]]
    assert found.edges is not None
    torch.testing.assert_close(found.edges.mean, found.boxes)
    assert heads.detections(5, ("thing",), size=(25, 50)).boxes.tolist() == [[30, 10, 50, 25]]
    assert len(heads.detections(6, ("thing",))) == 0


def test_each_class_above_the_threshold_is_a_candidate_best_first() -> None:
    heads = HeadOutputs(
        torch.tensor([1]), torch.tensor([[0.2, 0.05, 0.6]]), torch.zeros(1, 4, 8), torch.zeros(1, 2), torch.ones(1)
    )
    found = heads.candidates(1, ("a", "b", "c"))
    assert found.labels.tolist() == [2, 0]
    assert found.scores.tolist() == pytest.approx([0.6, 0.2])


def test_levels_follow_the_strides_of_the_network_even_where_a_picture_lacks_one(tmp_path: Path) -> None:
    # two pictures of one network: the second is half as long, and has nothing on the finest level
    heads = HeadOutputs(
        torch.tensor([1, 1, 1, 2, 2]),
        torch.full((5, 1), 0.5),
        torch.zeros(5, 4, 8),
        torch.zeros(5, 2),
        torch.tensor([12.0, 24, 48, 12, 24]),
    )
    strides = level_strides(heads, {1: (400, 640), 2: (200, 320)})
    assert strides[1].tolist() == [12, 24, 48]
    assert strides[2].tolist() == pytest.approx([6, 12, 24])
    found = heads.candidates(2, ("thing",), strides=strides[2])
    assert found.levels is not None
    assert found.levels.tolist() == [1, 2]


def test_every_picture_of_the_annotations_comes_with_or_without_rows(tmp_path: Path) -> None:
    opened = open_heads(saved(tmp_path), annotations(tmp_path, ids=(1, 2, 3)))
    assert len(opened) == 3
    assert [(truth.image_id, len(found) > 0) for truth, found in opened] == [(1, True), (2, True), (3, False)]
    assert opened.class_names == ("class 0", "class 1")


def test_a_file_without_rows_is_a_detector_that_finds_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path, **{name: value[:0] for name, value in arrays().items()})
    assert [len(found) for _, found in open_heads(path, annotations(tmp_path))] == [0, 0]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"logits": None}, "the array logits is missing"),
        ({"logits": np.zeros((4, 32))}, "logits has shape (4, 32)"),
        ({"logits": np.zeros((4, 4, 1))}, "two bins or more"),
        ({"points": np.zeros((4, 3))}, "points has shape (4, 3)"),
        ({"scores": np.zeros((4, 0))}, "scores has shape (4, 0)"),
        ({"stride": np.array([8.0, np.nan, 8, 8])}, "stride is not finite in row 1"),
        ({"logits": np.full((4, 4, 8), np.inf)}, "logits is not finite in row 0"),
        ({"stride": np.array([8.0, 0, 8, 8])}, "stride holds 0"),
        ({"scores": np.full((4, 2), 1.5)}, "apply the sigmoid first"),
        ({"image_id": np.array([1.0, 1, 2, 2])}, "image_id holds float64"),
        ({"image_id": np.array([1, 1, 2])}, "differ in their number of rows"),
        ({"points": np.array([[None, 1]] * 4, dtype=object)}, "not a whole npz file of plain arrays"),
    ],
)
def test_a_broken_file_is_refused_with_its_name_the_array_and_what_to_do(
    tmp_path: Path, changed: dict[str, np.ndarray | None], told: str
) -> None:
    path = saved(tmp_path, **changed)
    with pytest.raises(UserError) as caught:
        HeadOutputs.from_npz(path)
    assert str(path) in str(caught.value)
    assert told in str(caught.value)


def test_what_is_no_npz_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no zip")
    whole = saved(tmp_path).read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    np.save(tmp_path / "one.npy", np.zeros(3))
    for name in ("text.npz", "half.npz", "one.npy"):
        with pytest.raises(UserError, match="not a whole npz file"):
            HeadOutputs.from_npz(tmp_path / name)
    with pytest.raises(UserError, match="no such file"):
        HeadOutputs.from_npz(tmp_path / "absent.npz")


def test_rows_and_classes_that_the_annotations_lack_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="image_id holds 2"):
        open_heads(saved(tmp_path), annotations(tmp_path, ids=(1,)))
    with pytest.raises(UserError, match="scores has 2 classes, the data set 3"):
        open_heads(saved(tmp_path), annotations(tmp_path, classes=3))


@needs_real_heads
def test_a_head_trained_on_coco_scores_what_its_makers_measured() -> None:
    opened = open_heads(HEADS, ANNOTATIONS)
    evaluator = CocoEvaluator(opened.class_names)
    for truth, found in opened:
        evaluator.add(truth, found)
        assert found.levels is not None
        assert not len(found) or int(found.levels.max()) <= 2
    metrics = evaluator.metrics()
    assert (metrics.ap, metrics.ap50, metrics.ap75) == pytest.approx((0.287, 0.454, 0.295), abs=0.002)
