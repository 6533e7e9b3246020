"""The command line: every verb on real files, and every mistake as one line with exit code 2."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gfocal
from commands import ran
from gfocal.data.scenes import CLASS_NAMES
from gfocal.demo import _MARKED, MARKER
from helpers import official_name, save_eager_model


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run of the smallest detector that knows the classes of scenes, with random weights."""
    folder = tmp_path_factory.mktemp("run")
    save_eager_model(folder)
    return folder


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)).save(path)
    return path


def refused(capsys, *arguments):
    """Return the one line on standard error that a mistake must end with."""
    code, out, err = ran(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("gfocal: ")
    return err


def test_help_answers_without_torch_and_says_what_comes_next():
    code = (
        "import sys\nfrom gfocal.cli.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print('torch' in sys.modules, 'lightning' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"
    assert "gfocal demo" in done.stdout


def test_sigterm_ends_a_command_as_an_interrupt_does(tmp_path):
    code = (
        "import os, signal, sys\nfrom gfocal.cli import __main__ as cli\n"
        "def slow():\n    try:\n        os.kill(os.getpid(), signal.SIGTERM)\n        signal.pause()\n"
        "    finally:\n        print('tidied')\n"
        "cli.app.command('slow')(slow)\ncli.main(['slow'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, "tidied\n", "")


def test_a_demo_replaces_no_run_that_is_not_a_demos(capsys, tmp_path):
    (tmp_path / "recipe.yaml").write_text(gfocal.get_recipe("gflv2_r18_mini").to_yaml())
    (tmp_path / "run.json").write_text(json.dumps({"data": "scenes", "loggers": []}))
    (tmp_path / "demo.txt").write_text("notes")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert "holds something that no demo made" in refused(capsys, "demo", "--steps", 1, "--out", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_demo_needs_a_folder(capsys, picture):
    assert "not a folder" in refused(capsys, "demo", "--steps", 1, "--out", picture)


def test_what_goes_alone_is_not_given_more(capsys, tmp_path):
    assert "--workers does not go with --resume" in refused(capsys, "train", "--resume", tmp_path, "--workers", 5)
    assert "--seed does not go with --replay" in refused(capsys, "train", "--replay", tmp_path / "a.pt", "--seed", 1)


@pytest.mark.parametrize("verb", ["demo", "train", "evaluate", "predict", "recipes"])
def test_each_verb_has_help_with_the_next_step(capsys, verb):
    code, out, _ = ran(capsys, verb, "--help")
    assert code == 0
    assert "Next:" in out or verb == "recipes"


def test_recipes_are_listed_and_shown_as_yaml_that_loads_back(capsys, tmp_path):
    code, out, _ = ran(capsys, "recipes")
    assert code == 0
    assert all(name in out for name in gfocal.recipes.RECIPES)
    code, out, _ = ran(capsys, "recipes", "show", "gflv2_r50_fpn_1x")
    (tmp_path / "mine.yaml").write_text(out)
    assert gfocal.get_recipe(tmp_path / "mine.yaml") == gfocal.get_recipe("gflv2_r50_fpn_1x")


def test_evaluate_prints_the_figures_and_saves_results(capsys, run_folder, tmp_path):
    save = tmp_path / "results.json"
    options = ("--device", "cpu", "--workers", "0", "--batch", "8", "--save", save)
    code, out, err = ran(capsys, "evaluate", run_folder, "--data", "scenes", *options)
    assert code == 0
    assert out.startswith("200 pictures, ")
    assert "AP50" in out
    assert "evaluating" in err
    assert json.loads(save.read_text())


@pytest.fixture
def two_pictures(tmp_path):
    """A data set of two small pictures with a box each, of the classes of scenes."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels[0]).save(tmp_path / "a.png")
    Image.fromarray(pixels[1]).save(tmp_path / "b.png")
    labels = {
        "images": [
            {"id": number, "file_name": name, "height": 48, "width": 64}
            for number, name in ((7, "a.png"), (9, "b.png"))
        ],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 1, "bbox": [8, 8, 30, 30]} for number in (7, 9)
        ],
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(CLASS_NAMES)],
    }
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    (tmp_path / "data.yaml").write_text("val: {images: ., annotations: labels.json}")
    return tmp_path / "data.yaml"


def test_evaluate_sees_pictures_in_several_views(capsys, run_folder, two_pictures, tmp_path):
    save = tmp_path / "results.json"
    shared = ("evaluate", run_folder, "--data", two_pictures, "--device", "cpu", "--workers", "0", "--save", save)
    _, plain, _ = ran(capsys, *shared)
    one_view = json.loads(save.read_text())
    code, out, _ = ran(capsys, *shared, "--tta", "--scale", "1", "--no-flip")
    assert code == 0
    assert out == plain
    assert json.loads(save.read_text()) == one_view
    code, out, err = ran(capsys, *shared, "--tta", "--scale", "0.5", "--scale", "1", "--fuse", "distributions")
    assert code == 0
    assert out.startswith("2 pictures, 2 boxes")
    assert "evaluating" in err
    rows = json.loads(save.read_text())
    assert {row["image_id"] for row in rows} == {7, 9}
    assert rows != one_view
    for row in rows:
        left, top, width, height = row["bbox"]
        assert 0 <= left <= left + width <= 64.01
        assert 0 <= top <= top + height <= 48.01


@pytest.mark.parametrize(
    ("options", "says"),
    [(("--scale", "0"), "0.1..10"), (("--scale", "1", "--scale", "99"), "0.1..10"), (("--fuse", "edges"), "'edges'")],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_views_that_make_no_sense_are_refused(capsys, run_folder, two_pictures, options, says):
    assert says in refused(capsys, "evaluate", run_folder, "--data", two_pictures, "--tta", *options)


@pytest.mark.parametrize("options", [("--scale", "2"), ("--no-flip",), ("--fuse", "distributions")])
def test_options_of_views_without_views_are_refused(capsys, run_folder, two_pictures, options):
    assert "--tta" in refused(capsys, "evaluate", run_folder, "--data", two_pictures, *options)


def test_predict_draws_every_picture_and_prints_json(capsys, run_folder, picture, tmp_path):
    out_folder = tmp_path / "drawn"
    code, out, _ = ran(capsys, "predict", run_folder, picture, "--out", out_folder, "--threshold", "0", "--json")
    assert code == 0
    row = json.loads(out)
    assert (row["height"], row["width"]) == (80, 120)
    assert row["boxes"]
    assert row["boxes"][0].keys() == {
        *("label", "class", "score", "box", "quality", "level", "edge_std", "edge_interval")
    }
    with Image.open(out_folder / "picture.png") as drawn:
        assert drawn.width % 120 == 0
    assert (out_folder / "detections.jsonl").read_text() == out
    names = sorted(path.name for path in out_folder.iterdir())
    assert names == ["detections.jsonl", "picture.png", "predict.json"]


def test_predict_takes_folders_and_keeps_equal_names_apart(capsys, run_folder, picture, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "same.jpg").write_bytes(picture.read_bytes())
    code, out, _ = ran(capsys, "predict", run_folder, tmp_path / "in", "--out", tmp_path / "out", "--no-edges")
    assert code == 0
    assert len(out.splitlines()) == 2
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["same-2.png", "same.png"]


def bomb(path):
    """Write a valid PNG of 20,000 x 20,000 pixels in a few hundred kilobytes."""
    Image.MAX_IMAGE_PIXELS, kept = None, Image.MAX_IMAGE_PIXELS
    try:
        Image.new("1", (20_000, 20_000)).save(path)
    finally:
        Image.MAX_IMAGE_PIXELS = kept


def broken_pictures(folder, picture):
    """Return a folder's bad pictures by what each error must say."""
    (folder / "cut.jpg").write_bytes(picture.read_bytes()[:-200])
    (folder / "text.jpg").write_text("not a picture at all")
    (folder / "none.jpg").write_bytes(b"")
    bomb(folder / "bomb.png")
    return {"cut.jpg": "cut.jpg", "text.jpg": "text.jpg", "none.jpg": "none.jpg", "bomb.png": "178,956,970 pixels"}


def test_bad_pictures_are_refused_in_one_line_and_nothing_is_written(capsys, run_folder, picture, tmp_path):
    out = tmp_path / "out"
    for name, says in broken_pictures(tmp_path, picture).items():
        assert says in refused(capsys, "predict", run_folder, tmp_path / name, "--out", out)
    assert "missing.jpg" in refused(capsys, "predict", run_folder, tmp_path / "missing.jpg", "--out", out)
    (tmp_path / "empty").mkdir()
    assert "holds no picture" in refused(capsys, "predict", run_folder, tmp_path / "empty", "--out", out)
    assert not out.exists()


def test_predict_looks_at_tiles_and_leaves_out_what_is_asked(capsys, run_folder, picture, tmp_path):
    (picture.parent / "text.jpg").write_text("not a picture at all")
    options = ("--out", tmp_path / "out", "--no-draw", "--tile", "64", "--overlap", "16")
    code, out, err = ran(capsys, "predict", run_folder, tmp_path / "*.jpg", *options, "--on-bad-data", "skip")
    assert code == 0
    assert out.startswith(f"{picture}: ")
    assert len(out.splitlines()) == 1
    assert "left out: " in err
    assert "1 pictures, " in err.splitlines()[-1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["detections.jsonl", "predict.json"]
    with_whole = ("predict", run_folder, picture, "--out", tmp_path / "out", "--no-draw", "--resume")
    assert "with tile [64, 64], now it is None" in refused(capsys, *with_whole)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--overlap", "8"), "give --tile, too"),
        (("--tile", "64", "--overlap", "64"), "cannot overlap by 64"),
        (("--every", "0"), "--every"),
        (("--device", "cpu", "--precision", "float16"), "needs a GPU"),
        (("--devices", "gpu"), "unknown device 'gpu'"),
    ],
)
def test_options_of_predict_that_make_no_sense_are_refused(capsys, run_folder, picture, options, says):
    out = picture.parent / "out"
    assert says in refused(capsys, "predict", run_folder, picture, "--out", out, *options)
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("data.yaml", "train: [unclosed", "line"),
        ("data.yaml", "train: {images: pictures}", "annotations"),
        ("data.yaml", "train: {images: pictures, annotations: labels.json, colour: red}", "colour"),
        ("data.yaml", "", "empty"),
        ("recipe.yaml", "quality: {", "not valid YAML"),
        ("recipe.yaml", "name: x\nquality: {name: dgpq}", "recipe.yaml"),
    ],
)
def test_malformed_yaml_is_named(capsys, tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    data = tmp_path / "data.yaml" if name == "data.yaml" else "scenes"
    recipe = tmp_path / "recipe.yaml" if name == "recipe.yaml" else "gflv2_r18_mini"
    err = refused(capsys, "train", "--recipe", recipe, "--data", data, "--out", tmp_path / "run")
    assert says in err
    assert name in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "line 1"),
        ("[]", "the file is"),
        ('{"images": [], "annotations": []}', "categories"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "x"}]}', "images[0]"),
    ],
)
def test_malformed_json_is_named(capsys, run_folder, tmp_path, content, says):
    (tmp_path / "labels.json").write_text(content)
    (tmp_path / "data.yaml").write_text("val: {images: ., annotations: labels.json}")
    err = refused(capsys, "evaluate", run_folder, "--data", tmp_path / "data.yaml")
    assert says in err
    assert "labels.json" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "--recipe", "gflv2_r18_mni", "--data", "scenes"), "did you mean 'gflv2_r18_mini'"),
        (("train", "--recipe", "gflv2_r18_mini", "--data", "nowhere"), "nowhere"),
        (("train", "--recipe", "gflv2_r18_mini"), "data"),
        (("evaluate", "nowhere", "--data", "scenes"), "nowhere: no such file or folder"),
        (("nonsense",), "nonsense"),
        (("train", "--recipe", "gflv2_r18_mini", "--data", "scenes", "--batch", "many"), "--batch"),
        (("recipes", "show", "gfl"), "did you mean"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(capsys, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_wrong_classes_are_named(capsys, run_folder, tmp_path):
    (tmp_path / "labels.json").write_text(
        '{"images": [{"id": 1, "file_name": "a.jpg", "height": 9, "width": 9}], "annotations": [], '
        '"categories": [{"id": 1, "name": "x"}]}'
    )
    (tmp_path / "data.yaml").write_text("val: {images: ., annotations: labels.json}")
    assert "has 1 classes, the model 11" in refused(capsys, "evaluate", run_folder, "--data", tmp_path / "data.yaml")


def test_the_installed_command_runs_as_a_process():
    command = Path(sys.executable).with_name("gfocal")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == gfocal.__version__


# ---------------------------------------------------------------- weights


def test_convert_writes_one_file_that_predicts(capsys, picture, tmp_path):
    torch.save({"meta": {}, "state_dict": official_r18()}, tmp_path / "official.pth")
    code, out, _ = ran(capsys, "convert", tmp_path / "official.pth", tmp_path / "mine.safetensors")
    assert code == 0
    assert "official, 80 classes" in out
    code, out, _ = ran(
        capsys, "predict", tmp_path / "mine.safetensors", picture, "--out", tmp_path / "drawn", "--size", "64", "96"
    )
    assert code == 0


def official_r18():
    """A GFL V1 file of a ResNet-18, whose recipe no name stands for."""
    from gfocal.config import BackboneConfig

    base = gfocal.get_recipe("gfl_r50_fpn_1x")
    recipe = base.model_copy(update={"backbone": BackboneConfig(name="resnet18.tv_in1k")})
    state = gfocal.build(recipe, device="cpu").detector.state_dict()
    return {official_name(key): value.contiguous() for key, value in state.items()}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<!DOCTYPE html>", "a web page, not weights"),
        (b"", "not a PyTorch checkpoint"),
        (pickle.dumps(Path.cwd), "refused for safety"),
    ],
)
def test_convert_refuses_what_is_no_checkpoint_and_writes_nothing(capsys, tmp_path, content, says):
    (tmp_path / "bad.pth").write_bytes(content)
    assert says in refused(capsys, "convert", tmp_path / "bad.pth", tmp_path / "out.safetensors")
    torch.save({"state_dict": {"backbone.conv1.weight": torch.zeros(1)}}, tmp_path / "bad.pth")
    assert "name its recipe" in refused(capsys, "convert", tmp_path / "bad.pth", tmp_path / "out.safetensors")
    options = ("--recipe", "gfl_r50_fpn_1x")
    err = refused(capsys, "convert", tmp_path / "bad.pth", tmp_path / "out.safetensors", *options)
    assert "missing neck.lateral.0.weight" in err
    assert "backbone.conv1.weight is (1,)" in err
    assert ".safetensors" in refused(capsys, "convert", tmp_path / "bad.pth", tmp_path / "out.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pth"]


def test_a_split_without_annotations_gives_the_file_for_the_server(capsys, run_folder, picture, tmp_path):
    """As with COCO's test-dev, whose JSON has no annotations at all."""
    names = gfocal.load(run_folder).class_names
    content = {
        "images": [{"id": 7, "file_name": picture.name, "height": 80, "width": 120}],
        "categories": [{"id": 10 + index, "name": name} for index, name in enumerate(names)],
    }
    (tmp_path / "info.json").write_text(json.dumps(content))
    split = f"{{images: {picture.parent}, annotations: info.json}}"
    (tmp_path / "data.yaml").write_text(f"test-dev: {split}\ntrain: {split}\n")
    save = tmp_path / "results.json"
    code, out, _ = ran(
        capsys, "evaluate", run_folder, "--data", tmp_path / "data.yaml", "--split", "test-dev", "--save", save
    )
    assert code == 0
    assert "1 pictures without annotations" in out
    rows = json.loads(save.read_text())
    assert rows
    for row in rows:
        assert row.keys() == {"image_id", "category_id", "bbox", "score", "edge_std", "edge_interval"}
        assert row["image_id"] == 7
        assert row["category_id"] in range(10, 10 + len(names))
        assert all(isinstance(value, float) for value in (*row["bbox"], row["score"]))
        assert 0 <= row["score"] <= 1
        x, y, width, height = row["bbox"]
        assert 0 <= x <= x + width <= 120.01
        assert 0 <= y <= y + height <= 80.01
    # what is to be learnt from needs annotations
    assert "annotations is missing" in refused(
        capsys, "evaluate", run_folder, "--data", tmp_path / "data.yaml", "--split", "train"
    )


def test_demo_replaces_a_former_run_scores_and_writes_one_page(capsys, tmp_path):
    out = tmp_path / "demo"
    (out / "tensorboard").mkdir(parents=True)
    (out / MARKER).write_text(_MARKED)
    for name in ("recipe.yaml", "best.safetensors", "mine.txt"):
        (out / name).write_text("old")
    (out / "tensorboard" / "events").write_text("old")
    code, text, _ = ran(capsys, "demo", "--out", out, "--steps", "2")
    assert code == 0
    assert "on 200 held-out scenes" in text
    page = (out / "report.html").read_text()
    assert page.count("<svg") >= 12
    assert "scene-2-000011" in page
    assert "steps: 2" in (out / "recipe.yaml").read_text()
    assert (out / MARKER).read_text() == _MARKED
    assert not (out / "best.safetensors").exists()
    assert not (out / "tensorboard" / "events").exists()
    assert (out / "mine.txt").read_text() == "old"
