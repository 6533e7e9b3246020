"""A run that was stopped or killed goes on to the very weights that it would have come to undisturbed."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_post_hook

import gfocal
from gfocal.errors import UserError
from gfocal.results import alone_in
from gfocal.training import resume
from gfocal.training.state import load_state_of

STEPS = 12


@pytest.fixture
def long_recipe(recipe):
    pictures = recipe.pictures.model_copy(
        update={"jitter": (0.8, 1.2), "color": 0.2, "mosaic": 0.5, "mixing_until": 0.5}
    )
    schedule = recipe.schedule.model_copy(update={"steps": STEPS, "average": 0.9, "validations": 3})
    return recipe.model_copy(update={"schedule": schedule, "pictures": pictures})


def same_weights(first: Path, second: Path) -> bool:
    one, other = load_file(first), load_file(second)
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@contextmanager
def stopped_at(step: int) -> Iterator[None]:
    """Meanwhile, send SIGTERM to this process as the weights move for the given time."""
    moves = itertools.count(1)

    def stop(*_: object) -> None:
        if next(moves) == step:
            os.kill(os.getpid(), signal.SIGTERM)

    hook = register_optimizer_step_post_hook(stop)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_was_asked_to_stop_goes_on_to_the_same_weights(long_recipe, data, tmp_path, accumulate):
    options = {"workers": 0, "device": "cpu", "batch": 2, "accumulate": accumulate, "save_every": 1}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    gfocal.train(long_recipe, data, whole, **options)
    with stopped_at(3):
        gfocal.train(long_recipe, data, parts, **options)
    assert load_state_of(parts)["step"] == 3
    assert not (parts / "best.safetensors").exists()
    resume(parts)
    for name in ("best.safetensors", "last.safetensors"):
        assert same_weights(whole / name, parts / name)
    assert (whole / "metrics.csv").read_text().splitlines()[0] == (parts / "metrics.csv").read_text().splitlines()[0]
    assert not (parts / "state.pt").exists()
    with pytest.raises(UserError, match="this run is finished"):
        resume(parts)


COMMAND = "import sys; from gfocal.cli.__main__ import main; main(sys.argv[1:])"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", COMMAND, "train", *map(str, arguments)]


def test_sigterm_to_a_process_ends_with_0_and_the_command_that_resumes(long_recipe, data, tmp_path):
    (tmp_path / "recipe.yaml").write_text(long_recipe.to_yaml())
    out = tmp_path / "run"
    arguments = ["--recipe", tmp_path / "recipe.yaml", "--data", data, "--out", out, "--save-every", 1]
    process = subprocess.Popen(
        command(*arguments, "--workers", 1, "--steps", 400, "--device", "cpu"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (out / "state.pt").exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)  # as a system does that shuts down: workers get it too
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert f"gfocal train --resume {out}" in said
    assert load_state_of(out)["step"] > 0


@pytest.mark.slow
def test_ten_kills_at_any_time_leave_no_trace(long_recipe, data, tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        long_recipe.model_copy(update={"schedule": long_recipe.schedule.model_copy(update={"steps": 150})}).to_yaml()
    )
    start = ["--recipe", tmp_path / "recipe.yaml", "--data", data, "--workers", 1, "--save-every", 1, "--device", "cpu"]
    subprocess.run(command(*start, "--out", tmp_path / "whole"), check=True, capture_output=True)
    out, generator, kills = tmp_path / "killed", random.Random(0), 0
    arguments = [*start, "--out", out]
    while kills < 10:
        process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = load_state_of(out)["step"] if (out / "state.pt").exists() else 0
        while process.poll() is None and (not (out / "state.pt").exists() or load_state_of(out)["step"] <= before):
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.5))
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
        arguments = ["--resume", out]
    if (out / "state.pt").exists():
        subprocess.run(command("--resume", out), check=True, capture_output=True)
    assert kills == 10
    assert same_weights(tmp_path / "whole" / "last.safetensors", out / "last.safetensors")
    assert same_weights(tmp_path / "whole" / "best.safetensors", out / "best.safetensors")
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in (tmp_path / "whole").iterdir())


def test_a_run_of_other_settings_is_not_gone_on_with(long_recipe, data, tmp_path):
    options = {"workers": 0, "device": "cpu", "batch": 2, "save_every": 1}
    out = tmp_path / "run"
    with stopped_at(1):
        gfocal.train(long_recipe, data, out, **options)
    with pytest.raises(UserError, match="the run began with another schedule"):
        gfocal.train(long_recipe, data, out, **options, epochs=3, resume=True)
    with pytest.raises(UserError, match="holds a run already"):
        gfocal.train(long_recipe, data, out, **options)


def test_a_folder_that_a_run_is_writing_to_is_left_alone(recipe, data, tmp_path):
    out = tmp_path / "run"
    with stopped_at(1):
        gfocal.train(recipe, data, out, workers=0, device="cpu")
    half_written = out / ".state.abc.pt"
    half_written.touch()
    with alone_in(out):
        with pytest.raises(UserError, match="run: another run is writing to it"):
            resume(out)
        with pytest.raises(UserError, match="run: another run is writing to it"):
            gfocal.train(recipe, data, out, workers=0, device="cpu")
    assert half_written.exists()
    resume(out)
    assert not half_written.exists()


def test_where_there_is_nothing_to_resume_it_is_said(tmp_path):
    with pytest.raises(UserError, match=r"not the folder of a run: it holds no run\.json"):
        resume(tmp_path)


def test_a_state_that_was_cut_short_is_refused(long_recipe, data, tmp_path):
    out = tmp_path / "run"
    with stopped_at(1):
        gfocal.train(long_recipe, data, out, workers=0, device="cpu", batch=2, save_every=1)
    content = (out / "state.pt").read_bytes()
    (out / "state.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"state\.pt: not a file of gfocal, or cut short"):
        resume(out)
