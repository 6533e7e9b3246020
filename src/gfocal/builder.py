"""Config to objects: the only code that reads a recipe to make the parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gfocal.boxrep import BOXES, BoxRepresentation
from gfocal.config import Recipe
from gfocal.criterion import Criterion
from gfocal.detector import Detector
from gfocal.errors import UserError
from gfocal.families import FAMILIES
from gfocal.nn.backbone import (
    create_backbone,
    feature_channels,
    freeze_norms,
    freeze_stages,
    make_deformable,
)
from gfocal.nn.fpn import FPN
from gfocal.nn.trunk import Trunk
from gfocal.postprocess import PostProcess
from gfocal.quality import QUALITIES, Quality


@dataclass(frozen=True)
class Parts:
    """The three objects a model stands on."""

    detector: Detector
    criterion: Criterion
    postprocess: PostProcess


def build_parts(
    recipe: Recipe,
    *,
    quality: Quality | None = None,
    box: BoxRepresentation | None = None,
    fetch_weights: bool = False,
) -> Parts:
    """Make the parts of a recipe, on the CPU.

    quality, box: replace the recipe's part by an instance from anywhere. fetch_weights: whether a recipe that starts
    from ImageNet weights loads them (not wanted where a checkpoint follows). What such weights freeze is frozen in
    either case. UserError for parts that do not fit together, or weights that cannot be fetched.
    """
    config = recipe.backbone
    pretrained = config.weights == "imagenet"
    backbone = create_backbone(config.name, pretrained=pretrained and fetch_weights, width=config.width)
    make_deformable(backbone, config.deformable, version=config.deformable_version)
    if pretrained and config.frozen_norms:
        freeze_norms(backbone)
    if pretrained:
        freeze_stages(backbone, config.frozen_stages)

    channels, num_classes = recipe.head.channels, len(recipe.class_names)
    family = FAMILIES[str(recipe.family["name"])](**_options(recipe.family))
    box = box or BOXES[str(recipe.box["name"])](**_options(recipe.box))
    quality = quality or QUALITIES[str(recipe.quality["name"])](channels, num_classes, **_options(recipe.quality))
    _refuse_illegal(quality, box)
    detector = Detector(
        backbone,
        FPN(feature_channels(backbone), channels),
        trunk=Trunk(channels, recipe.head.depth),
        quality=quality,
        box=box,
        priors=family.priors,
        channels=channels,
    )
    postprocess = PostProcess(family.coding, box, recipe.class_names, **recipe.test.model_dump())
    criterion = Criterion(family.assigner, family.coding, box, quality)
    return Parts(detector, criterion, postprocess)


def _options(spec: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key != "name"}


def _refuse_illegal(quality: Quality, box: BoxRepresentation) -> None:
    bins = 0 if box.bins is None else len(box.bins)
    if bins < quality.min_bins:
        raise UserError(
            f"quality {type(quality).__name__} reads the {quality.min_bins} highest probabilities of an edge (top_k), "
            f"but box {type(box).__name__} has {bins or 'none'}: use a box representation with more bins"
        )
