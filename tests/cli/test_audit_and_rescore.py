"""`gfocal audit` and `gfocal rescore` on the arrays of a head: what they print, write and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gfocal.analysis.rescoring import Rescorer
from gfocal.cli.__main__ import main

BOX = (20.0, 20.0, 60.0, 60.0)


@pytest.fixture
def head(tmp_path: Path) -> tuple[str, str]:
    """Return an npz and a COCO JSON of 12 pictures with one object each, the last without its annotation."""
    dice = np.random.default_rng(0)
    pictures, rows = 12, 8
    bins = np.full((pictures * rows, 4, 8), -9.0)
    bins[:, :, 5] = dice.uniform(0, 4, (pictures * rows, 1))
    np.savez(
        tmp_path / "heads.npz",
        image_id=np.repeat(np.arange(pictures), rows),
        scores=dice.uniform(0.5, 0.9, (pictures * rows, 1)),
        logits=bins,
        points=np.full((pictures * rows, 2), 40.0) + dice.normal(0, 3, (pictures * rows, 2)),
        stride=np.full(pictures * rows, 4.0),
    )
    left, top, right, bottom = BOX
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 100} for i in range(pictures)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [left, top, right - left, bottom - top]}
            for i in range(pictures - 1)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "val.json").write_text(json.dumps(content))
    return str(tmp_path / "heads.npz"), str(tmp_path / "val.json")


def test_audit_prints_the_worst_and_writes_every_form(
    head: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / f"audit{ending}" for ending in (".html", ".csv", ".json")]
    main(["audit", head[0], "--data", head[1], *(word for file in files for word in ("-o", str(file)))])
    told = capsys.readouterr().out
    assert "11 boxes in 12 pictures" in told
    assert "11.jpg: thing found" in told
    assert all(file.stat().st_size > 100 for file in files)
    main(["audit", head[0], "--data", head[1], "--json"])
    assert json.loads(capsys.readouterr().out) == json.loads(files[2].read_text(encoding="utf-8"))


def test_audit_prints_names_that_are_no_utf8(
    head: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (tmp_path / "val.json").read_text().replace('"11.jpg"', '"11\\udcff.jpg"')
    (tmp_path / "val.json").write_text(content)
    main(["audit", head[0], "--data", head[1]])
    assert "11\\udcff.jpg: thing found" in capsys.readouterr().out


def test_audit_refuses_a_name_that_does_not_say_what_to_write(
    head: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["audit", head[0], "--data", head[1], "-o", str(tmp_path / "audit.txt")])
    assert end.value.code == 2
    assert "the name must end with" in capsys.readouterr().err
    assert not (tmp_path / "audit.txt").exists()


def test_rescore_reports_and_writes_what_it_fitted(
    head: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rescorer.safetensors"
    options = ["--hidden", "4", "--folds", "2"]
    main(["rescore", head[0], "--data", head[1], *options, "-o", str(out)])
    assert "95 % interval" in capsys.readouterr().out
    assert Rescorer.load(out).score_power == 1
    main(["rescore", head[0], "--data", head[1], *options, "--json"])
    assert json.loads(capsys.readouterr().out)["pictures"] == 12
    with pytest.raises(SystemExit) as end:
        main(["rescore", head[0], "--data", head[1], "-o", str(tmp_path / "rescorer.pt")])
    assert end.value.code == 2
