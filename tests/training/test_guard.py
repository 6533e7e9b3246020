"""A loss that is no number ends the run, names its pictures and leaves a file that does the step again."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import gfocal
from gfocal.checkpoint import read_weights
from gfocal.errors import UserError
from gfocal.training import replay
from gfocal.training.guard import FORMAT
from gfocal.training.state import save_tensors


@pytest.fixture
def diverging(recipe):
    schedule = recipe.schedule.model_copy(update={"optimizer": "sgd", "lr": 1e25, "warmup": 0, "steps": 8})
    return recipe.model_copy(update={"schedule": schedule})


def test_the_run_ends_with_pictures_and_terms_and_a_replay(diverging, data, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(UserError, match="the loss is not finite") as caught:
        gfocal.train(diverging, data, out, workers=0, device="cpu", save_every=1)
    said = str(caught.value)
    assert "cls" in said
    assert ".png" in said
    assert f"--replay {out / 'replay-0.pt'}" in said
    text = replay(out / "replay-0.pt", device="cpu")
    assert "losses: " in text
    assert "nan" in text or "inf" in text
    assert text.count(".png: ") == 4


def test_weights_are_not_spoilt_by_the_step(recipe, data, tmp_path, monkeypatch):
    """The step in which a loss is not finite moves nothing: the weights before it are in the replay."""
    from gfocal.criterion import Criterion

    calls = []
    whole = Criterion.__call__

    def third_is_nan(self, raw, truths):
        calls.append(None)
        losses = whole(self, raw, truths)
        return {name: loss * float("nan") if len(calls) >= 3 else loss for name, loss in losses.items()}

    monkeypatch.setattr(Criterion, "__call__", third_is_nan)
    out = tmp_path / "run"
    with pytest.raises(UserError, match="step 3: the loss is not finite"):
        gfocal.train(recipe, data, out, workers=0, device="cpu", save_every=1)
    after_two = torch.load(out / "state.pt", weights_only=True)["detector"]
    in_replay = torch.load(out / "replay-0.pt", weights_only=True)["weights"]
    assert torch.load(out / "state.pt", weights_only=True)["step"] == 2
    # the statistics of batch norms move in the forward pass, and count for nothing in training
    learnt = [key for key in after_two if "running" not in key and "tracked" not in key]
    assert all(torch.equal(after_two[key], in_replay[key]) for key in learnt)
    monkeypatch.undo()
    assert "first layer whose output is not finite: none" in replay(out / "replay-0.pt", device="cpu")


def test_pictures_too_small_alone_are_replayed_together(recipe, tmp_path):
    content = {
        "format": FORMAT,
        "step": 1,
        "precision": "float32",
        "recipe": recipe.to_yaml(),
        "weights": gfocal.build(recipe, device="cpu").detector.state_dict(),
        "images": torch.randn(2, 3, 32, 32),
        "truths": [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long), "size": (32, 32)}] * 2,
        "names": ["a.png", "\udcff.png"],
    }
    save_tensors(tmp_path / "replay.pt", content)
    text = replay(tmp_path / "replay.pt", device="cpu")
    assert "losses: cls " in text
    assert "  a.png: too small to be done alone, no box" in text
    text.encode("utf-8")


def test_another_file_is_refused(tmp_path):
    save_tensors(tmp_path / "other.pt", {"a": torch.zeros(2)})
    with pytest.raises(UserError, match="not a file that a run left behind"):
        replay(tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("no archive")
    with pytest.raises(UserError, match=r"text\.pt: not a file of gfocal"):
        replay(tmp_path / "text.pt")
    with pytest.raises(UserError, match="cannot be read"):
        replay(tmp_path / "nowhere.pt")


def test_a_saved_model_of_a_diverged_run_still_loads(diverging, data, tmp_path):
    out = tmp_path / "run"
    gentle = diverging.model_copy(
        update={"schedule": diverging.schedule.model_copy(update={"lr": 1e-3, "validations": 4, "steps": 4})}
    )
    gfocal.train(gentle, data, out, workers=0, device="cpu")
    assert read_weights(out / "best.safetensors")[1]


POISONED = """
import os, sys
from gfocal.criterion import Criterion
from gfocal.cli.__main__ import main
whole, calls = Criterion.__call__, []
def third_is_nan(self, raw, truths):
    calls.append(None)
    factor = float("nan") if len(calls) >= 3 and os.environ.get("LOCAL_RANK") == "1" else 1.0
    return {name: loss * factor for name, loss in whole(self, raw, truths).items()}
Criterion.__call__ = third_is_nan
main(sys.argv[1:])
"""


def test_a_loss_of_one_process_ends_all_of_them(recipe, data, tmp_path):
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    (tmp_path / "start.py").write_text(POISONED)
    out = tmp_path / "run"
    words = ["train", "--recipe", tmp_path / "recipe.yaml", "--data", data, "--out", out, "--weights", "none"]
    words += ["--device", "cpu", "--devices", 2, "--batch", 2, "--workers", 0, "--save-every", 1, "--steps", 6]
    command = [sys.executable, tmp_path / "start.py", *words]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "step 3: the loss is not finite" in done.stderr
    assert [path.name for path in out.glob("replay-*")] == ["replay-1.pt"]
    state = torch.load(out / "state.pt", weights_only=True)
    assert state["step"] == 2
    assert all(value.isfinite().all() for value in state["detector"].values())
