"""A model over a data set: what is found is saved as it comes, and no figure is lost with the file."""

from __future__ import annotations

import json
import logging
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

import gfocal
from exports import lively, small
from gfocal.data.scenes import CLASS_NAMES, Scenes
from gfocal.errors import UserError

PICTURES = Scenes(3, size=(128, 160))


@pytest.fixture(scope="module")
def model() -> gfocal.Model:
    return lively(small("gflv2_r18_mini", class_names=CLASS_NAMES))


def test_saved_detections_are_those_of_every_picture(model: gfocal.Model, tmp_path: Path) -> None:
    save = tmp_path / "made" / "results.json"
    gfocal.evaluate(model, PICTURES, save=save, precision="float32")
    rows = json.loads(save.read_text())
    expected = [
        row
        for index in range(3)
        for row in model.predict(PICTURES.picture(index), precision="float32").to_coco(
            PICTURES.truth(index).image_id, PICTURES.category_ids
        )
    ]
    assert len(rows) > 50
    assert rows == expected
    assert [file.name for file in save.parent.iterdir()] == [save.name]


def test_a_file_without_detections_is_an_empty_list(model: gfocal.Model, tmp_path: Path) -> None:
    recipe = model.recipe.model_copy(update={"test": model.recipe.test.model_copy(update={"score_threshold": 0.999})})
    gfocal.evaluate(gfocal.build(recipe, device="cpu"), PICTURES, save=tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text()) == []


def test_a_place_that_cannot_be_written_is_told_before_the_first_picture(model: gfocal.Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    done: list[int] = []
    with pytest.raises(UserError, match=r"results\.json: cannot be written"):
        gfocal.evaluate(model, PICTURES, save=tmp_path / "file" / "results.json", progress=done.append)
    assert done == []


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Refuse files of more than 4 KB, as a disk does that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_disk")
def test_figures_are_told_where_the_disk_fills_up(
    model: gfocal.Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[int] = []
    with caplog.at_level(logging.WARNING, "gfocal"), pytest.raises(UserError, match=r"cannot be written \(File too"):
        gfocal.evaluate(model, PICTURES, save=tmp_path / "results.json", progress=done.append)
    assert done == [1, 2, 3]
    assert "AP50" in caplog.text
    assert list(tmp_path.iterdir()) == []
