"""The audit: each kind of flaw is found where it is, sound labels are left alone, files are whole or absent."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import gfocal
from gfocal import Detections, EdgeDistributions
from gfocal.analysis.audit import KINDS, Audit, audit_pairs, write_page
from gfocal.data.dataset import FolderDataset, Record
from gfocal.errors import UserError
from gfocal.structures import Truth
from real_heads import ANNOTATIONS, HEADS, needs_real_heads

NAMES = ("cat", "<b>dog</b>")
BOXES = torch.tensor([[20.0, 20.0, 60.0, 70.0], [100.0, 30.0, 150.0, 90.0]])
OBJECTS = 20


def sharp(boxes: Tensor) -> EdgeDistributions:
    """Return distributions about each edge, 2 pixels a bin, with a deviation of about 2 pixels."""
    bins = torch.tensor([0.0, 0.05, 0.2, 0.5, 0.2, 0.05, 0.0])
    outwards = torch.tensor([-2.0, -2.0, 2.0, 2.0])[:, None]
    positions = boxes[..., None] + outwards * torch.arange(-3.0, 4.0)
    return EdgeDistributions(bins.expand(len(boxes), 4, 7), positions)


def pictures(number: int = OBJECTS // 2) -> list[tuple[Truth, Detections]]:
    """Return pictures with two objects whose annotations are a little off, and a detector that is right."""
    dice = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1])
    found = Detections(BOXES, torch.tensor([0.9, 0.8]), labels, NAMES, edges=sharp(BOXES))
    return [
        (
            Truth(index, f"{index}.png", (100, 200), BOXES + torch.randn(2, 4, generator=dice), labels,
                  torch.zeros(2, dtype=torch.bool)),
            found,
        )
        for index in range(number)
    ]  # fmt: skip


def spoilt(**changes: Tensor) -> Audit:
    """Return the audit of pictures of which the fourth has another truth."""
    pairs = pictures()
    truth, found = pairs[3]
    pairs[3] = (replace(truth, **changes), found)
    return audit_pairs(pairs)


def test_labels_that_are_only_a_little_off_are_left_alone() -> None:
    found = audit_pairs(pictures())
    assert found.suspicions == ()
    assert found.text() == f"data: {OBJECTS} boxes in {OBJECTS // 2} pictures, nothing suspicious"


@pytest.mark.parametrize("edge", range(4))
def test_a_shifted_edge_is_named(edge: int) -> None:
    boxes = BOXES.clone()
    boxes[1, edge] += 12
    worst, *rest = spoilt(boxes=boxes).suspicions
    assert (worst.kind, worst.index, worst.annotation) == ("edge", 3, 1)
    assert worst.edges == (("left", "top", "right", "bottom")[edge],)
    assert worst.expected_box == pytest.approx(BOXES[1].tolist())
    assert worst.score > 0.5
    assert not rest


def test_an_edge_at_a_second_peak_of_its_distribution_is_believed() -> None:
    pairs = pictures()
    truth, found = pairs[3]
    assert found.edges is not None
    boxes = BOXES.clone()
    boxes[1, 2] += 12
    two = torch.tensor([0.7, 0.0, 0.0, 0.0, 0.0, 0.0, 0.3])
    probabilities = found.edges.probabilities.clone()
    positions = found.edges.positions.clone()
    probabilities[1, 2], positions[1, 2] = two, BOXES[1, 2] + 2 * torch.arange(7.0)
    edges = EdgeDistributions(probabilities, positions)
    pairs[3] = (replace(truth, boxes=boxes), replace(found, edges=edges))
    assert audit_pairs(pairs).suspicions == ()


def test_a_missing_annotation_is_told_with_what_is_found() -> None:
    (worst,) = spoilt(boxes=BOXES[:1], labels=torch.tensor([0]), crowd=torch.tensor([False])).suspicions
    assert (worst.kind, worst.index, worst.annotation, worst.box) == ("missed", 3, None, None)
    assert worst.expected_label == NAMES[1]
    assert worst.score == pytest.approx(0.8)


def test_what_lies_in_a_crowd_is_not_missed() -> None:
    assert spoilt(crowd=torch.tensor([False, True])).suspicions == ()


def test_an_annotation_of_nothing_is_spurious() -> None:
    boxes = torch.cat([BOXES, torch.tensor([[160.0, 10.0, 195.0, 60.0]])])
    (worst,) = spoilt(boxes=boxes, labels=torch.tensor([0, 1, 0]), crowd=torch.zeros(3, dtype=torch.bool)).suspicions
    assert (worst.kind, worst.annotation, worst.expected_box) == ("spurious", 2, None)
    assert worst.score > 0.7


def test_an_object_that_is_never_found_is_not_called_spurious() -> None:
    pairs = [
        (replace(truth, boxes=torch.cat([truth.boxes, BOXES[:1] + 110]), labels=torch.tensor([0, 1, 0]),
                 crowd=torch.zeros(3, dtype=torch.bool), size=(300, 300)), found)
        for truth, found in pictures()
    ]  # fmt: skip
    scores = [suspicion.score for suspicion in audit_pairs(pairs).suspicions]
    assert max(scores, default=0) < 0.6


def test_a_box_annotated_twice_is_a_duplicate_of_the_first() -> None:
    boxes = torch.cat([BOXES, BOXES[:1] + 0.5])
    (worst,) = spoilt(boxes=boxes, labels=torch.tensor([0, 1, 0]), crowd=torch.zeros(3, dtype=torch.bool)).suspicions
    assert (worst.kind, worst.annotation) == ("duplicate", 2)
    assert "overlaps box 0" in worst.why


def test_another_class_is_told_with_the_one_expected() -> None:
    (worst,) = spoilt(labels=torch.tensor([1, 1])).suspicions
    assert (worst.kind, worst.annotation) == ("class", 0)
    assert (worst.label, worst.expected_label) == (NAMES[1], NAMES[0])


def test_a_detector_without_distributions_finds_all_but_edges() -> None:
    boxes = BOXES.clone()
    boxes[1, 0] += 12
    pairs = [(truth, replace(found, edges=None)) for truth, found in pictures()]
    pairs[3] = (replace(pairs[3][0], boxes=boxes), pairs[3][1])
    pairs[4] = (replace(pairs[4][0], labels=torch.tensor([1, 1])), pairs[4][1])
    assert [suspicion.kind for suspicion in audit_pairs(pairs).suspicions] == ["class"]


def test_empty_pictures_are_sound_and_no_picture_is_an_error() -> None:
    nothing = Truth(1, "1.png", (20, 20), torch.zeros(0, 4), torch.zeros(0, dtype=torch.long),
                    torch.zeros(0, dtype=torch.bool))  # fmt: skip
    found = pictures()[0][1]
    assert audit_pairs([(nothing, found[:0])]).suspicions == ()
    assert [suspicion.kind for suspicion in audit_pairs([(nothing, found)]).suspicions] == ["missed", "missed"]
    assert audit_pairs([(pictures()[0][0], found[:0])]).suspicions == ()
    with pytest.raises(UserError, match="no picture"):
        audit_pairs([])


def test_files_hold_every_suspicion_in_the_order_of_the_list(tmp_path: Path) -> None:
    found = spoilt(labels=torch.tensor([1, 1]), boxes=BOXES + torch.tensor([0.0, 0, 14, 0]))
    found.write_csv(tmp_path / "audit.csv")
    found.write_json(tmp_path / "audit.json")
    with (tmp_path / "audit.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    held = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    assert held["pictures"] == OBJECTS // 2
    assert len(rows) == len(held["suspicions"]) == len(found.suspicions) >= 2
    assert [row["kind"] for row in rows] == [suspicion["kind"] for suspicion in held["suspicions"]]
    assert [float(row["score"]) for row in rows] == sorted((float(row["score"]) for row in rows), reverse=True)
    assert rows[0]["file"] == "3.png"
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="cannot be written"):
        found.write_csv(tmp_path / "taken" / "audit.csv")


def test_the_page_shows_crops_and_names_nothing_from_outside(tmp_path: Path) -> None:
    truth = pictures()[3][0]
    Image.fromarray(np.full((100, 200, 3), 90, np.uint8)).save(tmp_path / truth.name)
    records = [Record(tmp_path / pair[0].name, pair[0]) for pair in pictures()]
    found = spoilt(labels=torch.tensor([1, 1]))
    write_page(tmp_path / "audit.html", found, FolderDataset(NAMES, tuple(records)))
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 1
    assert "&lt;b&gt;dog&lt;/b&gt;" in page
    assert "<b>dog" not in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert all(f'id="show-{kind}"' in page for kind in KINDS)
    (tmp_path / truth.name).unlink()
    write_page(tmp_path / "audit.html", found, FolderDataset(NAMES, tuple(records)))
    assert "data:image" not in (tmp_path / "audit.html").read_text(encoding="utf-8")


def test_an_annotation_is_told_by_the_id_that_its_file_gives_it(tmp_path: Path) -> None:
    boxes, three = torch.cat([BOXES, BOXES[:1] + 0.5]), torch.zeros(3, dtype=torch.bool)
    found = spoilt(boxes=boxes, labels=torch.tensor([0, 1, 0]), crowd=three, ids=torch.tensor([40, 41, 77]))
    (worst,) = found.suspicions
    assert (worst.annotation, worst.annotation_id, worst.place) == (2, 77, "3.png, box 2 (id 77)")
    assert "overlaps box 0 (id 40)" in worst.why
    assert "3.png, box 2 (id 77): overlaps" in found.text()
    found.write_csv(tmp_path / "audit.csv")
    with (tmp_path / "audit.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["annotation"], row["annotation_id"], row["label"]) == ("2", "77", NAMES[0])
    assert found.to_dict()["suspicions"][0]["annotation_id"] == 77
    write_page(tmp_path / "audit.html", found)
    assert "3.png, box 2 (id 77)" in (tmp_path / "audit.html").read_text(encoding="utf-8")


def test_an_annotation_without_an_id_and_a_missed_one_have_none(tmp_path: Path) -> None:
    one = torch.tensor([False])
    (missed,) = spoilt(boxes=BOXES[:1], labels=torch.tensor([0]), crowd=one, ids=torch.tensor([40])).suspicions
    assert (missed.annotation_id, missed.place) == (None, "3.png")
    found = spoilt(labels=torch.tensor([1, 1]))
    assert (found.suspicions[0].annotation_id, found.suspicions[0].place) == (None, "3.png, box 0")
    found.write_csv(tmp_path / "audit.csv")
    with (tmp_path / "audit.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["annotation"], row["annotation_id"]) == ("0", "")


@needs_real_heads
def test_a_real_head_audits_its_annotations(tmp_path: Path) -> None:
    found = gfocal.audit(HEADS, ANNOTATIONS)
    assert found.pictures == 64
    assert 400 < found.boxes <= 461
    assert found.suspicions
    assert all(0.3 <= suspicion.score <= 1 for suspicion in found.suspicions)
    write_page(tmp_path / "audit.html", found)
