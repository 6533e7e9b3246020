"""The losses of two trainings, side by side (V2 Fig. 8)."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gfocal.analysis.figures.base import Drawing, Material
from gfocal.analysis.figures.plotting import BLUE, VERMILION, sheet_of
from gfocal.errors import UserError

COLUMN = "train/cls"
SMOOTHING = 0.05
"""Share of the training that a point of the curves is the mean of."""


def quality_losses(material: Material) -> Drawing:
    """Draw the loss on the joint score over the training of GFL V1 and V2, smoothed (V2 Fig. 8)."""
    sheet, (axes,) = sheet_of(1, 1, width=5.0, height=3.6)
    rows: list[tuple[str, int, float, float]] = []
    highest = 0.0
    for index, (usual, colour, dash) in enumerate((("GFL V1", BLUE, "-"), ("GFL V2", VERMILION, "--"))):
        name = material.label(index, usual)
        steps, losses = losses_of(material.sources[index])
        smooth = smoothed(losses)
        axes.plot(steps, losses, color=colour, linewidth=0.6, alpha=0.3)
        axes.plot(steps, smooth, color=colour, linestyle=dash, label=name)
        highest = max(highest, float(np.quantile(losses, 0.98)))
        rows += [(name, *row) for row in zip(steps.tolist(), losses.tolist(), smooth.tolist(), strict=True)]
    axes.set(
        title="Quality focal loss in training",
        xlabel="training step",
        ylabel="loss on the score of class and quality",
        ylim=(0, 1.05 * highest),
    )
    axes.set_xlim(left=0)
    axes.legend(loc="upper right")
    return Drawing(sheet, ("model", "step", "loss", "smoothed"), rows)


def losses_of(source: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return steps and class losses of a run folder, or of that around its weights; UserError where there are none."""
    file = (source if source.is_dir() else source.parent) / "metrics.csv"
    try:
        with file.open(encoding="utf-8", newline="") as text:
            rows = [(int(row["step"]), float(row[COLUMN])) for row in csv.DictReader(text) if row.get(COLUMN)]
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{file}: the losses of the training cannot be read; name a folder of `gfocal train`"
        ) from error
    if not rows:
        raise UserError(f"{file}: has no {COLUMN}: the training was shorter than what it logs")
    steps, losses = zip(*rows, strict=True)
    return np.array(steps), np.array(losses)


def smoothed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean about each value, over fewer at the ends."""
    reach = round(len(values) * SMOOTHING / 2)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    low, high = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)
