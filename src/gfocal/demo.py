"""The demonstration: a small model trained on scenes, scored and shown."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

from gfocal.config import Recipe
from gfocal.data.collate import collate
from gfocal.data.dataset import Dataset
from gfocal.data.examples import EvaluationExamples
from gfocal.data.opening import open_dataset
from gfocal.data.pictures import path_text
from gfocal.devices import autocast, choose_precision
from gfocal.draw.report import ReportPicture, write_report
from gfocal.errors import UserError
from gfocal.evaluation import Metrics
from gfocal.files import whole_or_absent
from gfocal.model import build
from gfocal.progress import ProgressBar
from gfocal.recipes import get_recipe
from gfocal.testing import evaluate
from gfocal.training import train

RECIPE = "gflv2_r18_mini"
PICTURES_SHOWN = 12
TRAINING_SECONDS = 370
FEWEST_STEPS, MOST_STEPS = 1200, 5000
TIMED_STEPS = 8
# in so short a run more and smaller steps learn more from as many pictures (380 steps of 8: 29.0 AP, 760 of 4: 33.1),
# and none of its time goes into validation: the last state is scored in the end
SHORT_SCHEDULE: Mapping[str, int] = {"batch": 4, "validations": 0}
MARKER = "demo.txt"
"""Of the file, first in the folder, that nothing but a demonstration writes."""
_MARKED = "`gfocal demo` made this folder, and replaces what it wrote here when it runs again.\n"
_REPORT = "report.html"
_MADE = (
    *("recipe.yaml", "run.json", "metrics.csv", "left_out.csv", "replay-0.pt", "tensorboard"),
    *("best.safetensors", "last.safetensors", "state.pt", _REPORT),
)


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration came to: figures on held-out scenes, training steps, seconds in all, and the page."""

    metrics: Metrics
    steps: int
    seconds: float
    report: Path


def run_demo(out: Path, *, steps: int | None = None) -> DemoResult:
    """Train on `scenes`, evaluate on its 200 test scenes and write `out`/report.html with 12 of them.

    steps: length of the training; None takes as many as this machine does in about six minutes. What a former
    demonstration left in `out` is replaced; UserError where it holds anything else, or is no folder.
    """
    start = time.monotonic()
    _refuse_others(out)
    recipe = get_recipe(RECIPE)
    recipe = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update=SHORT_SCHEDULE)})
    steps = steps or steps_within(TRAINING_SECONDS, recipe, open_dataset("scenes", "train"))
    _make_room(out)
    # two cores are busy with the network: a process that draws scenes meanwhile would slow both down
    model = train(recipe, "scenes", out, steps=steps, workers=0)
    scenes = open_dataset("scenes", "test")
    with ProgressBar(len(scenes), "evaluating") as bar:
        metrics = evaluate(model, scenes, batch=8, workers=1, progress=bar.update)
    shown = [
        ReportPicture(scenes.truth(i).name, picture, model.predict(picture), scenes.truth(i))
        for i, picture in ((i, scenes.picture(i)) for i in range(PICTURES_SHOWN))
    ]
    seconds = time.monotonic() - start
    report = out / _REPORT
    write_report(
        report,
        title="gfocal demo: GFL V2 on generated scenes",
        pictures=shown,
        summary={
            "AP": f"{metrics.ap:.3f}",
            "AP50": f"{metrics.ap50:.3f}",
            "AP75": f"{metrics.ap75:.3f}",
            "held-out scenes": str(metrics.num_pictures),
            "time": f"{seconds / 60:.1f} min",
            "training steps": str(steps),
            "recipe": RECIPE,
        },
        class_rows=[(row.name, row.ap, row.boxes) for row in metrics.classes],
    )
    return DemoResult(metrics, steps, seconds, report)


def _refuse_others(out: Path) -> None:
    """Raise UserError where there is anything but a folder that is empty or of a former demonstration."""
    marker = out / MARKER
    try:
        if not out.exists() or not any(out.iterdir()):
            return
        ours = marker.is_file() and marker.read_bytes() == _MARKED.encode()
    except NotADirectoryError as error:
        raise UserError(f"{path_text(out)}: not a folder: name one that is a demo's, or new") from error
    except OSError as error:
        raise UserError(f"{path_text(out)}: the folder cannot be read ({error.strerror}): name another") from error
    if not ours:
        raise UserError(
            f"{path_text(out)}: holds something that no demo made (it has no {MARKER} of one): name another folder, "
            "or delete it"
        )


def _make_room(out: Path) -> None:
    """Mark the folder as a demonstration's, and remove what a former one made; whatever else is there stays."""
    with whole_or_absent(out / MARKER) as scratch:
        scratch.write_bytes(_MARKED.encode())
    for path in (out / name for name in _MADE):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def steps_within(seconds: float, recipe: Recipe, dataset: Dataset) -> int:
    """Return how many training steps of a recipe this machine does in a time, measured on a few, within bounds."""
    classes = {"class_names": dataset.class_names}
    model = build(recipe.model_copy(update=classes))
    examples = EvaluationExamples(dataset, model.prepare())
    dtype = choose_precision(None, model.device)
    model.detector.train()
    optimizer = torch.optim.AdamW(model.detector.parameters(), fused=True)
    marks: list[float] = []
    for _ in range(TIMED_STEPS + 1):
        marks.append(time.monotonic())
        batch = collate([examples[i] for i in range(recipe.schedule.batch)]).to(model.device)
        with autocast(dtype, model.device):
            losses = model.criterion(model.detector(batch.images), batch.truths)
        sum(losses.values()).backward()  # type: ignore[union-attr]  there are losses
        optimizer.step()
        optimizer.zero_grad()
    # the first step prepares kernels, and any may meet what else the machine does
    one = statistics.median(later - sooner for sooner, later in pairwise(marks[1:]))
    return min(max(int(seconds / one), FEWEST_STEPS), MOST_STEPS)
