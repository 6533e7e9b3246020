"""A model finds the same boxes however a picture comes, in the picture's own pixels."""

import numpy as np
import pytest
import torch
from PIL import Image

import gfocal
from gfocal.errors import UserError
from helpers import loud


@pytest.fixture(scope="module")
def model():
    """A mini detector with random weights whose scores pass the test threshold."""
    torch.manual_seed(0)
    return loud(gfocal.build("gflv2_r18_mini", device="cpu"))


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)


def same(a, b):
    return torch.equal(a.boxes, b.boxes) and torch.equal(a.scores, b.scores) and torch.equal(a.labels, b.labels)


def test_path_array_and_pil_give_the_same(model, picture, tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(picture).save(path)
    found = model.predict(picture)
    assert len(found) > 5
    assert same(found, model.predict(path))
    assert same(found, model.predict(str(path)))
    assert same(found, model.predict(Image.fromarray(picture)))


def test_a_list_gives_a_list_in_its_order(model, picture):
    both = model.predict([picture, picture[:, ::-1].copy()])
    assert [len(found) > 0 for found in both] == [True, True]
    assert same(both[0], model.predict(picture))
    assert model.predict([]) == []


def test_boxes_lie_in_the_picture_and_follow_the_distributions(model, picture):
    found = model.predict(picture, size=(64, 96))
    height, width = picture.shape[:2]
    assert found.boxes.min() >= 0
    assert found.boxes[:, 2].max() <= width + 1e-3
    assert found.boxes[:, 3].max() <= height + 1e-3
    assert (found.scores.diff() <= 0).all()
    limit = torch.tensor([width, height, width, height], dtype=torch.float32)
    torch.testing.assert_close(found.edges.mean.clamp(min=0).minimum(limit), found.boxes, atol=1e-3, rtol=1e-4)
    assert found.quality.min() > 0
    assert found.quality.max() < 1


def test_threshold_only_leaves_out_lower_scores(model, picture):
    everything = model.predict(picture)
    middle = float(everything.scores.median())
    some = model.predict(picture, threshold=middle)
    assert 0 < len(some) < len(everything)
    assert some.scores.min() > middle
    assert torch.equal(some.boxes, everything.boxes[: len(some)])


@pytest.mark.parametrize("threshold", [50, 1.01, -0.1, float("nan")])
def test_a_threshold_that_is_no_score_is_refused(model, picture, threshold):
    with pytest.raises(UserError, match=f"threshold must be between 0 and 1, got {threshold}"):
        model.predict(picture, threshold=threshold)


def test_bfloat16_finds_about_the_same(model, picture):
    full, half = model.predict(picture, precision="float32"), model.predict(picture, precision="bfloat16")
    assert float(half.scores[0]) == pytest.approx(float(full.scores[0]), abs=0.05)


def test_save_and_load_give_the_same_model(model, picture, tmp_path):
    path = tmp_path / "model.safetensors"
    model.save(path)
    loaded = gfocal.load(path, device="cpu")
    assert loaded.recipe == model.recipe
    assert same(loaded.predict(picture), model.predict(picture))


def test_detector_is_left_as_it_was(model, picture):
    before = {key: value.clone() for key, value in model.detector.state_dict().items()}
    model.predict(picture, precision="bfloat16")
    after = model.detector.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        ({"size": (100, 50)}, "size must be"),
        ({"size": (64,)}, "size must be"),
        ({"size": 64}, "size must be"),
        ({"precision": "int3"}, "unknown precision 'int3'"),
        ({"precision": "float16"}, "needs a GPU"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_wrong_options_are_named(model, picture, mistake, says):
    with pytest.raises(UserError, match=says):
        model.predict(picture, **mistake)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nowhere.pth", "no such file or folder"),
        ("empty", "holds neither best.safetensors nor last.safetensors"),
        ("notes.txt", "weights are .safetensors or official .pth files"),
        ("gflv2_r50_fpn_1x", "is a recipe whose weights cannot be downloaded"),
    ],
)
def test_what_cannot_be_loaded_is_named(tmp_path, monkeypatch, source, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=says):
        gfocal.load(source)


def test_importing_gfocal_is_light():
    import subprocess
    import sys

    code = "import sys, gfocal; print([m for m in ('torch', 'lightning', 'timm', 'cv2') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
    assert ran.stderr == ""


def test_public_names_exist():
    assert len(gfocal.__all__) <= 30
    for name in gfocal.__all__:
        assert getattr(gfocal, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = gfocal.nope
