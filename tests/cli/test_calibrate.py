"""`gfocal calibrate` on a model and on arrays of a head, from the files to the model it leaves behind."""

import json

import numpy as np
import pytest
import torch

import gfocal
from commands import ran
from gfocal.config import BackboneConfig, HeadConfig
from gfocal.data.scenes import CLASS_NAMES, Scenes
from gfocal.testing import detect
from helpers import loud, save_eager_model


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """A head that is right about its boxes, with edges too sharp: 12 pictures, npz and COCO JSON."""
    folder = tmp_path_factory.mktemp("heads")
    rng = np.random.default_rng(0)
    rows = {name: [] for name in ("image_id", "scores", "logits", "points", "stride")}
    annotations, images = [], []
    for image in range(1, 13):
        images.append({"id": image, "file_name": f"{image}.jpg", "height": 500, "width": 500})
        for place in range(6):
            point = np.array([80 + 170 * (place % 3), 120 + 250 * (place // 3)], float)
            sides = rng.uniform(20, 60, 4)
            left, top, right, bottom = (
                point[0] - sides[0],
                point[1] - sides[1],
                point[0] + sides[2],
                point[1] + sides[3],
            )
            label = place % 2
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": label + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": 0,
                }
            )
            said = (sides + rng.normal(0, 4, 4)) / 10
            rows["image_id"].append(image)
            rows["scores"].append([0.8, 0.1] if label == 0 else [0.1, 0.8])
            rows["logits"].append(-8 * (np.arange(8) - said[:, None]) ** 2)
            rows["points"].append(point)
            rows["stride"].append(10.0)
    np.savez(folder / "head.npz", **{name: np.array(values, np.float32) for name, values in rows.items()} | {
        "image_id": np.array(rows["image_id"])
    })  # fmt: skip
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    (folder / "labels.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return folder / "head.npz", folder / "labels.json"


def test_arrays_of_a_head_are_calibrated_and_reported(capsys, heads, tmp_path):
    npz, labels = heads
    save = tmp_path / "calibration.json"
    options = ("--splits", "3", "--least", "10", "--save", save, "-o", tmp_path / "page.html")
    code, out, err = ran(capsys, "calibrate", npz, "--data", labels, *options)
    assert code == 0
    assert "reported on  6 pictures with 36 matched boxes" in out
    assert "uncalibrated" in out
    assert "2 classes have bands of their own" in out
    assert "over 3 splits" in out
    assert str(save) in err
    assert json.loads(save.read_text())["class_names"] == ["cat", "dog"]
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")


def test_the_report_is_json_on_demand_and_repeatable(capsys, heads):
    npz, labels = heads
    _, first, _ = ran(capsys, "calibrate", npz, "--data", labels, "--json", "--seed", "5")
    _, second, _ = ran(capsys, "calibrate", npz, "--data", labels, "--json", "--seed", "5")
    assert first == second
    report = json.loads(first)
    assert report["before"]["intervals"][2]["mass"] == 0.9
    # the head is too sure of its edges by construction, and the temperature says so
    assert min(report["calibration"]["temperatures"][-1]) > 1
    assert report["tempered"]["likelihood"] < report["before"]["likelihood"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save_eager_model(folder)
    return folder


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--fit-share", "1"), "between 0 and 1"),
        (("--save", "out.pth"), ".safetensors"),
        (("--save", "out.safetensors"), "no weights"),
        (("--spread", "wide"), "spread"),
        (("--iou", "1"), "no detection matches"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_mistakes_end_in_one_line(capsys, heads, options, says):
    npz, labels = heads
    code, out, err = ran(capsys, "calibrate", npz, "--data", labels, *options)
    last = err.splitlines()[-1]
    assert (code, out) == (2, "")
    assert last.startswith("gfocal: ")
    assert says in last


def test_a_model_is_calibrated_saved_and_predicts_with_bands(tmp_path, run_folder):
    scenes = Scenes(length=6, seed=3)
    loose = {"iou": 0.05, "same_class": False}  # the network has learnt nothing, but its boxes lie somewhere
    report, calibrated = gfocal.calibrate(run_folder, scenes, **loose)
    assert report.softness is not None
    assert calibrated.calibration == report.calibration
    calibrated.save(tmp_path / "calibrated.safetensors")
    back = gfocal.load(tmp_path / "calibrated.safetensors", device="cpu")
    assert back.calibration == report.calibration
    seen = back.predict(scenes.picture(0), threshold=0.0)
    assert len(seen.bands) == len(seen) > 0
    (_, found), *_ = detect(back, scenes)
    assert found.bands is not None
    # what is calibrated already is calibrated anew, from what the plain model finds
    assert gfocal.calibrate(back, scenes, **loose)[0].calibration == report.calibration


def test_another_split_may_be_fitted_on(capsys, heads, tmp_path):
    npz, labels = heads
    (tmp_path / "data.yaml").write_text(
        "".join(f"{split}: {{images: ., annotations: {labels}}}\n" for split in ("train", "val"))
    )
    code, out, _ = ran(capsys, "calibrate", npz, "--data", tmp_path / "data.yaml", "--fit-split", "train")
    assert code == 0
    assert "fitted on    12 pictures with 72 matched boxes" in out
    assert "reported on  12 pictures with 72 matched boxes" in out


def model_with_boxes(name):
    recipe = gfocal.get_recipe("gflv2_r18_mini").model_copy(
        update={
            "quality": {"name": "joint"},
            "box": {"name": name},
            "class_names": CLASS_NAMES,
            "backbone": BackboneConfig(name="resnet10t", weights="none", width=0.25),
            "head": HeadConfig(channels=64, depth=1),
        }
    )
    return gfocal.build(recipe, device="cpu")


def test_a_spread_is_not_predicted_without_distributions():
    with pytest.raises(gfocal.UserError, match=r"'dirac', which predict no spread: take spread 'side'"):
        gfocal.calibrate(model_with_boxes("dirac"), Scenes(length=4, seed=3), spread="predicted")


def test_gaussian_boxes_predict_a_spread():
    torch.manual_seed(0)
    loose = {"iou": 0.01, "same_class": False}
    model = loud(model_with_boxes("gaussian"))
    report, _ = gfocal.calibrate(model, Scenes(length=6, seed=3), spread="predicted", **loose)
    assert report.calibration.spread == "predicted"
