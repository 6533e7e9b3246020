"""The doctor finds each flaw of a data set once, and nothing in a data set without any."""

from __future__ import annotations

import copy
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from flawed_data import HEIGHT, WIDTH, add, clean, flawed, found, write
from gfocal.analysis.doctor import examine, open_splits
from gfocal.analysis.doctor.classes import class_flaws
from gfocal.analysis.doctor.columns import columns_of
from gfocal.analysis.doctor.findings import KINDS
from gfocal.analysis.doctor.page import AREA_LABELS, ASPECT_LABELS, COUNT_LABELS
from gfocal.analysis.doctor.statistics import AREAS, ASPECTS, COUNTS
from gfocal.data.collate import learnable
from gfocal.data.opening import open_dataset
from gfocal.data.scenes import Scenes
from gfocal.errors import UserError
from gfocal.structures import Truth

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def test_a_clean_data_set_reports_nothing(tmp_path: Path) -> None:
    report = examine(write(tmp_path, clean()), workers=0)
    assert report.findings == ()
    assert report.sound
    assert report.text().endswith("nothing is wrong")


OF_DATA = sorted(set(KINDS) - {"clipped"})


@pytest.mark.parametrize("kind", OF_DATA)
def test_each_flaw_is_found_once_and_nothing_else(tmp_path: Path, kind: str) -> None:
    report = examine(flawed(tmp_path, kind), workers=0)
    assert found(report) == {kind: 1}
    (finding,) = report.findings
    assert len(finding.examples) == 1
    assert finding.what == f"1 {KINDS[kind].one}"
    assert report.sound == (finding.severity == "note")
    assert f"{finding.severity}: 1 {KINDS[kind].one}: {KINDS[kind].advice}" in report.text()
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["findings"][0]["count"] == 1


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("malformed", r"train: .*train\.json: annotations\[6\]\.bbox is \['left', 2, 3, 4\]"),
        ("class", r"train: .*train\.json: annotations\[6\]\.category_id is 7"),
        ("reversed", r"train: .*train\.json: annotations\[6\]\.bbox"),
        ("picture", r"^train: train1\.png: cannot be read"),
        ("size", r"^train: train1\.png: the picture is 40 x 60 pixels .*says 80 x 60"),
        ("empty", r"train: train0\.png boxes\[2\]: cat \(5, 5\) to \(5, 25\) in 80 x 60"),
        ("outside", r"train: train0\.png boxes\[2\]: cat \(90, 5\) to \(110, 25\)"),
        ("duplicate", r"train: train0\.png boxes\[2\]: cat \(20, 10\) to \(40, 40\)"),
        ("conflict", r"train: train0\.png boxes\[0\]: cat \(20, 10\)"),
        ("leak", r"train: train1\.png: the same picture as val2\.png in val"),
        ("repeated", r"train: train2\.png: the same picture as train1\.png"),
        ("classes-differ", r"val: calls 'dog' 3 and train 2"),
        ("class-missing", r"val: no box of bird \(id 3\), 1 in train"),
        ("class-unused", r"train: bird \(id 3\)"),
        ("no-boxes", r"train: bare\.png"),
    ],
)
def test_examples_say_where_and_what(tmp_path: Path, kind: str, wanted: str) -> None:
    (finding,) = examine(flawed(tmp_path, kind), workers=0).findings
    assert re.search(wanted, str(finding.examples[0]))


def test_many_flaws_are_counted_over_all_splits_and_told_by_gravity(tmp_path: Path) -> None:
    splits = clean()
    for split in ("train", "val"):
        for place in range(3):
            add(splits[split], [5 + place, 5, 0, 20])
    add(splits["val"], [1, 1, 40, 40], iscrowd=1)
    folder = write(tmp_path, splits)
    (folder / "val0.png").write_bytes(b"no picture")
    report = examine(folder, workers=0)
    assert found(report) == {"picture": 1, "empty": 6, "crowd": 1}
    assert list(found(report)) == ["picture", "empty", "crowd"]
    assert [example.split for example in report.findings[1].examples] == ["train"] * 3 + ["val"] * 3
    assert "    and 3 more" in report.text()
    assert report.text().endswith("found: 1 error, 1 warning, 1 note")


def test_three_copies_of_a_picture_are_one_leak_and_the_repeats_of_a_split(tmp_path: Path) -> None:
    folder = write(tmp_path, clean())
    for name in ("train1", "train2", "val0"):
        Image.open(folder / "train0.png").save(folder / f"{name}.png")
    assert found(examine(folder, workers=0)) == {"leak": 1, "repeated": 2}


def test_boxes_twice_with_two_classes_are_told_apart(tmp_path: Path) -> None:
    splits = clean()
    first = splits["train"]["annotations"][0]["bbox"]
    for label in (1, 1, 2, 2):
        add(splits["train"], first, label=label)
    add(splits["train"], first, iscrowd=1)
    assert found(examine(write(tmp_path, splits), workers=0)) == {"duplicate": 3, "conflict": 1, "crowd": 1}


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ([0, 0, 80.4, 60.4], None),
        ([-0.4, 10, 30, 30], None),
        ([-0.6, 10, 30, 30], "partly-outside"),
        ([0, 0, 80, 60.6], "partly-outside"),
        ([79.5, 10, 30, 30], "outside"),
        ([500, 10, 0, 30], "empty"),
        ([500, 10, 0.5, 30], "thin"),
        ([79, 59, 1, 1], None),
    ],
)
def test_a_box_is_of_one_kind_of_place_and_size(tmp_path: Path, box: list[float], kind: str | None) -> None:
    splits = clean()
    add(splits["train"], box)
    assert found(examine(write(tmp_path, splits), pictures=False)) == ({kind: 1} if kind else {})


def test_what_is_learnt_is_what_training_takes() -> None:
    noise = torch.Generator().manual_seed(0)
    corners = torch.rand(200, 2, 2, generator=noise) * 120 - 20
    boxes = torch.cat([corners.amin(1), corners.amax(1)], dim=1)
    boxes[::7, 2] = boxes[::7, 0]
    crowd = torch.rand(200, generator=noise) < 0.2
    truth = Truth(1, "a", (HEIGHT, WIDTH), boxes, torch.arange(200), crowd)
    columns = columns_of("train", _Truths((truth,)))
    assert torch.from_numpy(columns.learnt).nonzero()[:, 0].tolist() == learnable(truth)[1].tolist()
    assert 0 < columns.learnt.sum() < 200


@final
class _Truths:
    """Annotations without pictures."""

    def __init__(self, truths: tuple[Truth, ...]) -> None:
        self.truths = truths
        self.class_names = tuple(f"class {label}" for label in range(200))
        self.category_ids = tuple(range(200))

    def __len__(self) -> int:
        return len(self.truths)

    def truth(self, index: int) -> Truth:
        return self.truths[index]

    def picture(self, index: int) -> NDArray[np.uint8]:
        raise AssertionError("pictures are not read")


def test_numbers_of_a_split(tmp_path: Path) -> None:
    splits = clean()
    add(splits["train"], [0, 0, 80, 60], area=100)
    add(splits["train"], [0, 0, 80, 60], iscrowd=1)
    add(splits["train"], [5, 5, 0, 20])
    split = examine(write(tmp_path, splits), pictures=False).splits["train"]
    assert (split.pictures, split.boxes, split.crowds, split.without_boxes) == (3, 8, 1, 0)
    assert split.crowd_share == pytest.approx(1 / 9)
    assert split.classes == {"cat": 5, "dog": 3}
    assert (split.small, split.medium, split.large) == (7, 0, 0)
    assert dict(zip(AREA_LABELS, split.relative_area.counts, strict=True))["< 30 %"] == 6
    assert dict(zip(AREA_LABELS, split.relative_area.counts, strict=True))["to 100 %"] == 1
    assert dict(zip(COUNT_LABELS, split.boxes_a_picture.counts, strict=True))["2"] == 2
    assert dict(zip(COUNT_LABELS, split.boxes_a_picture.counts, strict=True))["3–4"] == 1
    assert dict(zip(ASPECT_LABELS, split.aspect.counts, strict=True))["< 4:5"] == 6
    assert len(AREAS) == len(AREA_LABELS)
    assert len(COUNTS) == len(COUNT_LABELS)
    assert len(ASPECTS) == len(ASPECT_LABELS)


def test_a_test_split_without_annotations_is_no_flaw(tmp_path: Path) -> None:
    splits = clean()
    splits["test"] = copy.deepcopy(splits["val"]) | {"annotations": []}
    for image in splits["test"]["images"]:
        image["file_name"] = f"test{image['file_name']}"
    report = examine(write(tmp_path, splits), workers=0)
    assert report.findings == ()
    assert report.splits["test"].without_boxes == 3


def test_a_data_set_of_nothing_but_background_is_examined(tmp_path: Path) -> None:
    splits = {split: content | {"annotations": []} for split, content in clean().items()}
    report = examine(write(tmp_path, splits), workers=0)
    assert found(report) == {"no-boxes": 6}
    assert report.clipping is None


def test_a_split_in_which_every_entry_is_at_fault_has_no_picture_to_read(tmp_path: Path) -> None:
    splits = clean()
    splits["val"] = splits["val"] | {"images": splits["val"]["images"][:1], "annotations": []}
    del splits["val"]["images"][0]["height"]
    assert found(examine(write(tmp_path, splits), workers=2))["malformed"] == 1


def test_time_does_not_explode_with_classes_that_nobody_uses(tmp_path: Path) -> None:
    dataset = open_dataset(write(tmp_path, clean()), "train")
    columns = columns_of("train", dataset)
    names = (*columns.class_names, *(f"class {number}" for number in range(30_000)))
    start = time.process_time()
    *_, unused = class_flaws([replace(columns, class_names=names, category_ids=tuple(range(len(names))))])
    assert time.process_time() - start < 4  # a tenth of a second or so; quadratic code takes more than ten
    assert unused.count == 30_000
    assert {example.split for example in unused.examples} == {"train"}


def test_open_data_sets_and_workers_give_the_same_report(tmp_path: Path) -> None:
    folder = flawed(tmp_path, "leak")
    Image.new("RGB", (WIDTH // 2, HEIGHT)).save(folder / "train0.png")
    counted: list[int] = []
    alone = examine(folder, workers=0, progress=counted.append)
    datasets = {split: open_dataset(folder, split) for split in ("train", "val")}
    assert examine(datasets, workers=2, name=str(folder)) == alone
    assert counted == [1, 2, 3, 4, 5, 6]


def test_pictures_made_on_the_fly_are_examined_too() -> None:
    report = examine({"train": Scenes(4), "val": Scenes(3, seed=1)}, workers=0, recipe="gfl_r18_mini")
    assert set(found(report)) <= {"class-missing", "class-unused"}  # seven pictures may lack a class
    assert report.splits["val"].pictures == 3
    assert report.clipping is not None
    assert report.clipping.recipe == "gfl_r18_mini"


def test_splits_that_are_made_of_others_are_left_out(tmp_path: Path) -> None:
    splits = clean()
    folder = write(tmp_path, splits)
    lines = (folder / "data.yaml").read_text()
    (folder / "data.yaml").write_text(lines + "\ntrainval: {images: ., annotations: train.json}")
    assert examine(folder, workers=0).findings == ()
    assert list(open_splits(folder)[0]) == ["train", "val"]


def test_mistakes_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown data set"):
        examine(tmp_path / "none")
    with pytest.raises(UserError, match=r"none\.yaml: the recipe cannot be read"):
        examine(write(tmp_path, clean()), recipe="none.yaml")
    with pytest.raises(UserError, match="no split to examine"):
        examine({})
    (tmp_path / "val.json").write_text("[")
    with pytest.raises(UserError, match=r"val\.json: line 1"):
        examine(tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared pictures are not here")
def test_the_two_boxes_without_area_of_the_blood_cells_are_found() -> None:
    report = examine(SHARED / "bccd_voc", pictures=False, recipe="gfl_r18_mini")
    assert found(report) == {"empty": 2}
    files = [f"{example.split} {example.file}" for example in report.findings[0].examples]
    assert files == ["train BloodImage_00343.jpg", "val BloodImage_00338.jpg"]
