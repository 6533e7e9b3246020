"""Drafts of annotations are read back by the tools they are for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from gfocal.bands import Bands
from gfocal.labelling import label_studio_config, to_fiftyone, to_label_studio, write_fiftyone, write_label_studio
from gfocal.structures import Detections, EdgeDistributions

SIZE = (40, 80)
NAMES = ("cat", 'dog "big" <1>')


def found() -> Detections:
    boxes = torch.tensor([[8.0, 4, 24, 20], [0, 0, 80, 40]])
    mass = torch.tensor([0.25, 0.5, 0.25]).expand(2, 4, 3)
    edges = EdgeDistributions(mass, boxes[..., None] + torch.tensor([-2.0, 0, 2]))
    return Detections(boxes, torch.tensor([0.75, 0.5]), torch.tensor([1, 0]), NAMES, edges=edges)


def test_a_task_holds_boxes_in_percent_and_their_doubts() -> None:
    task = json.loads(json.dumps(to_label_studio("/data/a.png", SIZE, found(), model="v2")))
    (prediction,) = task["predictions"]
    assert task["data"] == {"image": "/data/a.png"}
    assert prediction["model_version"] == "v2"
    assert prediction["score"] == 0.5
    first, second = prediction["result"]
    assert first["value"] == {
        "x": 10.0,
        "y": 10.0,
        "width": pytest.approx(20.0),
        "height": pytest.approx(40.0),
        "rotation": 0,
        "rectanglelabels": [NAMES[1]],
    }
    assert (first["original_width"], first["original_height"]) == (80, 40)
    assert first["meta"]["edge_std"] == [1.41] * 4
    assert len(second["meta"]["edge_interval"]) == 4
    assert first["id"] != second["id"]


def test_bands_of_a_calibrated_model_are_told_too() -> None:
    low = torch.tensor([0.0, 2, 20, 18]).expand(2, 4)[..., None]
    plain = found()
    calibrated = replace(plain, bands=Bands((0.9,), low, low + 4, outer=low, inner=low + 1))
    meta = to_label_studio("a.png", SIZE, calibrated)["predictions"][0]["result"][0]["meta"]
    assert meta["edge_band"] == [[0.0, 4.0], [2.0, 6.0], [20.0, 24.0], [18.0, 22.0]]
    assert meta["outer_box"] == [0.0, 2.0, 20.0, 18.0]
    assert meta["inner_box"] == [1.0, 3.0, 21.0, 19.0]
    attributes = to_fiftyone(SIZE, calibrated)[0]["attributes"]
    assert attributes == meta
    assert "edge_band" not in to_fiftyone(SIZE, plain)[0]["attributes"]


def test_a_picture_without_boxes_is_a_task_without_boxes() -> None:
    (prediction,) = to_label_studio("a.png", SIZE, found()[:0])["predictions"]
    assert prediction == {"model_version": "gfocal", "result": []}
    assert to_fiftyone(SIZE, found()[:0]) == []


def test_names_stay_whole_in_the_configuration() -> None:
    labels = ElementTree.fromstring(label_studio_config(NAMES)).iter("Label")
    assert [label.get("value") for label in labels] == list(NAMES)


def test_a_size_must_be_one() -> None:
    with pytest.raises(ValueError, match="size must be"):
        to_fiftyone((0, 5), found())


def test_label_studios_own_package_takes_the_tasks(tmp_path: Path) -> None:
    interface = pytest.importorskip("label_studio_sdk.label_interface", exc_type=ImportError)
    write_label_studio(tmp_path / "tasks.json", [("/data/a.png", SIZE, found())])
    (task,) = json.loads((tmp_path / "tasks.json").read_text())
    config = interface.LabelInterface(label_studio_config(NAMES))
    config.validate()
    (prediction,) = task.pop("predictions")
    assert config.validate_task(task)
    assert config.validate_prediction(prediction, return_errors=True) == []
    wrong = json.loads(json.dumps(prediction))
    wrong["result"][0]["value"]["rectanglelabels"] = ["cow"]
    assert not config.validate_prediction(wrong)


def test_label_studios_converter_makes_the_boxes_of_coco_from_them(tmp_path: Path) -> None:
    converter_module = pytest.importorskip("label_studio_sdk.converter.converter", exc_type=ImportError)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "a.png")
    task = to_label_studio(str(tmp_path / "a.png"), SIZE, found()) | {"id": 1}
    # what an annotator accepts as it is
    (prediction,) = task.pop("predictions")
    task["annotations"] = [
        {"id": 1, "result": prediction["result"], "completed_by": 1, "created_at": "", "lead_time": 1}
    ]
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "tasks.json").write_text(json.dumps([task]))
    converter = converter_module.Converter(label_studio_config(NAMES), str(tmp_path), download_resources=False)
    converter.convert_to_coco(str(tmp_path / "tasks"), str(tmp_path / "out"), output_image_dir=str(tmp_path / "images"))
    coco = json.loads((tmp_path / "out" / "result.json").read_text())
    categories = {row["id"]: row["name"] for row in coco["categories"]}
    assert [categories[row["category_id"]] for row in coco["annotations"]] == found().names
    assert [row["bbox"] for row in coco["annotations"]] == [
        pytest.approx([8, 4, 16, 16]),
        pytest.approx([0, 0, 80, 40]),
    ]


def test_fiftyone_labels_are_shares_of_the_picture(tmp_path: Path) -> None:
    write_fiftyone(tmp_path / "drafts", {"a": (SIZE, found())}, NAMES)
    labels = json.loads((tmp_path / "drafts" / "labels.json").read_text())
    assert labels["classes"] == list(NAMES)
    first, second = labels["labels"]["a"]
    assert first["bounding_box"] == pytest.approx([0.1, 0.1, 0.2, 0.4])
    assert second["bounding_box"] == [0, 0, 1, 1]
    assert first["attributes"]["edge_std"] == [1.41] * 4


def test_fiftyones_own_importer_reads_the_labels(tmp_path: Path) -> None:
    importers = pytest.importorskip("fiftyone.utils.data", exc_type=ImportError)
    (tmp_path / "data").mkdir()
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "data" / "a.png")
    write_fiftyone(tmp_path, {"a": (SIZE, found())}, NAMES)
    importer = importers.FiftyOneImageDetectionDatasetImporter(dataset_dir=str(tmp_path))
    with importer:
        ((path, _, detections),) = list(importer)
    assert Path(path).name == "a.png"
    assert [row.label for row in detections.detections] == found().names
    assert detections.detections[0].confidence == 0.75
    assert detections.detections[0].bounding_box == pytest.approx([0.1, 0.1, 0.2, 0.4])
