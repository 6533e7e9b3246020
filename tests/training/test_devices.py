"""Two processes with half the batch each learn what one with the whole batch does."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gfocal.cli.__main__ import main
from gfocal.config import BackboneConfig, ScheduleConfig
from gfocal.nn.backbone import create_backbone

COMMAND = "import sys; from gfocal.cli.__main__ import main; main(sys.argv[1:])"


@pytest.fixture
def half_empty(data):
    """The squares, of which every second picture holds none."""
    path = data.parent / "labels.json"
    content = json.loads(path.read_text())
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] % 2]
    path.write_text(json.dumps(content))
    return data


@pytest.fixture
def frozen_norms(recipe, tmp_path):
    """A recipe that starts from weights, so that its batch norms do not hang on the batch."""
    torch.manual_seed(1)
    save_file(create_backbone("resnet18", width=0.25).state_dict(), tmp_path / "backbone.safetensors")
    backbone = BackboneConfig(name="resnet18", weights=str(tmp_path / "backbone.safetensors"), width=0.25)
    schedule = ScheduleConfig(lr=0.01, batch=2, steps=20, warmup=5, validations=2)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.model_copy(update={"backbone": backbone, "schedule": schedule}).to_yaml())
    return path


def trained(
    recipe: Path, data: Path, out: Path, *options: object, devices: int
) -> tuple[list[dict[str, str]], dict[str, torch.Tensor]]:
    words = ["train", "--recipe", recipe, "--data", data, "--out", out, "--device", "cpu", "--workers", 0, *options]
    arguments = [*map(str, words), "--devices", str(devices)]
    if devices == 1:
        main(arguments)
    else:
        script = out.parent / "start.py"  # the other processes are started as this one was
        script.write_text(COMMAND)
        command = [sys.executable, str(script), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    return rows, load_file(out / "last.safetensors")


def test_two_processes_learn_what_one_does(frozen_norms, half_empty, tmp_path):
    one_rows, one = trained(frozen_norms, half_empty, tmp_path / "one", "--batch", 2, devices=1)
    two_rows, two = trained(frozen_norms, half_empty, tmp_path / "two", "--batch", 1, devices=2)
    curves = [[float(row["train/loss"]) for row in rows if row["train/loss"]] for rows in (one_rows, two_rows)]
    assert len(curves[0]) == 2
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-3, atol=1e-5)
    aps = [[float(row["val/ap"]) for row in rows if row["val/ap"]] for rows in (one_rows, two_rows)]
    assert len(aps[0]) == 2
    assert aps[1] == pytest.approx(aps[0], abs=0.02)
