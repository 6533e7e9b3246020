from __future__ import annotations

import json
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from gfocal.edges import Index
from gfocal.errors import UserError
from gfocal.structures import Detections, EdgeDistributions, Grid, GroundTruth, Match, Priors


def random_edges(seed: int, count: int = 3, bins: int = 9) -> EdgeDistributions:
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(count, 4, 1, generator=generator) * 100 + torch.arange(bins) * 8.0
    return EdgeDistributions(torch.randn(count, 4, bins, generator=generator).softmax(-1), positions)


# ---------------------------------------------------------------- detections


def some_detections(count: int = 4) -> Detections:
    return Detections(
        boxes=torch.arange(count * 4.0).view(count, 4),
        scores=torch.linspace(0.9, 0.1, count),
        labels=torch.arange(count) % 3,
        class_names=("circle", "square", "star"),
        quality=torch.linspace(0.2, 0.8, count),
        edges=random_edges(2, count=count),
        levels=torch.arange(count) % 5,
    )


def assert_rows(chosen: Detections, found: Detections, rows: Tensor) -> None:
    assert len(chosen) == len(rows)
    assert found.quality is not None
    assert found.edges is not None
    assert chosen.quality is not None
    assert chosen.edges is not None
    assert torch.equal(chosen.boxes, found.boxes[rows])
    assert torch.equal(chosen.scores, found.scores[rows])
    assert torch.equal(chosen.labels, found.labels[rows])
    assert torch.equal(chosen.quality, found.quality[rows])
    assert torch.equal(chosen.edges.probabilities, found.edges.probabilities[rows])
    assert found.levels is not None
    assert chosen.levels is not None
    assert torch.equal(chosen.levels, found.levels[rows])
    assert chosen.names == [found.names[row] for row in rows.tolist()]
    assert chosen.class_names == found.class_names


@pytest.mark.parametrize(
    "index",
    [
        0,
        3,
        -1,
        -4,
        slice(None),
        slice(1, 3),
        slice(None, None, 2),
        slice(9, 12),
        torch.tensor([2, 0, 2]),
        torch.tensor([], dtype=torch.long),
        torch.tensor([False, True, True, False]),
    ],
)
def test_indexing_keeps_all_fields_aligned(index: int | slice | Tensor) -> None:
    found = some_detections()
    assert_rows(found[index], found, torch.arange(4)[index].reshape(-1))


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        ([2, 0, 2], [2, 0, 2]),
        ([], []),
        ([False, True, True, False], [1, 2]),
        (np.array([-1, 1]), [3, 1]),
        (np.array([True, False, False, True]), [0, 3]),
        (np.array(2), [2]),
    ],
)
def test_lists_and_arrays_index_as_tensors_do(index: Index, rows: list[int]) -> None:
    found = some_detections()
    assert_rows(found[index], found, torch.tensor(rows, dtype=torch.long))


def test_iteration_gives_each_detection_as_one_row() -> None:
    found = some_detections()
    rows = list(found)
    assert len(rows) == 4
    for i, row in enumerate(rows):
        assert_rows(row, found, torch.tensor([i]))


@pytest.mark.parametrize("index", [4, -5, 100])
def test_an_index_that_is_not_there_is_refused(index: int) -> None:
    with pytest.raises(IndexError, match=str(index)):
        some_detections()[index]


def test_fields_that_may_be_missing_stay_missing() -> None:
    found = Detections(torch.zeros(2, 4), torch.zeros(2), torch.zeros(2, dtype=torch.long), ("a",))
    assert found[0].quality is None
    assert found[torch.tensor([True, False])].edges is None


def test_nothing_found_is_a_value_like_any_other() -> None:
    found = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long), ("a",))
    assert len(found) == 0
    assert list(found) == []
    assert found.names == []
    assert len(found[:5]) == 0
    assert len(found[torch.zeros(0, dtype=torch.bool)]) == 0


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("field", ["scores", "labels", "quality", "levels"])
def test_fields_of_another_length_are_refused_by_name(field: str) -> None:
    values: dict[str, Tensor] = {
        "scores": torch.zeros(2),
        "labels": torch.zeros(2, dtype=torch.long),
        "quality": torch.zeros(2),
        "levels": torch.zeros(2, dtype=torch.long),
    }
    values[field] = values[field][:1]
    with pytest.raises(ValueError, match=f"{field} has 1 rows"):
        Detections(torch.zeros(2, 4), class_names=("a",), **values)
    values[field] = torch.zeros(2, 1)
    with pytest.raises(ValueError, match=rf"{field} must be \(n,\), got \(2, 1\)"):
        Detections(torch.zeros(2, 4), class_names=("a",), **values)


@pytest.mark.usefixtures("unchecked_shapes")
def test_distributions_of_other_boxes_are_refused() -> None:
    with pytest.raises(ValueError, match="edges has 3 rows"):
        Detections(torch.zeros(2, 4), torch.zeros(2), torch.zeros(2, dtype=torch.long), ("a",), edges=random_edges(0))


@pytest.mark.usefixtures("unchecked_shapes")
def test_boxes_must_have_four_values() -> None:
    with pytest.raises(ValueError, match="boxes"):
        Detections(torch.zeros(2, 5), torch.zeros(2), torch.zeros(2, dtype=torch.long), ("a",))


@pytest.mark.parametrize("label", [-1, 1])
def test_labels_without_a_class_name_are_refused(label: int) -> None:
    with pytest.raises(ValueError, match="labels"):
        Detections(torch.zeros(1, 4), torch.zeros(1), torch.tensor([label]), ("a",))


# ---------------------------------------------------------------- what others read


def bare(found: Detections) -> Detections:
    return replace(found, quality=None, edges=None, levels=None)


def test_a_dictionary_tells_every_box_in_plain_values() -> None:
    found = some_detections()
    rows = json.loads(json.dumps(found.to_dict()))["boxes"]
    assert len(rows) == 4
    assert found.edges is not None
    low, high = found.edges.interval(0.9)
    for i, row in enumerate(rows):
        assert row["label"] == found.names[i]
        assert row["class"] == int(found.labels[i])
        assert row["level"] == i
        assert row["score"] == pytest.approx(found.scores[i].item(), abs=1e-4)
        assert row["quality"] == pytest.approx(found.quality[i].item(), abs=1e-4)  # type: ignore[index]
        assert row["box"] == pytest.approx(found.boxes[i].tolist(), abs=0.01)
        assert row["edge_std"] == pytest.approx(found.edges.std[i].tolist(), abs=0.01)
        for edge, ends in enumerate(row["edge_interval"]):
            assert ends == pytest.approx([low[i, edge].item(), high[i, edge].item()], abs=0.01)
    assert bare(found).to_dict()["boxes"][0].keys() == {"label", "class", "score", "box"}
    assert found[:0].to_dict() == {"boxes": []}


def test_pycocotools_reads_results_with_their_doubts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = replace(
        some_detections(), boxes=torch.tensor([[1.0, 2, 11, 22], [5, 5, 9, 30], [0, 0, 7, 7], [3, 1, 8, 9]])
    )
    categories = [3, 17, 90]
    truth = {
        "images": [{"id": 7, "width": 64, "height": 64}],
        "categories": [{"id": i, "name": name} for i, name in zip(categories, found.class_names, strict=True)],
        "annotations": [
            {
                "id": i + 1,
                "image_id": 7,
                "category_id": row["category_id"],
                "bbox": row["bbox"],
                "area": 50,
                "iscrowd": 0,
            }
            for i, row in enumerate(found.to_coco(7, categories))
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(found.to_coco(7, categories)))
    coco = COCO(tmp_path / "truth.json")
    results = coco.loadRes(str(tmp_path / "results.json"))
    assert all({"edge_std", "edge_interval"} <= row.keys() for row in results.dataset["annotations"])
    score = COCOeval(coco, results, "bbox")
    score.evaluate()
    score.accumulate()
    score.summarize()
    capsys.readouterr()
    assert score.stats[0] == pytest.approx(1.0)


def test_results_need_an_id_for_each_class() -> None:
    with pytest.raises(ValueError, match="category_ids has 2 ids, the detections 3 classes"):
        some_detections().to_coco(1, [1, 2])


@pytest.mark.parametrize("form", ["xyxy", "cxcywh"])
def test_the_noise_of_a_measurement_is_that_of_drawn_boxes(form: str) -> None:
    found = some_detections()
    assert found.edges is not None
    boxes = found.edges.sample(40_000, generator=torch.Generator().manual_seed(0)).double()
    if form == "cxcywh":
        boxes = torch.cat([(boxes[..., 2:] + boxes[..., :2]) / 2, boxes[..., 2:] - boxes[..., :2]], dim=-1)
    covariance = found.measurement_covariance(form=form)  # type: ignore[arg-type]
    assert covariance.shape == (4, 4, 4)
    assert torch.linalg.cholesky(covariance).isfinite().all()
    for i in range(4):
        drawn = torch.cov(boxes[:, i].T)
        torch.testing.assert_close(covariance[i].double(), drawn, rtol=0.05, atol=0.03 * drawn.max().item())


@pytest.mark.usefixtures("unchecked_shapes")
def test_there_is_no_noise_without_distributions_and_in_no_other_form() -> None:
    with pytest.raises(ValueError, match="no edge distributions"):
        bare(some_detections()).measurement_covariance()
    with pytest.raises(ValueError, match="form must be"):
        some_detections().measurement_covariance(form="xywh")  # type: ignore[arg-type]


def test_an_edge_without_doubt_still_has_the_width_of_its_bin() -> None:
    edges = EdgeDistributions(torch.eye(3)[1].expand(1, 4, 3), torch.tensor([0.0, 6.0, 12.0]).expand(1, 4, 3))
    torch.testing.assert_close(edges.covariance()[0], torch.eye(4) * 3)


def test_supervision_takes_the_boxes_with_all_that_is_known_of_them() -> None:
    pytest.importorskip("supervision", exc_type=ImportError)
    found = some_detections()
    theirs = found.to_supervision()
    assert len(theirs) == 4
    assert theirs.xyxy.tolist() == found.boxes.tolist()
    assert theirs.class_id.tolist() == found.labels.tolist()
    assert list(theirs["class_name"]) == found.names
    kept = theirs[theirs.confidence > 0.5]
    assert len(kept) == 2
    assert kept["edge_std"].shape == (2, 4)
    assert kept["edge_interval"].shape == (2, 4, 2)
    assert len(bare(found[:0]).to_supervision()) == 0


def test_without_supervision_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match=r"gfocal\[supervision\]"):
        some_detections().to_supervision()


def test_values_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        some_detections().scores = torch.zeros(4)  # type: ignore[misc]


# ---------------------------------------------------------------- priors and ground truth


def test_priors_are_indexed_row_by_row_and_leave_their_grid() -> None:
    priors = Priors(torch.rand(6, 2), torch.rand(6, 4), torch.rand(6), (Grid(2, 3, 8),))
    assert len(priors) == 6
    chosen = priors[torch.tensor([4, 1])]
    assert torch.equal(chosen.points, priors.points[[4, 1]])
    assert torch.equal(chosen.boxes, priors.boxes[[4, 1]])
    assert torch.equal(chosen.strides, priors.strides[[4, 1]])
    assert chosen.grids == ()
    assert len(priors[torch.zeros(6, dtype=torch.bool)]) == 0


def test_a_grid_counts_its_anchors() -> None:
    assert Grid(2, 3, 8).num_priors == 6
    assert Grid(2, 3, 8, anchors=9).num_priors == 54


def test_a_batch_has_as_many_pictures_as_extents() -> None:
    none = torch.zeros(0, dtype=torch.long)
    assert GroundTruth(torch.zeros(0, 4), none, none, torch.ones(3, 2)).num_pictures == 3


def test_the_pairs_of_a_match_have_the_priors_of_their_place_in_the_picture_and_can_be_cut_to_the_positive() -> None:
    priors = Priors(torch.rand(6, 2), torch.rand(6, 4), torch.rand(6), (Grid(2, 3, 8),))
    positive = torch.tensor([True, False, True])
    match = Match(torch.tensor([4, 5, 6 + 1]), torch.tensor([0, 0, 1]), positive, torch.ones(2, 6, dtype=torch.bool))
    assert torch.equal(match.priors_of(priors).points, priors.points[[4, 5, 1]])
    learnt = match.positives()
    assert (learnt.location.tolist(), learnt.truth.tolist(), learnt.positive.all()) == ([4, 7], [0, 1], True)
    assert learnt.counted is match.counted
