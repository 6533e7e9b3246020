"""The command line: every verb on real files, and every mistake as one line with exit code 2."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gfocal
from gfocal.cli.__main__ import main
from helpers import save_eager_model


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


def ran(capsys, *arguments):
    """Return exit code, standard output and standard error of a command."""
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


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


def test_predict_draws_every_picture_and_prints_json(capsys, run_folder, picture, tmp_path):
    out_folder = tmp_path / "drawn"
    code, out, _ = ran(capsys, "predict", run_folder, picture, "--out", out_folder, "--threshold", "0", "--json")
    assert code == 0
    row = json.loads(out)
    assert (row["height"], row["width"]) == (80, 120)
    assert row["boxes"]
    assert row["boxes"][0].keys() == {"label", "score", "box", "edge_std", "quality"}
    with Image.open(out_folder / "picture.png") as drawn:
        assert drawn.width % 120 == 0
    assert [path.name for path in out_folder.iterdir()] == ["picture.png"]


def test_predict_takes_folders_and_keeps_equal_names_apart(capsys, run_folder, picture, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "same.jpg").write_bytes(picture.read_bytes())
    code, out, _ = ran(capsys, "predict", run_folder, tmp_path / "in", "--out", tmp_path / "out", "--no-edges")
    assert code == 0
    assert len(out.splitlines()) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["same-2.png", "same.png"]


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


def test_demo_replaces_a_former_run_scores_and_writes_one_page(capsys, tmp_path):
    out = tmp_path / "demo"
    out.mkdir()
    for name in ("recipe.yaml", "of_a_former_run.txt"):
        (out / name).write_text("old")
    code, text, _ = ran(capsys, "demo", "--out", out, "--steps", "2")
    assert code == 0
    assert "on 200 held-out scenes" in text
    page = (out / "report.html").read_text()
    assert page.count("<svg") >= 12
    assert "scene-2-000011" in page
    assert "steps: 2" in (out / "recipe.yaml").read_text()
    assert not (out / "of_a_former_run.txt").exists()
