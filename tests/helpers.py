"""What several tests need to make and compare weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

import gfocal
from gfocal.boxrep import BoxRepresentation
from gfocal.builder import Parts, build_parts
from gfocal.config import BackboneConfig, HeadConfig, Recipe
from gfocal.data.scenes import CLASS_NAMES
from gfocal.model import Model
from gfocal.recipes import get_recipe
from gfocal.structures import Detections


def randomised(parts: Parts) -> Parts:
    """Give every weight and statistic a value of its own, so that none can be mistaken for another."""
    with torch.no_grad():
        for key, value in parts.detector.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape) + 0.5 if "var" in key else torch.randn(value.shape) * 0.05)
    return parts


def assert_same_weights(first: Parts, second: Parts) -> None:
    state, other = first.detector.state_dict(), second.detector.state_dict()
    assert state.keys() == other.keys()
    for key, value in state.items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, other[key]), key


def assert_same_detections(one: Detections, other: Detections, *, pixels: float = 0.0) -> None:
    """Check that all fields agree, places to within so many pixels."""
    torch.testing.assert_close(one.boxes, other.boxes, rtol=0, atol=pixels)
    assert torch.equal(one.scores, other.scores)
    assert torch.equal(one.labels, other.labels)
    assert one.class_names == other.class_names
    assert (one.quality is None) == (other.quality is None)
    if one.quality is not None:
        torch.testing.assert_close(one.quality, other.quality)
    assert (one.edges is None) == (other.edges is None)
    if one.edges is not None and other.edges is not None:
        torch.testing.assert_close(one.edges.positions, other.edges.positions, rtol=0, atol=pixels)
        torch.testing.assert_close(one.edges.probabilities, other.edges.probabilities, rtol=1e-4, atol=1e-4)


def without_weights(recipe: Recipe) -> Parts:
    torch.manual_seed(99)
    return build_parts(recipe)


def official_name(key: str) -> str:
    """Return the name that the authors' code gives to one of our weights."""
    rules = [
        (r"fpn\.lateral\.(\d)\.(\w+)", r"neck.lateral_convs.\1.conv.\2"),
        (r"fpn\.output\.(\d)\.(\w+)", r"neck.fpn_convs.\1.conv.\2"),
        (r"fpn\.extra\.0\.(\w+)", r"neck.fpn_convs.3.conv.\1"),
        (r"fpn\.extra\.1\.(\w+)", r"neck.fpn_convs.4.conv.\1"),
        (r"trunk\.cls\.(\d)\.conv\.(\w+)", r"bbox_head.cls_convs.\1.conv.\2"),
        (r"trunk\.cls\.(\d)\.norm\.(\w+)", r"bbox_head.cls_convs.\1.gn.\2"),
        (r"trunk\.box\.(\d)\.conv\.(\w+)", r"bbox_head.reg_convs.\1.conv.\2"),
        (r"trunk\.box\.(\d)\.norm\.(\w+)", r"bbox_head.reg_convs.\1.gn.\2"),
        (r"quality\.cls\.(\w+)", r"bbox_head.gfl_cls.\1"),
        (r"quality\.predictor\.(\d)\.(\w+)", r"bbox_head.reg_conf.\1.\2"),
        (r"box_conv\.(\w+)", r"bbox_head.gfl_reg.\1"),
        (r"scales\.(\d)", r"bbox_head.scales.\1.scale"),
        (r"backbone\.conv1\.(\d)\.(\w+)", r"backbone.stem.\1.\2"),
    ]
    for pattern, replacement in rules:
        if re.fullmatch(pattern, key):
            return re.sub(pattern, replacement, key)
    assert key.startswith("backbone."), key
    return key


def save_eager_model(folder: Path, class_names: tuple[str, ...] = CLASS_NAMES) -> None:
    """Save the smallest detector (of scenes, unless told otherwise), with random weights that find much everywhere."""
    tiny = {
        "class_names": class_names,
        "backbone": BackboneConfig(name="resnet18", weights="none", width=0.125),
        "head": HeadConfig(channels=64, depth=1),
    }
    torch.manual_seed(0)
    model = gfocal.build(get_recipe("gflv2_r18_mini").model_copy(update=tiny), device="cpu")
    with torch.no_grad():
        model.detector.quality.cls.bias.fill_(1.0)
    model.save(folder / "best.safetensors")


def loud(model: Model) -> Model:
    """Make a model with random weights find much, its scores and edges spread."""
    with torch.no_grad():
        model.detector.quality.cls.weight.mul_(30)
        model.detector.quality.cls.bias.fill_(-1.0)
        model.detector.box_conv.weight.mul_(30)
    return model


@final
class Edges(BoxRepresentation):
    """Four plain numbers: a representation from outside the package, without bins."""

    width = 1
    bins = None

    def values(self, code: Float[Tensor, "*n 4 w"]) -> Float[Tensor, "*n 4"]:
        return code[..., 0].exp()

    def probabilities(self, code: Float[Tensor, "*n 4 w"]) -> Float[Tensor, "*n 4 bins"]:
        raise NotImplementedError

    def losses(self, code: Float[Tensor, "p 4 w"], targets: Float[Tensor, "p 4"]) -> dict[str, Float[Tensor, " p"]]:
        return {}
