"""The losses as curves: quality focal loss, distribution focal loss, and the objectives of the three distributions."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes

from gfocal.analysis.figures.base import Drawing, Material
from gfocal.analysis.figures.plotting import BLUE, DARK, DASHES, GREEN, GREY, LINES, ORANGE, VERMILION, sheet_of
from gfocal.ops.losses import distribution_focal_loss, giou_loss, quality_focal_loss

Floats: TypeAlias = "npt.NDArray[np.float64]"

QUALITY = 0.5
BETAS = (0.0, 0.5, 1.0, 2.0, 4.0)

BINS = np.arange(17.0)
EXPECTATION = 7.3
"""Strides: what all distributions of Fig. 5b amount to; between two bins, as a true edge does."""

EDGE = 5.0
"""Strides from the point to the true edge in Fig. 9."""
DEVIATIONS = (0.5, 1.0, 2.0)


def quality_focal_curves(material: Material) -> Drawing:
    """Draw QFL over the prediction for a quality label of 0.5 (V1 Fig. 5a)."""
    estimates = torch.linspace(0.01, 0.99, 197, dtype=torch.float64)
    labels = torch.full_like(estimates, QUALITY)
    curves = [quality_focal_loss(estimates.logit(), labels, beta=beta).numpy() for beta in BETAS]
    sheet, (axes,) = sheet_of(1, 1, width=4.8, height=3.6)
    for beta, curve, colour, dash in zip(BETAS, curves, LINES, DASHES, strict=False):
        name = "β = 0 (cross entropy)" if beta == 0 else f"β = {beta:g}"
        axes.plot(estimates.numpy(), curve, color=colour, linestyle=dash, label=name)
    axes.axvline(QUALITY, ymax=0.28, color=GREY, linewidth=0.8, linestyle=":")
    axes.set(
        title=f"Quality focal loss, label y = {QUALITY:g}",
        xlabel="predicted quality σ",
        ylabel="loss",
        xlim=(0, 1),
        ylim=(0, 2.5),
    )
    axes.legend(loc="upper center")
    rows = np.stack([estimates.numpy(), *curves], axis=1).tolist()
    return Drawing(sheet, ("sigma", *(f"qfl_beta_{beta:g}" for beta in BETAS)), rows)


def equal_expectations(material: Material) -> Drawing:
    """Draw distributions of one expectation, and what DFL thinks of them (V1 Fig. 5b)."""
    distributions = {
        "(1) two distant peaks": with_mean(np.exp(-((BINS - 2) ** 2) / 2) + np.exp(-((BINS - 13) ** 2) / 2)),
        "(2) broad": with_mean(np.exp(-((BINS - EXPECTATION) ** 2) / 18)),
        "(3) compact": with_mean(np.exp(-((BINS - EXPECTATION) ** 2) / 1.2)),
        "the minimum: two bins": with_mean((np.abs(BINS - EXPECTATION) < 1).astype(float)),
    }
    sheet, panels = sheet_of(1, 4, width=9.6, height=2.7, sharey=True)
    rows: list[tuple[str, float, float, float, float]] = []
    for axes, colour, (name, masses) in zip(
        panels, (VERMILION, ORANGE, BLUE, GREEN), distributions.items(), strict=True
    ):
        loss = distribution_focal(masses)
        axes.bar(BINS, masses, width=0.85, color=colour)
        axes.axvline(EXPECTATION, color=DARK, linewidth=1.2, linestyle="--")
        axes.set(title=f"{name}\nDFL = {loss:.2f}", xlabel="distance y (strides)", xlim=(-0.7, 16.7))
        rows += [
            (name, *values, float(masses @ BINS), loss) for values in zip(BINS.tolist(), masses.tolist(), strict=True)
        ]
    panels[0].set_ylabel("probability P(y)")
    sheet.suptitle(f"Distributions of one expectation, {EXPECTATION:g} strides (dashed)", fontsize=10)
    return Drawing(sheet, ("distribution", "bin", "probability", "expectation", "dfl"), rows)


def with_mean(shape: Floats, *, mean: float = EXPECTATION) -> Floats:
    """Return the masses nearest to a shape over `BINS` (by Kullback-Leibler divergence) that have a mean in strides.

    Such masses are the shape times exp(λ y); the mean rises with λ.
    """
    low, high = -20.0, 20.0
    for _ in range(200):
        tilt = (low + high) / 2
        low, high = (tilt, high) if _tilted(shape, tilt) @ BINS < mean else (low, tilt)
    return _tilted(shape, low)


def _tilted(shape: Floats, tilt: float) -> Floats:
    masses = shape * np.exp(tilt * (BINS - EXPECTATION))
    return masses / masses.sum()


def distribution_focal(masses: Floats, *, target: float = EXPECTATION) -> float:
    """Return DFL of masses over `BINS`, of which some may be 0, against a distance in strides."""
    logits = torch.from_numpy(np.log(np.maximum(masses, 1e-300)))
    return float(distribution_focal_loss(logits, torch.tensor(target, dtype=torch.float64)))


def distributions_and_losses(material: Material) -> Drawing:
    """Draw the three distributions of an edge, and their objectives over the prediction (V1 Fig. 9, Table 5)."""
    places = np.linspace(0, 10, 401)
    sheet, (shapes, losses) = sheet_of(1, 2, width=11.2, height=3.6)
    _draw_shapes(places, shapes)
    rows: list[tuple[str, float, float]] = []
    for (name, values), colour, dash in zip(objectives(places).items(), LINES, DASHES, strict=False):
        losses.plot(places, values, color=colour, linestyle=dash, label=name)
        line = name.replace("\n", ": ")
        rows += [(line, *pair) for pair in zip(places.tolist(), values.tolist(), strict=True)]
    losses.axvline(EDGE, color=GREY, linewidth=0.8, linestyle=":")
    losses.set(
        title="Their objectives (Table 5)",
        xlabel="predicted distance x = ∫ P(x) x dx (strides)",
        ylabel="loss",
        xlim=(1.5, 8.5),
        ylim=(-0.9, 4.4),
    )
    losses.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return Drawing(sheet, ("objective", "prediction", "loss"), rows)


def objectives(places: Floats) -> dict[str, Floats]:
    """Return the loss of each prediction in strides: by edge, x beside the true edge; by box, three edges being right.

    Box level: 1 - GIoU of a box of 10 x 10 strides about its point, of which the right edge alone is off.
    """
    error = places - EDGE
    found = {"Dirac, General (edge level)\n(x − y)² / 2": error**2 / 2}
    for deviation in DEVIATIONS:
        name = f"Gaussian, σ = {deviation:g} (edge level)\n(x − y)² / 2σ² + log(σ²) / 2"
        found[name] = error**2 / (2 * deviation**2) + np.log(deviation**2) / 2
    boxes = torch.tensor([[-EDGE, -EDGE, EDGE, EDGE]], dtype=torch.float64).repeat(len(places), 1)
    moved = boxes.clone()
    moved[:, 2] = torch.from_numpy(places)
    found["Dirac, General (box level)\n1 − GIoU"] = giou_loss(moved, boxes).numpy()
    return found


def _draw_shapes(places: Floats, axes: Axes) -> None:
    # two likely edges, as where a part of the object is hidden: what only the General distribution can say
    general = 0.65 * np.exp(-((BINS - 4) ** 2) / 0.9) + 0.35 * np.exp(-((BINS - 7.2) ** 2) / 0.7)
    general = with_mean(general, mean=EDGE)
    axes.bar(BINS, general, width=0.85, color=GREEN, alpha=0.75, label="General P(x)")
    axes.plot(
        places, np.exp(-((places - EDGE) ** 2) / 2) / np.sqrt(2 * np.pi), color=VERMILION, label="Gaussian N(x, σ²)"
    )
    axes.annotate(
        "", xy=(EDGE, 0.58), xytext=(EDGE, 0), arrowprops={"arrowstyle": "-|>", "color": BLUE, "linewidth": 2}
    )
    axes.plot([], [], color=BLUE, label="Dirac δ(x − y)")
    axes.set(
        title="Three distributions of one edge",
        xlabel="distance x (strides)",
        ylabel="probability (a bin, or density)",
        xlim=(-0.6, 10.6),
        ylim=(0, 0.62),
    )
    axes.legend(loc="upper right")
