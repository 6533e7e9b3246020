"""Data at the edge of what there is trains, or is refused with a reason."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import gfocal
from gfocal.config import BackboneConfig
from gfocal.data.faults import Fault
from gfocal.errors import UserError
from gfocal.recipes import get_recipe
from gfocal.training.left_out import LeftOut

SHARED = Path(__file__).parents[3] / "shared" / "data"


def written(folder, pictures, *, classes=("thing",)):
    """Return the data.yaml of pictures ((height, width), boxes xywh, labels)."""
    (folder / "images").mkdir()
    images, annotations = [], []
    for index, ((height, width), boxes, labels) in enumerate(pictures):
        Image.new("RGB", (width, height), (index % 256, 90, 160)).save(folder / "images" / f"{index}.png")
        images.append({"id": index, "file_name": f"{index}.png", "height": height, "width": width})
        for box, label in zip(boxes, labels, strict=True):
            row = {
                "id": len(annotations),
                "image_id": index,
                "category_id": int(label),
                "bbox": [float(x) for x in box],
            }
            annotations.append(row)
    categories = [{"id": label, "name": name} for label, name in enumerate(classes)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "labels.json").write_text(json.dumps(content))
    split = {"images": "images", "annotations": "labels.json"}
    (folder / "data.yaml").write_text(yaml.safe_dump({"train": split, "val": split}))
    return folder / "data.yaml"


def losses_of(out):
    rows = csv.DictReader((out / "metrics.csv").read_text().splitlines())
    return [float(value) for row in rows for name, value in row.items() if name.startswith("train/") and value]


def trained(recipe, data, out, **options):
    model = gfocal.train(recipe, data, out, **({"workers": 0, "device": "cpu", "steps": 3, "batch": 2} | options))
    assert losses_of(out)
    assert all(math.isfinite(value) for value in losses_of(out))
    assert all(value.isfinite().all() for value in model.detector.state_dict().values())
    return model


def many_boxes(count, seed=0):
    generator = np.random.default_rng(seed)
    corner = generator.uniform(0, 80, (count, 2))
    return np.concatenate([corner, generator.uniform(2, 40, (count, 2))], axis=1)


EDGES = {
    "only empty pictures": [((64, 64), [], [])] * 3,
    "one picture": [((64, 96), [(8, 8, 30, 30)], [0])],
    "a picture of one pixel": [((1, 1), [(0, 0, 1, 1)], [0]), ((64, 64), [(8, 8, 30, 30)], [0])],
    "a picture of one row": [((1, 4000), [(100, 0, 500, 1)], [0]), ((4000, 1), [], [])],
    "3,000 boxes in a picture": [((96, 128), many_boxes(3000), [0] * 3000), ((96, 128), [], [])],
    "boxes of no size and beyond": [((64, 64), [(8, 8, 0, 10), (60, 60, 50, 50), (-20, -20, 30, 30)], [0] * 3)],
}


@pytest.mark.parametrize("name", EDGES)
def test_it_trains(recipe, tmp_path, name):
    trained(recipe, written(tmp_path, EDGES[name]), tmp_path / "run")


def test_two_thousand_classes_train(recipe, tmp_path):
    pictures = [((64, 64), [(8, 8, 30, 30), (20, 20, 30, 30)], [7, 1999])]
    data = written(tmp_path, pictures, classes=[f"class {index}" for index in range(2000)])
    assert len(trained(recipe, data, tmp_path / "run").class_names) == 2000


@pytest.mark.parametrize("name", ["atss_r50_fpn_1x", "fcos_r50_fpn_1x", "retinanet_r50_fpn_1x", "foveabox_r50_fpn_1x"])
@pytest.mark.parametrize("edge", ["only empty pictures", "3,000 boxes in a picture"])
def test_every_family_trains_on_it(recipe, tmp_path, name, edge):
    full = get_recipe(name)
    small = {"backbone": BackboneConfig(name="resnet18", weights="none", width=0.25), "head": recipe.head}
    small |= {"schedule": recipe.schedule, "pictures": full.pictures.model_copy(update={"short": 96, "long": 160})}
    small["pictures"] = small["pictures"].model_copy(update={"train_short": (96, 96)})
    trained(full.model_copy(update=small), written(tmp_path, EDGES[edge]), tmp_path / "run", steps=2)


def test_boxes_without_size_are_counted_and_listed(recipe, tmp_path, caplog):
    data = written(tmp_path, EDGES["boxes of no size and beyond"])
    trained(recipe, data, tmp_path / "run")
    rows = list(csv.DictReader((tmp_path / "run" / "left_out.csv").read_text().splitlines()))
    assert [(row["kind"], row["where"]) for row in rows] == [("small", "0.png")]
    assert "1 of its boxes" in rows[0]["what"]
    assert "left out of the training: 1 small" in caplog.text


@pytest.mark.timeout(120)
def test_workers_start_although_opencv_has_threads_of_its_own(recipe, data, tmp_path):
    threads = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        for _ in range(3):
            cv2.cvtColor(np.zeros((2000, 2000, 3), np.uint8), cv2.COLOR_RGB2HSV)
        gfocal.train(recipe, data, tmp_path / "run", workers=1, device="cpu", steps=1)
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(threads)


def test_a_broken_picture_ends_the_run_or_is_left_out_as_asked(recipe, data, tmp_path, caplog):
    (data.parent / "images" / "3.png").write_bytes(b"not a picture")
    options = {"workers": 0, "device": "cpu", "steps": 6, "batch": 4}
    still = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"validations": 1})})
    with pytest.raises(UserError, match=r"3\.png: not a picture"):
        gfocal.train(still, data, tmp_path / "first", **options)
    for workers in (0, 1):
        out = tmp_path / f"skipping-{workers}"
        gfocal.train(still, data, out, **(options | {"workers": workers}), on_bad_data="skip")
        rows = list(csv.DictReader((out / "left_out.csv").read_text().splitlines()))
        assert [(row["kind"], row["where"]) for row in rows] == [("picture", "3.png")]
    assert "left out of the training: 1 picture" in caplog.text
    assert "1 pictures of the val split cannot be read" in caplog.text
    for path in (data.parent / "images").iterdir():
        path.write_bytes(b"not a picture")
    with pytest.raises(UserError, match="no picture of the data set can be read"):
        gfocal.train(still, data, tmp_path / "none", **options, on_bad_data="skip")


def test_a_broken_annotation_ends_the_run_or_is_left_out_as_asked(recipe, data, tmp_path):
    path = data.parent / "labels.json"
    content = json.loads(path.read_text())
    content["annotations"][2]["bbox"] = [1, 2, -3, 4]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"annotations\[2\]\.bbox"):
        gfocal.train(recipe, data, tmp_path / "first", workers=0, device="cpu")
    assert not (tmp_path / "first").exists()
    gfocal.train(recipe, data, tmp_path / "second", workers=0, device="cpu", on_bad_data="skip")
    listed = (tmp_path / "second" / "left_out.csv").read_text()
    assert "annotations[2]" in listed


def test_pictures_too_small_for_batch_norms_are_refused_with_what_to_do(recipe, data, tmp_path):
    says = "one picture of 32 × 32 pixels at a time leaves.* give a larger --batch or --size"
    with pytest.raises(UserError, match=says):
        trained(recipe, data, tmp_path / "run", size=(32, 32), batch=1)


def test_names_that_are_not_utf8_are_shown_and_listed(recipe, data, tmp_path):
    images, labels = data.parent / "images", data.parent / "labels.json"
    content = json.loads(labels.read_text())
    for row, name in zip(content["images"], ("\udcff.png", "\udcfe.png"), strict=False):
        (images / row["file_name"]).rename(images / name)
        row["file_name"] = name
    (images / "\udcfe.png").write_bytes(b"not a picture")
    labels.write_text(json.dumps(content))
    trained(recipe, data, tmp_path / "run", on_bad_data="skip", batch=8, steps=1)
    rows = list(csv.DictReader((tmp_path / "run" / "left_out.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["kind"] for row in rows] == ["picture"]


def test_a_fault_whose_name_is_not_utf8_is_listed_once(tmp_path):
    fault = Fault("picture", "\udcff.png", "not a picture")
    for goes_on in (False, True):
        LeftOut(tmp_path, goes_on=goes_on).note([fault])
    assert (tmp_path / "left_out.csv").read_text(encoding="utf-8").splitlines()[1:] == ["picture,?.png,not a picture"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"on_bad_data": "ignore"}, "unknown on_bad_data 'ignore'"),
        ({"batch": -1}, "batch is -1"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"loggers": ["neptune"]}, "unknown logger 'neptune'"),
        ({"freeze": ["backbone.nothing"]}, "is no part of the detector"),
        ({"average": 1.5}, "average"),
        ({"freeze": ["backbone", "neck", "trunk", "outputs", "scales"]}, "nothing is left to learn"),
    ],
)
def test_settings_that_make_no_sense_are_refused(recipe, data, tmp_path, options, says):
    with pytest.raises(UserError, match=says):
        gfocal.train(recipe, data, tmp_path / "run", workers=0, device="cpu", **options)


def test_assigning_3000_boxes_takes_little_memory():
    """The pairs of boxes and locations are never all in memory: 3,000 boxes on 22,400 locations are 67 million."""
    import resource

    from gfocal.families import FAMILIES
    from gfocal.structures import GroundTruth

    boxes = torch.as_tensor(many_boxes(3000), dtype=torch.float32) * 10
    boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
    truth = GroundTruth(
        boxes, torch.zeros(3000, dtype=torch.long), torch.zeros(3000, dtype=torch.long), torch.tensor([[800.0, 1344.0]])
    )
    for name in ("atss", "fcos", "retinanet", "foveabox"):
        family = FAMILIES[name]()
        features = [torch.zeros(1, 1, -(-800 // s), -(-1344 // s)) for s in family.priors.strides]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        match = family.assigner(family.priors(features), truth)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        assert match.positive.any(), name
        assert grown < 1.5e9, name


def test_bins_that_are_too_short_for_the_boxes_are_told(recipe, tmp_path, caplog):
    data = written(tmp_path, [((320, 320), [(2, 2, 310, 310)], [0])])
    short = recipe.model_copy(update={"box": {"name": "general", "n": 4, "delta": 1.0}})
    trained(short, data, tmp_path / "run", steps=1)
    assert "lie beyond the bins of this recipe (n = 4, delta = 1)" in caplog.text
    caplog.clear()
    trained(recipe, data, tmp_path / "long", steps=1)
    assert "beyond the bins" not in caplog.text


@pytest.mark.skipif(not (SHARED / "bccd_voc").is_dir(), reason="the real pictures are not at hand")
def test_the_blood_cells_of_voc_train_as_those_of_coco_do(recipe, tmp_path, caplog):
    voc = tmp_path / "voc"
    voc.mkdir()
    for part in ("Annotations", "ImageSets"):
        (voc / part).symlink_to(SHARED / "bccd_voc" / part)
    (voc / "JPEGImages").symlink_to(SHARED / "bccd" / "images")
    (voc / "classes.txt").write_text("RBC\nWBC\nPlatelets\n")  # the order of the COCO file; else it is the alphabet's
    small = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"validations": 0})})
    options = {"workers": 0, "device": "cpu", "size": (96, 128), "steps": 52, "batch": 4}
    first = gfocal.train(small, SHARED / "bccd" / "data.yaml", tmp_path / "coco", **options).detector.state_dict()
    second = gfocal.train(small, voc, tmp_path / "run", **options).detector.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    # one of the two boxes without size is in the train split
    assert "left out of the training: 1 small" in caplog.text
    assert "BloodImage_00343.jpg" in (tmp_path / "run" / "left_out.csv").read_text()
    assert not (tmp_path / "coco" / "left_out.csv").exists()
