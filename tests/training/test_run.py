"""A training run learns, leaves a whole folder behind, and refuses what cannot be trained before making one."""

import csv
import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml

import gfocal
from commands import ran
from gfocal.config import Recipe, ScheduleConfig
from gfocal.data.dataset import FolderDataset
from gfocal.errors import UserError
from gfocal.recipes import get_recipe
from gfocal.testing import detect
from gfocal.training.optimizer import learning_rate_factor

SHARED = Path(__file__).parents[3] / "shared" / "data"


def test_a_run_leaves_recipe_curves_and_weights(recipe, data, tmp_path):
    out = tmp_path / "runs" / "first"
    model = gfocal.train(recipe, data, out, workers=0, device="cpu")
    assert sorted(path.name for path in out.iterdir()) == [
        "best.safetensors",
        "last.safetensors",
        "metrics.csv",
        "recipe.yaml",
        "run.json",
        "tensorboard",
    ]
    resolved = Recipe.from_yaml((out / "recipe.yaml").read_text(), where="recipe.yaml")
    assert resolved.class_names == ("left", "right")
    assert gfocal.load(out, device="cpu").recipe == resolved == model.recipe
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert {"train/cls", "train/box", "train/dfl", "train/loss", "val/ap"} <= rows[0].keys()
    assert any(path.stat().st_size > 0 for path in (out / "tensorboard").iterdir())
    with pytest.raises(UserError, match="holds a run already"):
        gfocal.train(recipe, data, out, workers=0, device="cpu")


def test_the_same_seed_gives_the_same_weights(recipe, data, tmp_path):
    first, second, other = (
        gfocal.train(recipe, data, tmp_path / name, seed=seed, workers=0, device="cpu").detector.state_dict()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_options_replace_what_the_recipe_says(recipe, data, tmp_path):
    model = gfocal.train(
        recipe, data, tmp_path / "run", batch=2, epochs=1, size=(64, 96), weights="none", workers=0, device="cpu"
    )
    schedule = model.recipe.schedule
    assert (schedule.batch, schedule.epochs, schedule.steps) == (2, 1, None)
    assert schedule.lr == pytest.approx(recipe.schedule.lr / 2)
    assert (model.recipe.pictures.short, model.recipe.pictures.long) == (64, 96)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"weights": "coco"}, "coco: no such file or folder"),
        ({"size": (100, 50)}, "short side"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"precision": "int3"}, "unknown precision 'int3'"),
        ({"batch": 0}, "batch is 0: must be at least 1"),
    ],
)
def test_mistakes_leave_nothing_behind(recipe, data, tmp_path, options, says):
    out = tmp_path / "run"
    with pytest.raises(UserError, match=says):
        gfocal.train(recipe, data, out, workers=0, **({"device": "cpu"} | options))
    assert not out.exists()


@pytest.mark.parametrize(
    ("splits", "says"),
    [
        (("valid",), "data: holds valid, but no 'train': give"),
        ((), "data: holds nothing, but no 'train': give"),
        (("train", "val"), "data: its train split holds no picture"),
    ],
)
def test_open_data_sets_that_cannot_be_learnt_are_refused_in_one_line(recipe, tmp_path, splits, says):
    data = {name: FolderDataset(("left", "right"), ()) for name in splits}
    with pytest.raises(UserError) as caught:
        gfocal.train(recipe, data, tmp_path / "run", workers=0, device="cpu")
    assert str(caught.value).startswith(says)


def test_imagenet_weights_without_network_are_explained(data, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read once, on import
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    recipe = get_recipe("gfl_r50_fpn_1x").model_copy(
        update={"backbone": get_recipe("gfl_r50_fpn_1x").backbone.model_copy(update={"name": "resnet18.tv_in1k"})}
    )
    with pytest.raises(UserError, match="give weights 'none'"):
        gfocal.train(recipe, data, tmp_path / "run", workers=0, device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_broken_picture_is_named_from_within_a_worker(recipe, data, tmp_path):
    (data.parent / "images" / "3.png").write_bytes(b"not a picture")
    with pytest.raises(UserError) as caught:
        gfocal.train(recipe, data, tmp_path / "run", workers=1, device="cpu")
    assert "3.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_detect_yields_every_picture_in_order_in_its_own_pixels(recipe, data):
    model = gfocal.build(recipe.model_copy(update={"class_names": ("left", "right")}), device="cpu")
    dataset = gfocal.data.opening.open_dataset(data, "val")
    pairs = list(detect(model, dataset, batch=3))
    assert [truth.image_id for truth, _ in pairs] == list(range(8))
    alone = [found for _, found in detect(model, dataset, batch=1)]
    for (_, together), single in zip(pairs, alone, strict=True):
        assert len(together) == len(single)


def test_evaluate_refuses_other_classes_and_saves_results(recipe, data, tmp_path):
    wrong = gfocal.build(recipe, device="cpu")
    with pytest.raises(UserError, match="has 2 classes, the model 3"):
        gfocal.evaluate(wrong, data)
    named = gfocal.build(recipe.model_copy(update={"class_names": ("left", "write")}), device="cpu")
    with pytest.raises(UserError, match="class 1 is 'right' in the data set but 'write'"):
        gfocal.evaluate(named, data)
    model = gfocal.build(recipe.model_copy(update={"class_names": ("left", "right")}), device="cpu")
    with torch.no_grad():
        model.detector.outputs_of(0).quality.cls.bias.fill_(3.0)
    metrics = gfocal.evaluate(model, data, save=tmp_path / "results.json", batch=4)
    assert metrics.num_boxes == 8
    results = json.loads((tmp_path / "results.json").read_text())
    assert {row["category_id"] for row in results} <= {1, 2}
    assert len(results) > 0


def test_the_size_scales_the_canvas_of_a_jitter(recipe, data, tmp_path):
    pictures = {"short": 128, "long": 160, "jitter": (0.5, 2.0), "jitter_size": (256, 320)}
    jittered = recipe.model_copy(update={"pictures": recipe.pictures.model_copy(update=pictures)})
    model = gfocal.train(
        jittered, data, tmp_path / "run", size=(64, 96), steps=1, weights="none", workers=0, device="cpu"
    )
    assert model.recipe.pictures.jitter_size == (128, 160)


@pytest.mark.parametrize("decay", ["step", "cosine"])
def test_learning_rate_warms_up_and_decays(decay):
    schedule = ScheduleConfig(decay=decay, warmup=10, warmup_factor=0.01, milestones=(0.5, 0.75))
    factor = learning_rate_factor(schedule, 100)
    values = [factor(step) for step in range(100)]
    assert values[0] == pytest.approx(0.01, rel=0.02)
    assert all(a < b for a, b in pairwise(values[:10]))
    assert all(a >= b for a, b in pairwise(values[10:]))
    if decay == "step":
        assert values[49] == 1
        assert values[50] == pytest.approx(0.1)
        assert values[75] == pytest.approx(0.01)
    else:
        assert values[99] < 0.001


# ---------------------------------------------------------------- going on from weights


def saved_model(recipe, path, class_names):
    model = gfocal.build(recipe.model_copy(update={"class_names": class_names}), device="cpu")
    model.save(path)
    return model


def test_training_goes_on_from_weights_of_the_same_classes(recipe, data, tmp_path, caplog):
    caplog.set_level("INFO", "gfocal")
    start = saved_model(recipe, tmp_path / "start.safetensors", ("left", "right"))
    still = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"lr": 1e-9, "validations": 0})})
    options = {"steps": 1, "workers": 0, "device": "cpu", "seed": 3}
    after = gfocal.train(still, data, tmp_path / "run", weights=tmp_path / "start.safetensors", **options)
    assert "starting from all weights of" in caplog.text
    for name, parameter in after.detector.named_parameters():
        torch.testing.assert_close(parameter, start.detector.get_parameter(name), atol=1e-6, rtol=1e-5)


def test_other_classes_keep_all_but_the_class_layers_and_it_is_said(recipe, data, tmp_path, caplog):
    caplog.set_level("INFO", "gfocal")
    start = saved_model(recipe, tmp_path / "start.safetensors", ("cat", "dog", "cow"))
    still = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"lr": 1e-9, "validations": 0})})
    options = {"steps": 1, "workers": 0, "device": "cpu", "seed": 3}
    after = gfocal.train(still, data, tmp_path / "run", weights=tmp_path / "start.safetensors", **options)
    assert "these start anew: outputs.0.quality.cls.weight, outputs.0.quality.cls.bias" in caplog.text
    assert after.class_names == ("left", "right")
    for name, parameter in after.detector.named_parameters():
        if not name.startswith("outputs.0.quality.cls."):
            torch.testing.assert_close(parameter, start.detector.get_parameter(name), atol=1e-6, rtol=1e-5)


def test_weights_of_another_model_are_refused_before_anything_is_made(recipe, data, tmp_path):
    wide = recipe.model_copy(update={"backbone": recipe.backbone.model_copy(update={"width": 0.5})})
    saved_model(wide, tmp_path / "start.safetensors", ("left", "right"))
    with pytest.raises(UserError, match=r"start\.safetensors: does not fit the model"):
        gfocal.train(recipe, data, tmp_path / "run", weights=tmp_path / "start.safetensors", workers=0, device="cpu")
    with pytest.raises(UserError, match=r"nowhere\.pth: no such file"):
        gfocal.train(recipe, data, tmp_path / "run", weights="nowhere.pth", workers=0, device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real pictures are not at hand")
def test_overfitting_eight_real_pictures_drives_ap_above_ninety(tmp_path):
    content = json.loads((SHARED / "bccd" / "train.json").read_text())
    eight = content["images"][:8]
    numbers = {image["id"] for image in eight}
    content["images"] = eight
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] in numbers]
    (tmp_path / "eight.json").write_text(json.dumps(content))
    split = {"images": str(SHARED / "bccd" / "images"), "annotations": "eight.json"}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"train": split, "val": split}))
    mini = get_recipe("gflv2_r18_mini")
    pictures = mini.pictures.model_copy(update={"flip": 0.0, "train_short": (320, 320)})
    model = gfocal.train(
        mini.model_copy(update={"pictures": pictures}), tmp_path / "data.yaml", tmp_path / "run", steps=400, workers=1
    )
    assert gfocal.evaluate(model, tmp_path / "data.yaml").ap > 0.9


def test_splits_must_have_the_same_classes(recipe, data, tmp_path):
    content = json.loads((data.parent / "labels.json").read_text())
    names = [row["name"] for row in content["categories"]]
    for row, name in zip(content["categories"], reversed(names), strict=True):
        row["name"] = name
    (data.parent / "other.json").write_text(json.dumps(content))
    mixed = data.parent / "mixed.yaml"
    mixed.write_text(
        "train: {images: images, annotations: labels.json}\nval: {images: images, annotations: other.json}"
    )
    with pytest.raises(UserError, match="same classes in the same order"):
        gfocal.train(recipe, mixed, tmp_path / "run", workers=0, device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--freeze", "nonsense"), "nonsense"),
        (("--size", 100, 50), "size 100 50"),
        (("--ema", 2), "average"),
        (("--precision", "float8"), "float8"),
        (("--device", "foo"), "foo"),
        (("--weights", "nowhere.pth"), "nowhere.pth"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line_and_leaves_nothing(recipe, data, capsys, options, says):
    path, out = data.with_name("recipe.yaml"), data.with_name("run")
    path.write_text(recipe.to_yaml())
    code, _, err = ran(capsys, "train", "--recipe", path, "--data", data, "--out", out, "--workers", 0, *options)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert says in err
    assert not out.exists()
