"""The demonstration: a small model trained on scenes, scored and shown."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from gfocal.data.dataset import open_dataset
from gfocal.draw.report import ReportPicture, write_report
from gfocal.evaluation import Metrics
from gfocal.progress import ProgressBar
from gfocal.testing import evaluate
from gfocal.train import train

RECIPE = "gflv2_r18_mini"
PICTURES_SHOWN = 12


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration came to: figures on held-out scenes, seconds in all, and the page."""

    metrics: Metrics
    seconds: float
    report: Path


def run_demo(out: Path, *, steps: int | None = None) -> DemoResult:
    """Train on `scenes`, evaluate on its 200 test scenes and write `out`/report.html with 12 of them.

    steps: length of the training instead of the recipe's. A former run in `out` is replaced.
    """
    start = time.monotonic()
    if (out / "recipe.yaml").exists():
        shutil.rmtree(out)
    model = train(RECIPE, "scenes", out, steps=steps)
    scenes = open_dataset("scenes", "test")
    with ProgressBar(len(scenes), "evaluating") as bar:
        metrics = evaluate(model, scenes, batch=8, workers=1, progress=bar.update)
    shown = [
        ReportPicture(scenes.truth(i).name, picture, model.predict(picture), scenes.truth(i))
        for i, picture in ((i, scenes.picture(i)) for i in range(PICTURES_SHOWN))
    ]
    seconds = time.monotonic() - start
    report = out / "report.html"
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
            "recipe": RECIPE,
        },
        class_rows=[(row.name, row.ap, row.boxes) for row in metrics.classes],
    )
    return DemoResult(metrics, seconds, report)
