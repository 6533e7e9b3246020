"""Every reader tells each box by what its own file calls it, whatever is left out or comes in another order."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gfocal.data.coco import read_coco
from gfocal.data.dataset import Dataset, FolderDataset
from gfocal.data.faults import Faults
from gfocal.data.scenes import Scenes
from gfocal.data.voc import read_voc
from gfocal.data.yolo import read_yolo


def ids(dataset: Dataset) -> list[list[int] | None]:
    truths = [dataset.truth(index) for index in range(len(dataset))]
    assert all(truth.ids is None or len(truth.ids) == len(truth.boxes) for truth in truths)
    return [None if truth.ids is None else truth.ids.tolist() for truth in truths]


def coco(folder: Path, numbers: list[Any]) -> FolderDataset:
    """Read a COCO JSON of two pictures that take turns, with these ids of annotations; None leaves the id out."""
    annotations = [
        {"image_id": 1 + place % 2, "category_id": 1, "bbox": [1, 1, 5, 5]}
        | ({} if number is None else {"id": number})
        | ({"ignore": 1} if number == "ignored" else {})
        for place, number in enumerate(numbers)
    ]
    images = [{"id": number, "file_name": f"{number}.png", "width": 20, "height": 20} for number in (1, 2)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "labels.json").write_text(json.dumps(content))
    return read_coco(folder / "labels.json", folder)


def test_coco_boxes_have_the_ids_of_their_annotations(tmp_path: Path) -> None:
    assert ids(coco(tmp_path, [70, 5, "ignored", 900_000_000_000, 6.0])) == [[70, 6], [5, 900_000_000_000]]


@pytest.mark.parametrize("number", [None, "a7", 1.5, True, 2**63, 1e400])
def test_coco_annotations_without_whole_ids_are_read_without_them(tmp_path: Path, number: Any) -> None:
    dataset = coco(tmp_path, [70, number, 5])
    assert ids(dataset) == [None, None]
    assert [len(record.truth.boxes) for record in dataset.records] == [2, 1]


def test_voc_boxes_have_the_places_of_their_objects(tmp_path: Path) -> None:
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    objects = f"<object><name>cat</name>{box}</object><object><name>cat</name></object><object><name>cat</name>{box}"
    text = f"<size><width>20</width><height>20</height></size>{objects}</object>"
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text(f"<annotation>{text}</annotation>")
    faults = Faults(stop=False)
    assert ids(read_voc(tmp_path, "train", faults=faults)) == [[0, 2]]
    assert [fault.what[:9] for fault in faults.found] == ["object[1]"]


def test_yolo_boxes_have_the_numbers_of_their_lines(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (20, 20)).save(tmp_path / "images" / f"{name}.png")
    line = "0 0.5 0.5 0.2 0.2"
    (tmp_path / "labels" / "a.txt").write_text(f"\n{line}\nwrong\n\n{line}\n")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat]\n")
    faults = Faults(stop=False)
    assert ids(read_yolo(tmp_path / "data.yaml", "train", faults=faults)) == [[2, 5], []]
    assert [fault.what[:6] for fault in faults.found] == ["line 3"]


def test_scenes_number_their_boxes() -> None:
    dataset = Scenes(4)
    assert ids(dataset) == [list(range(len(dataset.truth(index).boxes))) for index in range(4)]


def test_ids_go_with_a_data_set_that_is_sent_to_a_worker(tmp_path: Path) -> None:
    for numbers in ([70, 5, 3], [70, None, 3]):
        dataset = coco(tmp_path, numbers)
        assert ids(pickle.loads(pickle.dumps(dataset))) == ids(dataset)
