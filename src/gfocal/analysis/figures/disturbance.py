"""How much a box edge moves when the feature it is read from is disturbed a little (V1 Fig. 10)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gfocal.analysis.figures.base import Drawing, Material
from gfocal.analysis.figures.plotting import BLUE, GREEN, ORANGE, sheet_of
from gfocal.ops.losses import distribution_focal_loss

TARGETS = (1.5, 2.5, 3.5)
NORM = 0.1
"""Of the disturbance, as in the paper."""
BINS = 17
REPEATS = 50
DIRECTIONS = 64
STEPS = 1000
RATE = 0.2
SPREAD = 0.01
"""Standard deviation of the first weights, as of the detectors' output layers."""

Errors: TypeAlias = "Float[Tensor, 'targets repeats directions']"

REPRESENTATIONS: Mapping[str, tuple[int, float]] = {
    "Dirac delta": (1, 0.0),
    "General": (BINS, 0.0),
    "General w/ DFL": (BINS, 0.25),
}
"""Outputs of the linear layer, and weight of DFL beside the squared error of the edge."""


def errors_after_disturbance(name: str, *, seed: int, repeats: int, steps: int) -> Errors:
    """Return how far, in strides, an edge lies off after its feature was disturbed, for each target of `TARGETS`.

    Each repeat draws a feature of norm 1 in 2-D, learns a linear layer of one representation until the edge is at its
    target, by plain gradient steps on (x - y)² / 2 (V1 Table 5) and DFL with its weight, and then moves the feature by
    `NORM` in each of `DIRECTIONS`. What the paper leaves open, bins, first weights and steps, is as of a detector.
    """
    outputs, dfl_weight = REPRESENTATIONS[name]
    generator = torch.Generator().manual_seed(seed)
    feature = torch.nn.functional.normalize(torch.randn(repeats, 2, generator=generator), dim=1)
    first = SPREAD * torch.randn(repeats, outputs, 2, generator=generator)
    weight = first.repeat(len(TARGETS), 1, 1, 1).requires_grad_()
    bias = torch.zeros(len(TARGETS), repeats, outputs, requires_grad=True)
    wanted = torch.tensor(TARGETS)[:, None].expand(-1, repeats)
    for _ in range(steps):
        with torch.enable_grad():
            code = (weight * feature[:, None]).sum(-1) + bias
            loss = (_edge(code) - wanted).square() / 2
            if dfl_weight:
                loss = loss + dfl_weight * distribution_focal_loss(code, wanted)
            # layers do not meet in the sum: each has the gradient that it would have alone
            gradients = torch.autograd.grad(loss.sum(), [weight, bias])
        with torch.no_grad():
            weight -= RATE * gradients[0]
            bias -= RATE * gradients[1]
    angles = torch.arange(DIRECTIONS) * (2 * math.pi / DIRECTIONS)
    disturbed = feature[:, None] + NORM * torch.stack([angles.cos(), angles.sin()], dim=1)
    with torch.no_grad():
        code = torch.einsum("rdf,trof->trdo", disturbed, weight) + bias[:, :, None]
        return (_edge(code) - wanted[..., None]).abs()


def _edge(code: Float[Tensor, "*n outputs"]) -> Float[Tensor, "*n"]:
    """Return the edge in strides: the number itself, or the mean of the distribution."""
    if code.shape[-1] == 1:
        return code[..., 0]
    return code.softmax(-1) @ torch.arange(code.shape[-1], dtype=code.dtype)


def robustness(material: Material) -> Drawing:
    """Draw the error of an edge after a disturbance of its feature, over the true distance (V1 Fig. 10)."""
    found = {
        name: errors_after_disturbance(name, seed=material.seed, repeats=REPEATS, steps=STEPS).numpy()
        for name in REPRESENTATIONS
    }
    sheet, (directions, targets) = sheet_of(1, 2, width=8.6, height=3.7)
    angles = np.arange(DIRECTIONS + 1) * (360 / DIRECTIONS)
    styles = zip(REPRESENTATIONS, (BLUE, ORANGE, GREEN), ("-", "--", "-."), ("o", "s", "^"), strict=True)
    for place, (name, colour, dash, mark) in enumerate(styles):
        around = found[name][-1, 0]
        directions.plot(angles, np.append(around, around[0]), color=colour, linestyle=dash, label=name)
        every = found[name].reshape(len(TARGETS), -1)
        middle, (low, high) = every.mean(1), np.quantile(every, (0.05, 0.95), axis=1)
        shifted = np.array(TARGETS) + 0.08 * (place - 1)
        targets.errorbar(
            shifted, middle, yerr=np.stack([middle - low, high - middle]), color=colour, linestyle=dash,
            marker=mark, markersize=5, capsize=3, linewidth=1.4, label=name,
        )  # fmt: skip
    directions.set(
        title=f"One layer, target {TARGETS[-1]:g}",
        xlabel="direction of the disturbance (degrees)",
        ylabel="error of the edge (strides)",
        xlim=(0, 360),
        xticks=range(0, 361, 90),
    )
    targets.set(
        title=f"{REPEATS} layers, all directions",
        xlabel="regression target (strides)",
        ylabel="error: mean, 5 % to 95 % (strides)",
        xticks=TARGETS,
    )
    for axes in (directions, targets):
        axes.set_ylim(bottom=0)
    sheet.legend(*targets.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    rows = [
        (name, target, repeat, float(values.mean()), float(values.max()))
        for name, errors in found.items()
        for target, layers in zip(TARGETS, errors, strict=True)
        for repeat, values in enumerate(layers)
    ]
    return Drawing(sheet, ("representation", "target", "repeat", "mean_error", "largest_error"), rows)
