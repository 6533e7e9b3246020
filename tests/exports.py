"""Models to export, and what it means that a file agrees with one."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.export import ExportedProgram

import gfocal
from common import unchecked
from gfocal.config import BackboneConfig, HeadConfig, Recipe
from gfocal.model import Model
from gfocal.programs.tracing import trace
from gfocal.recipes import get_recipe
from gfocal.structures import Detections


class Exported(NamedTuple):
    """A file and what the command said that made it."""

    file: Path
    out: str
    err: str


def lively(recipe: Recipe) -> Model:
    """Return a model with random weights that finds much, of many scores and with edges of all kinds."""
    torch.manual_seed(0)
    model = gfocal.build(recipe, device="cpu")
    with torch.no_grad():
        outputs = model.detector.outputs_of(0)
        outputs.quality.cls.weight.mul_(10)
        outputs.quality.cls.bias.fill_(-1.0)
        outputs.box_conv.weight.mul_(10)
        for name, weight in model.detector.named_parameters():
            if "conv_offset" in name:
                weight.normal_(std=0.05)
    return model


def small(recipe: str, **changes: object) -> Recipe:
    """Return a recipe with few channels, few layers and no towers: each layer takes a part of a second to trace."""
    return get_recipe(recipe).model_copy(
        update={
            "class_names": ("circle", "square", "star"),
            "backbone": BackboneConfig(name="resnet10t", weights="none", width=0.25),
            "head": HeadConfig(channels=64, depth=0),
            **changes,
        }
    )


def traced(model: Model, *, raw: bool = False, half: bool = False) -> ExportedProgram:
    """Return the program, traced as it is outside of tests."""
    with unchecked():
        return trace(model.detector, None if raw else model.postprocess, half=half)


def assert_agree(found: Detections, expected: Detections) -> None:
    """Check that all fields agree but for the last digits, by which the order of what is almost equal may differ."""
    assert len(found) == len(expected)
    found, expected = by_pair(found), by_pair(expected)
    torch.testing.assert_close(found.scores.sort().values, expected.scores.sort().values, rtol=0, atol=1e-5)
    both = torch.isin(pair_of(found), pair_of(expected)), torch.isin(pair_of(expected), pair_of(found))
    # where the last of 100 has its equal, either may be it
    assert int(both[0].sum()) >= 0.98 * len(found)
    found, expected = found[both[0]], expected[both[1]]
    for field, tolerance in {"scores": 1e-5, "boxes": 2e-3, "quality": 1e-4, "levels": 0, "labels": 0}.items():
        one, other = getattr(found, field), getattr(expected, field)
        assert (one is None) == (other is None), field
        if one is not None:
            torch.testing.assert_close(one, other, rtol=0, atol=tolerance)
    assert (found.edges is None) == (expected.edges is None)
    if found.edges is not None and expected.edges is not None:
        torch.testing.assert_close(found.edges.positions, expected.edges.positions, rtol=0, atol=2e-3)
        torch.testing.assert_close(found.edges.probabilities, expected.edges.probabilities, rtol=0, atol=1e-4)
    assert (found.bands is None) == (expected.bands is None)
    if found.bands is not None and expected.bands is not None:
        torch.testing.assert_close(found.bands.boxes(0.9), expected.bands.boxes(0.9), rtol=0, atol=2e-2)


def pair_of(found: Detections) -> Tensor:
    """Return one number for each pair of location and class."""
    assert found.locations is not None
    return found.locations * len(found.class_names) + found.labels


def by_pair(found: Detections) -> Detections:
    return found[pair_of(found).argsort()]
