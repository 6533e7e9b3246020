"""What several tests need to make and compare weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

import gfocal
from gfocal.boxrep import BoxRepresentation
from gfocal.builder import Parts, build_parts
from gfocal.classification import Classification, Focal
from gfocal.config import BackboneConfig, HeadConfig, Recipe
from gfocal.data.scenes import CLASS_NAMES
from gfocal.model import Model
from gfocal.priors import Anchors, square_sides
from gfocal.quality import Head, Quality
from gfocal.recipes import get_recipe
from gfocal.structures import Detections, Raw, Target


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


OFFICIAL_HEADS = {
    "gfl": ("gfl_cls", "gfl_reg", "none"),
    "atss": ("atss_cls", "atss_reg", "atss_centerness"),
    "fcos": ("conv_cls", "conv_reg", "conv_centerness"),
    "retinanet": ("retina_cls", "retina_reg", "none"),
    "foveabox": ("conv_cls", "conv_reg", "none"),
}
"""What the authors' code and mmdetection call the output layers of classes, boxes and a branch."""


def official_name(key: str, *, head: str = "gfl") -> str:
    """Return the name that the authors' code and mmdetection give to one of our weights; head: of `OFFICIAL_HEADS`."""
    cls, reg, branch = OFFICIAL_HEADS[head]
    rules = [
        (r"neck\.lateral\.(\d)\.(\w+)", r"neck.lateral_convs.\1.conv.\2"),
        (r"neck\.output\.(\d)\.(\w+)", r"neck.fpn_convs.\1.conv.\2"),
        (r"neck\.extra\.0\.(\w+)", r"neck.fpn_convs.3.conv.\1"),
        (r"neck\.extra\.1\.(\w+)", r"neck.fpn_convs.4.conv.\1"),
        (r"trunk\.cls\.(\d)\.conv\.(\w+)", r"bbox_head.cls_convs.\1.conv.\2"),
        (r"trunk\.cls\.(\d)\.norm\.(\w+)", r"bbox_head.cls_convs.\1.gn.\2"),
        (r"trunk\.box\.(\d)\.conv\.(\w+)", r"bbox_head.reg_convs.\1.conv.\2"),
        (r"trunk\.box\.(\d)\.norm\.(\w+)", r"bbox_head.reg_convs.\1.gn.\2"),
        (r"outputs\.0\.quality\.cls\.(\w+)", rf"bbox_head.{cls}.\1"),
        (r"outputs\.0\.quality\.branch\.(\w+)", rf"bbox_head.{branch}.\1"),
        (r"outputs\.0\.quality\.predictor\.(\d)\.(\w+)", r"bbox_head.reg_conf.\1.\2"),
        (r"outputs\.0\.box_conv\.(\w+)", rf"bbox_head.{reg}.\1"),
        (r"scales\.(\d)\.scale", r"bbox_head.scales.\1.scale"),
        (r"backbone\.conv1\.(\d)\.(\w+)", r"backbone.stem.\1.\2"),
    ]
    for pattern, replacement in rules:
        if re.fullmatch(pattern, key):
            return re.sub(pattern, replacement, key)
    assert key.startswith("backbone."), key
    return key


def official_state(parts: Parts, *, head: str = "gfl") -> dict[str, Tensor]:
    """Return the state dict that the authors' code would hold for the same weights; head: of `OFFICIAL_HEADS`."""
    state = {official_name(key, head=head): value.clone() for key, value in parts.detector.state_dict().items()}
    if "backbone.stem.0.weight" in state:  # the deep stem ends with its last norm
        state = {key.replace("backbone.bn1.", "backbone.stem.7."): value for key, value in state.items()}
    return state | ({"bbox_head.integral.project": torch.arange(17.0)} if head == "gfl" else {})


def official_ssd_name(key: str, *, neck: bool) -> str:
    """Return the official name of one of SSD's weights; neck: as mmdetection has it since its SSD got a neck."""
    first, _, rest = key.partition(".")
    if first == "neck" and rest == "l2_norm.weight":
        return key if neck else "backbone.l2_norm.weight"
    if first == "neck":
        _, level, layer, kind = rest.split(".")
        part = ("squeeze", "shrink").index(layer)
        return (
            f"neck.extra_layers.{level}.{part}.conv.{kind}"
            if neck
            else f"backbone.extra.{2 * int(level) + part}.{kind}"
        )
    if first == "outputs":
        level, *_, layer, kind = rest.split(".")
        convs = "reg_convs" if layer == "box_conv" else "cls_convs"
        return f"bbox_head.{convs}.{level}.0.{kind}" if neck else f"bbox_head.{convs}.{level}.{kind}"
    assert first == "backbone", key
    return key


def save_eager_model(folder: Path, class_names: tuple[str, ...] = CLASS_NAMES) -> None:
    """Save the smallest detector (of scenes, unless told otherwise), with random weights that find much everywhere."""
    tiny = {
        "class_names": class_names,
        "backbone": BackboneConfig(name="resnet10t", weights="none", width=0.25),
        "head": HeadConfig(channels=64, depth=1),
    }
    torch.manual_seed(0)
    model = gfocal.build(get_recipe("gflv2_r18_mini").model_copy(update=tiny), device="cpu")
    with torch.no_grad():
        model.detector.outputs_of(0).quality.cls.bias.fill_(1.0)
    model.save(folder / "best.safetensors")


def square_anchors(strides: Sequence[int], scale: float = 8.0) -> Anchors:
    """Return the priors of ATSS."""
    return Anchors(strides, square_sides(strides, scale))


def head(channels: int, num_classes: int, *, anchors: int = 1, classification: Classification | None = None) -> Head:
    """Return what a quality is made for, in a family of distances, and of focal classification by default."""
    classification = classification or Focal()
    return Head(channels, num_classes, anchors, classification, lambda box: box.unflatten(1, (4, -1))[:, :, 0].relu())


def raw_of(quality: Quality, class_logits: Tensor, quality_logits: Tensor | None = None) -> Raw:
    """Return the raw output for logits (b, n, k) and (b, n), one location a cell of one row."""
    batch, count = class_logits.shape[:2]
    scores, class_scores = quality.scores(class_logits, quality_logits)
    return Raw(
        scores=scores,
        class_scores=class_scores,
        box=torch.zeros(batch, count, 4, 5),
        class_logits=class_logits,
        quality_logits=quality_logits,
        priors=square_anchors((8,))([torch.zeros(1, 1, 1, count)]),
    )


def target_of(
    rows: Sequence[tuple[int, int, float, bool]],
    *,
    batch: int,
    count: int,
    boxes: Sequence[Sequence[float]] | None = None,
    counted: Tensor | None = None,
) -> Target:
    """Return a target from rows of location, label, IoU and whether the pair is positive; no box has area by default.

    Locations lie as those of `raw_of`.
    """
    location, labels, iou, positive = zip(*rows, strict=True) if rows else ((), (), (), ())
    where = torch.tensor(location, dtype=torch.long)
    return Target(
        location=where,
        positive=torch.tensor(positive, dtype=torch.bool),
        counted=torch.ones(batch, count, dtype=torch.bool) if counted is None else counted,
        labels=torch.tensor(labels, dtype=torch.long),
        priors=square_anchors((8,))([torch.zeros(1, 1, 1, count)])[where % count],
        boxes=torch.zeros(len(rows), 4) if boxes is None else torch.tensor(boxes, dtype=torch.float32),
        iou=torch.tensor(iou, dtype=torch.float32),
    )


def loud(model: Model) -> Model:
    """Make a model with random weights find much, its scores and edges spread."""
    with torch.no_grad():
        model.detector.outputs_of(0).quality.cls.weight.mul_(30)
        model.detector.outputs_of(0).quality.cls.bias.fill_(-1.0)
        model.detector.outputs_of(0).box_conv.weight.mul_(30)
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

    def distribution(self, code: Float[Tensor, "*n 4 w"]) -> None:
        return None

    def losses(self, code: Float[Tensor, "p 4 w"], targets: Float[Tensor, "p 4"]) -> dict[str, Float[Tensor, " p"]]:
        return {}
