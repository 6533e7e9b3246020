"""A model or a head's outputs over pictures, as a page: what was found where, and whose truth is shown."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import gfocal
from gfocal.cli.__main__ import main
from gfocal.data.scenes import Scenes
from gfocal.draw.explain.material import Explained
from gfocal.errors import UserError
from gfocal.explaining import _of_heads, _of_model, _View, explain
from helpers import save_eager_model


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save_eager_model(folder)
    return folder


@pytest.fixture(scope="module")
def model(run_folder):
    return gfocal.load(run_folder, device="cpu")


def told(path):
    """The facts that a page holds of its pictures."""
    data = re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)
    assert data is not None
    return json.loads(data[1])["pictures"]


def seen(model, **options) -> tuple[np.ndarray, Explained]:
    picture = Scenes(length=1, seed=3).picture(0)
    view = _View("scene", lambda: picture)
    return picture, _of_model(model, view, **({"threshold": 0.02, "size": None, "precision": None} | options))


def test_boxes_are_those_that_predict_finds(model):
    picture, explained = seen(model)
    found = model.predict(picture, threshold=0.02)
    assert len(found) > 5
    for field in ("boxes", "scores", "labels"):
        assert torch.equal(getattr(explained.after, field), getattr(found, field)), field
    assert found.quality is not None
    torch.testing.assert_close(explained.after.quality, found.quality)
    assert found.edges is not None
    assert explained.after.edges is not None
    assert torch.equal(explained.after.edges.probabilities, found.edges.probabilities)


def test_each_box_knows_its_candidate_and_the_scores_of_all_classes_there(model):
    _, explained = seen(model)
    before, after = explained.before, explained.after
    assert len(before) > len(after)
    assert torch.equal(before.boxes[explained.source], after.boxes)
    assert torch.equal(before.labels[explained.source], after.labels)
    assert explained.class_scores is not None
    own = explained.class_scores.gather(1, before.labels[:, None])[:, 0]
    torch.testing.assert_close(own, before.scores)


@pytest.mark.parametrize("kind", ["soft_nms_linear", "soft_nms_gaussian"])
def test_soft_suppression_keeps_track_of_its_boxes(model, kind):
    from gfocal.ops.nms import SUPPRESSIONS

    name = next((name for name, function in SUPPRESSIONS.items() if function.__name__ == kind), None)
    assert name is not None
    soft = model.with_calibration(None)
    soft.postprocess = replace(model.postprocess, nms=name)
    _, explained = seen(soft)
    assert torch.equal(explained.before.boxes[explained.source], explained.after.boxes)
    assert (explained.after.scores <= explained.before.scores[explained.source]).all()


def test_a_data_set_brings_pictures_and_truth(model, tmp_path):
    out = tmp_path / "page.html"
    calls = []
    count = explain(
        model, out=out, data="scenes", limit=3, candidates=20, progress=lambda *counts: calls.append(counts)
    )
    assert count == 3
    assert calls == [(1, 3), (2, 3), (3, 3)]
    scenes = Scenes(length=200, seed=1)
    for index, picture in enumerate(told(out)):
        truth = scenes.truth(index)
        assert picture["name"] == truth.name
        assert len(picture["truth"]["boxes"]) == len(truth.boxes)
        assert len(picture["truth"]["softness"]) == len(truth.boxes)


def test_pictures_are_shown_without_truth_and_drawn_for_papers(model, tmp_path):
    for name in ("a.png", "sub/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(Scenes(length=1, seed=1).picture(0)).save(tmp_path / name)
    out, png = tmp_path / "out" / "page.html", tmp_path / "png"
    files = [tmp_path / "a.png", tmp_path / "sub"]
    score = float(model.predict(tmp_path / "a.png", threshold=0).scores[3])
    assert explain(model, files, out=out, png=png, threshold=0.02, first_score=score) == 2
    assert [picture["truth"] for picture in told(out)] == [None, None]
    assert {path.name for path in png.iterdir()} == {"a.png", "a-edges.png", "a-2.png", "a-2-edges.png"}


def test_stills_of_a_long_name_are_written(model, tmp_path):
    name = "n" * 240
    Image.fromarray(Scenes(length=1, seed=1).picture(0)).save(tmp_path / f"{name}.png")
    png = tmp_path / "png"
    explain(model, tmp_path / f"{name}.png", out=tmp_path / "page.html", png=png, threshold=0, first_score=0)
    assert {path.name for path in png.iterdir()} == {f"{name[:200]}{ending}.png" for ending in ("", "-edges")}


def own_data(folder):
    """A data set of one picture whose class is a scene's."""
    from gfocal.data.scenes import CLASS_NAMES

    (folder / "pictures").mkdir()
    Image.fromarray(Scenes(length=1, seed=1).picture(0)).save(folder / "pictures" / "7.png")
    content = {
        "images": [{"id": 7, "file_name": "7.png", "height": 192, "width": 192}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 10, 50, 40]}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASS_NAMES, start=1)],
    }
    (folder / "val.json").write_text(json.dumps(content))
    (folder / "data.yaml").write_text("val: {images: pictures, annotations: val.json}\n")
    return folder


def test_named_pictures_find_their_truth_in_the_data_set(model, tmp_path):
    data = own_data(tmp_path)
    assert explain(model, data / "pictures" / "7.png", out=tmp_path / "p.html", data=data) == 1
    assert told(tmp_path / "p.html")[0]["truth"]["boxes"] == [[10, 10, 60, 50]]
    other = tmp_path / "8.png"
    other.write_bytes((data / "pictures" / "7.png").read_bytes())
    with pytest.raises(UserError, match=r"8\.png: no picture of split val has this name"):
        explain(model, other, out=tmp_path / "p.html", data=data)


def test_pictures_of_one_name_are_told_apart_by_their_folders(model, tmp_path):
    data = own_data(tmp_path)
    content = json.loads((data / "val.json").read_text())
    images, boxes = [], []
    for number, folder in enumerate(("one", "two"), start=1):
        (data / "pictures" / folder).mkdir()
        (data / "pictures" / folder / "7.png").write_bytes((data / "pictures" / "7.png").read_bytes())
        images.append(content["images"][0] | {"id": number, "file_name": f"{folder}/7.png"})
        boxes.append(content["annotations"][0] | {"id": number, "image_id": number, "bbox": [number, 10, 50, 40]})
    (data / "val.json").write_text(json.dumps(content | {"images": images, "annotations": boxes}))
    copy = tmp_path / "copies" / "two" / "7.png"
    copy.parent.mkdir(parents=True)
    copy.write_bytes((data / "pictures" / "7.png").read_bytes())
    page = tmp_path / "p.html"
    for file, left in ((data / "pictures" / "one" / "7.png", 1), (data / "pictures" / "two" / "7.png", 2), (copy, 2)):
        explain(model, file, out=page, data=data)
        assert told(page)[0]["truth"]["boxes"][0][0] == left
    with pytest.raises(UserError, match=r"7\.png: it may be any of 2 pictures of split val, as .*one/7\.png or"):
        explain(model, data / "pictures" / "7.png", out=page, data=data)


def test_nothing_to_look_at_is_said(model, tmp_path):
    with pytest.raises(UserError, match="nothing to look at"):
        explain(model, out=tmp_path / "p.html")


@pytest.fixture
def heads(tmp_path):
    """Outputs of a head at three places of a picture that is not there: two of one object, one of another."""
    logits = np.full((3, 4, 8), -9.0, np.float32)
    logits[..., 4] = 5
    np.savez(
        tmp_path / "heads.npz",
        image_id=np.array([7, 7, 7]),
        scores=np.array([[0.6, 0.1], [0.8, 0.02], [0.01, 0.7]], np.float32),
        logits=logits,
        points=np.array([[40, 40], [44, 40], [140, 90]], np.float32),
        stride=np.array([8, 8, 8], np.float32),
    )
    content = {
        "images": [{"id": 7, "file_name": "7.jpg", "height": 150, "width": 200}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 10, 64, 64]}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    (tmp_path / "val.json").write_text(json.dumps(content))
    return tmp_path


def test_outputs_of_a_head_lie_on_a_blank_picture(heads):
    name, classes, views, see = _of_heads(
        heads / "heads.npz", [], heads / "val.json", split="val", limit=None, threshold=None
    )
    (explained,) = map(see, views)
    assert (name, classes) == ("heads", ("cat", "dog"))
    assert explained.picture.shape == (150, 200, 3)
    assert explained.before.scores.tolist() == pytest.approx([0.8, 0.7, 0.6, 0.1])
    assert explained.after.names == ["cat", "dog", "dog"]
    assert explained.source.tolist() == [0, 1, 3]
    assert explained.class_scores is not None
    assert explained.class_scores[2].tolist() == pytest.approx([0.6, 0.1])
    assert explained.class_scores[3].tolist() == pytest.approx([0.6, 0.1])
    assert explained.after.edges is not None
    torch.testing.assert_close(explained.after.edges.mean[0], torch.tensor([12.0, 8.0, 76.0, 72.0]), atol=0.1, rtol=0)


def test_outputs_of_a_head_need_their_annotations(heads):
    with pytest.raises(UserError, match="give data"):
        explain(heads / "heads.npz", out=heads / "p.html")


def test_the_command_writes_a_page(run_folder, tmp_path, capsys):
    picture = tmp_path / "picture.png"
    Image.fromarray(Scenes(length=1, seed=1).picture(0)).save(picture)
    main(["explain", str(run_folder), str(picture), "-o", str(tmp_path / "p.html"), "--device", "cpu"])
    told_of = capsys.readouterr()
    assert f"1 picture explained in {tmp_path / 'p.html'}" in told_of.out
    assert re.search(r"explaining 1/1  \d+:\d\d left 0:00", told_of.err)
    assert told(tmp_path / "p.html")[0]["name"] == "picture.png"


def test_the_command_takes_outputs_of_a_head(heads, capsys):
    main(["explain", str(heads / "heads.npz"), "--data", str(heads / "val.json"), "-o", str(heads / "p.html")])
    assert "1 picture explained" in capsys.readouterr().out
    assert told(heads / "p.html")[0]["rows"] == 4
