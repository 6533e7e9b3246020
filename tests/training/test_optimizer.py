"""What learns, at which rate, and when a run has had enough."""

from __future__ import annotations

import csv
import importlib.util
import json
import resource
import subprocess
import sys

import pytest
import torch
from torch import nn

import gfocal
from gfocal.config import GroupConfig, ScheduleConfig
from gfocal.errors import UserError
from gfocal.training import resume
from gfocal.training.average import Average
from gfocal.training.optimizer import freeze, make_optimizer
from gfocal.training.state import load_state_of


@pytest.fixture
def detector(recipe):
    return gfocal.build(recipe, device="cpu").detector


def rates(detector: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    """Return learning rate and weight decay of each parameter."""
    names = {parameter: name for name, parameter in detector.named_parameters()}
    return {names[p]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}


def test_groups_refine_one_another(detector):
    groups = (
        GroupConfig(prefix="backbone", lr_factor=0.1),
        GroupConfig(prefix="backbone.layer4", lr_factor=0.5, weight_decay=0.0),
    )
    schedule = ScheduleConfig(lr=0.02, weight_decay=1e-4, groups=groups)
    found = rates(detector, make_optimizer(detector, schedule))
    assert len(found) == len(list(detector.parameters()))
    for name, (lr, decay) in found.items():
        deep = name.startswith("backbone.layer4.")
        expected = 0.01 if deep else 0.002 if name.startswith("backbone.") else 0.02
        assert lr == pytest.approx(expected)
        assert decay == (0.0 if deep else 1e-4)


def test_adamw_shrinks_no_norms_and_biases(detector):
    schedule = ScheduleConfig(optimizer="adamw", lr=1e-3, weight_decay=0.05)
    parameters = dict(detector.named_parameters())
    for name, (_, decay) in rates(detector, make_optimizer(detector, schedule)).items():
        assert decay == (0.05 if parameters[name].ndim > 1 else 0.0)


def test_a_group_of_nothing_is_refused(detector):
    schedule = ScheduleConfig(groups=(GroupConfig(prefix="backbne"),))
    with pytest.raises(UserError, match=r"groups\[0\]\.prefix 'backbne' is no part .* backbone, neck"):
        make_optimizer(detector, schedule)


def test_what_is_frozen_stays_as_it_was(recipe, data, tmp_path):
    start = gfocal.train(recipe, data, tmp_path / "a", steps=1, workers=0, device="cpu").detector.state_dict()
    options = {"weights": tmp_path / "a" / "last.safetensors", "freeze": ["backbone", "neck.lateral"], "workers": 0}
    after = gfocal.train(recipe, data, tmp_path / "b", **options, device="cpu").detector.state_dict()
    for key, value in start.items():
        frozen = key.startswith(("backbone.", "neck.lateral."))
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(after[key], value) == frozen or (not frozen and value.numel() == 0), key


def test_a_batch_norm_named_by_itself_is_frozen_with_its_statistics(detector):
    freeze(detector, ("backbone.bn1",))
    norm = detector.get_submodule("backbone.bn1")
    before = norm.running_mean.clone()
    detector.train()(torch.randn(2, 3, 64, 64))
    assert torch.equal(norm.running_mean, before)
    assert not any(parameter.requires_grad for parameter in norm.parameters())
    assert detector.get_submodule("backbone.layer1.0.bn1").num_batches_tracked == 1


def test_freezing_keeps_the_names_of_weights(detector):
    before = {key for key in detector.state_dict() if not key.endswith("num_batches_tracked")}
    freeze(detector, ("backbone.layer1",))
    assert {key for key in detector.state_dict() if not key.endswith("num_batches_tracked")} == before
    assert all(not p.requires_grad for p in detector.get_submodule("backbone.layer1").parameters())


def test_the_average_follows_the_weights(detector):
    average = Average(detector, 0.5)
    weight = detector.scales[0].scale
    for _ in range(30):
        with torch.no_grad():
            weight += 1
        average.update(detector)
    # far from the start it lags by decay / (1 - decay) steps of 1
    torch.testing.assert_close(average.detector.scales[0].scale.detach(), weight.detach() - 1, atol=1e-3, rtol=0)
    assert not any(parameter.requires_grad for parameter in average.detector.parameters())


def test_the_average_is_what_is_validated_and_kept(recipe, data, tmp_path):
    options = {"workers": 0, "device": "cpu", "save_every": 1, "steps": 4, "seed": 1}
    plain = gfocal.train(recipe, data, tmp_path / "plain", **options).detector.state_dict()
    gfocal.train(recipe, data, tmp_path / "averaged", **options, average=0.999)
    kept = gfocal.load(tmp_path / "averaged" / "last.safetensors", device="cpu").detector.state_dict()
    assert not all(torch.equal(plain[key], kept[key]) for key in kept)


def test_a_run_ends_when_validations_bring_nothing(recipe, data, tmp_path):
    still = recipe.schedule.model_copy(update={"lr": 1e-12, "steps": 20, "validations": 10})
    gfocal.train(
        recipe.model_copy(update={"schedule": still}), data, tmp_path / "run", workers=0, device="cpu", patience=2
    )
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines()))
    validated = [int(row["step"]) for row in rows if row["val/ap"]]
    assert validated == [2, 4, 6]


def test_the_rate_follows_the_pictures_of_a_step(recipe, data, tmp_path, caplog):
    caplog.set_level("INFO", "gfocal")
    base = recipe.schedule.lr
    for batch, accumulate, factor in ((None, 1, 1.0), (None, 2, 1.0), (2, 1, 0.5), (2, 3, 1.5)):
        out = tmp_path / f"{batch}-{accumulate}"
        model = gfocal.train(recipe, data, out, batch=batch, accumulate=accumulate, steps=1, workers=0, device="cpu")
        assert model.recipe.schedule.lr == pytest.approx(base * factor)
        assert model.recipe.schedule.batch == 4 * factor
        assert json.loads((out / "run.json").read_text())["accumulate"] == accumulate
    assert (
        "learning rate 0.003: 6 pictures a step (1 process × 2 × 3 accumulated), 0.002 for 4 in the recipe"
        in caplog.text
    )


def test_a_logger_that_is_not_installed_is_named(recipe, data, tmp_path):
    if importlib.util.find_spec("wandb") is not None:
        pytest.skip("wandb is installed here")
    with pytest.raises(UserError, match="pip install wandb"):
        gfocal.train(recipe, data, tmp_path / "run", loggers=["wandb"], workers=0, device="cpu")
    assert not (tmp_path / "run").exists()


LIMITED = """
import resource, signal, sys
from pathlib import Path
import gfocal
from gfocal.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
recipe, data, out = sys.argv[1:]
saved = Path(out) / "state.pt"
import gfocal.training.loop as loop
whole, count = loop.save_state, []
def save(folder, state):
    count.append(0)
    if len(count) == 3:  # the disk is full from here on
        size = saved.stat().st_size // 2
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    whole(folder, state)
loop.save_state = save
try:
    gfocal.train(recipe, data, out, workers=0, device="cpu", save_every=1, steps=6)
except UserError as error:
    print(error)
    raise SystemExit(2)
"""


def test_a_full_disk_ends_the_run_and_leaves_the_last_state(recipe, data, tmp_path):
    quiet = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"validations": 0})})
    (tmp_path / "recipe.yaml").write_text(quiet.to_yaml())
    out = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path / "recipe.yaml", data, out],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert "state.pt: cannot be written" in done.stdout
    assert load_state_of(out)["step"] == 2
    assert not list(out.glob(".state.*.pt"))
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert len(resume(out).class_names) == 2


def test_a_folder_that_cannot_be_written_to_is_refused(recipe, data, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        gfocal.train(recipe, data, tmp_path / "file" / "run", workers=0, device="cpu")
