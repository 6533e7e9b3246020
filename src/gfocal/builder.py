"""Config to objects: the only code that reads a recipe to make the parts."""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gfocal.boxrep import BOXES, BoxRepresentation
from gfocal.config import Recipe, is_outside, name_of_outside
from gfocal.criterion import Criterion
from gfocal.detector import Detector, Outputs
from gfocal.errors import UserError
from gfocal.families import Family, family_of, options_in
from gfocal.nn.backbone import (
    create_backbone,
    feature_channels,
    feature_strides,
    freeze_norms,
    freeze_stages,
    load_backbone,
    make_deformable,
    stride_in_first,
    take_pictures,
)
from gfocal.postprocess import PostProcess
from gfocal.quality import QUALITIES, Head, Quality


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
    from weights of its backbone loads them (not wanted where a checkpoint follows). What such weights freeze is frozen
    in either case. UserError for parts that do not fit together, or weights that cannot be fetched.
    """
    _refuse_stranger("quality", quality, Quality)
    _refuse_stranger("box", box, BoxRepresentation)
    backbone = _backbone(recipe, fetch_weights=fetch_weights)
    family = family_of(recipe.family)
    _refuse_absent("quality", recipe.quality, quality)
    _refuse_absent("box", recipe.box, box)
    box = box or BOXES[str(recipe.box["name"])](**options_in(recipe.box))
    _refuse_foreign(recipe, family, backbone)
    neck = family.neck(feature_channels(backbone), recipe.head.channels)
    # before what differs from quality to quality, so that one seed gives all of them the same weights up to there
    trunk = family.trunk(recipe.head.channels, recipe.head.depth)
    anchors = [len(sides) for sides in family.priors.sides]
    outputs: list[Outputs] = []
    for channels, count in list(zip(neck.out_channels, anchors, strict=True))[: 1 if family.shared else None]:
        made = quality or _quality(recipe, family, box, channels=channels, anchors=count)
        _refuse_illegal(recipe, family, made, box, anchors=count)
        outputs.append(Outputs(made, channels=channels, anchors=count, box_width=box.width))
    if quality is not None and not family.shared:
        raise UserError(
            f"family {recipe.family['name']!r} has output layers of its own on every level, and a quality from outside "
            "is one for all: use another family"
        )
    detector = Detector(
        backbone,
        neck,
        trunk=trunk,
        outputs=outputs,
        priors=family.priors,
        box_width=box.width,
        scaled=family.scaled,
    )
    postprocess = PostProcess(family.coding, box, recipe.class_names, **recipe.test.model_dump())
    return Parts(detector, Criterion(family, box, outputs[0].quality), postprocess)


def _backbone(recipe: Recipe, *, fetch_weights: bool) -> nn.Module:
    config, pictures = recipe.backbone, recipe.pictures
    pretrained = config.weights != "none"
    tagged = config.weights == "imagenet"
    backbone = create_backbone(config.name, pretrained=tagged and fetch_weights, width=config.width)
    if tagged and fetch_weights:
        take_pictures(backbone, config.name, std=pictures.std, bgr=pictures.bgr)
    elif pretrained and fetch_weights:
        load_backbone(backbone, Path(config.weights))
    if config.strides == "1x1":
        stride_in_first(backbone)
    make_deformable(backbone, config.deformable, version=config.deformable_version)
    if pretrained and config.frozen_norms:
        freeze_norms(backbone, affine=config.frozen_affine)
    if pretrained:
        freeze_stages(backbone, config.frozen_stages)
    return backbone


def _quality(recipe: Recipe, family: Family, box: BoxRepresentation, *, channels: int, anchors: int) -> Quality:
    def ltrb(code: Tensor) -> Tensor:
        rows = code.unflatten(1, (4, -1)).permute(0, 3, 4, 1, 2)
        return family.coding.ltrb(box.values(rows)).permute(0, 3, 1, 2)

    head = Head(channels, len(recipe.class_names), anchors, family.classification, ltrb)
    return QUALITIES[str(recipe.quality["name"])](head, **options_in(recipe.quality))


def _refuse_absent(axis: str, spec: dict[str, Any], given: object | None) -> None:
    """Raise UserError where a recipe wants a part from outside the package and is not given that one."""
    if is_outside(spec) and (given is None or name_of_outside(given) != spec["name"]):
        what = "none was" if given is None else f"{name_of_outside(given)!r} was"
        raise UserError(
            f"the model has a {axis} from outside gfocal, {spec['name']!r}, and {what} given: pass an instance of it "
            f"as {axis}=…"
        )


def _refuse_foreign(recipe: Recipe, family: Family, backbone: nn.Module) -> None:
    """Raise UserError where backbone or pictures are none that the family can stand on."""
    ours, wanted = feature_strides(backbone), list(family.feature_strides)
    if ours != wanted:
        raise UserError(
            f"family {recipe.family['name']!r} needs features at strides {wanted}, but backbone "
            f"{recipe.backbone.name!r} has them at {ours}"
        )
    pictures = recipe.pictures
    sides = {"short": pictures.short, "train_short": pictures.train_short[0]}
    if pictures.jitter_size is not None:
        sides["jitter_size"] = min(pictures.jitter_size)
    if not pictures.keep_aspect:
        sides["long"] = pictures.long
    field, side = min(sides.items(), key=itemgetter(1))
    if side < family.least_side:
        raise UserError(
            f"family {recipe.family['name']!r} needs pictures of {family.least_side} pixels at least, but "
            f"pictures.{field} goes down to {side}"
        )


def _refuse_stranger(field: str, part: object, kind: type) -> None:
    """Raise UserError for a part from outside that is none."""
    if part is not None and not isinstance(part, kind):
        raise UserError(
            f"{field} must be an instance of a {kind.__name__}, got {part!r}: the package's own are named in the "
            f"recipe, as `{field}: {{name: ...}}`"
        )


def _refuse_illegal(recipe: Recipe, family: Family, quality: Quality, box: BoxRepresentation, *, anchors: int) -> None:
    """Raise UserError, with the reason, where the three axes do not fit together."""
    bins = 0 if box.bins is None else len(box.bins)
    name = f"family {recipe.family['name']!r}"
    if bins and not family.coding.spreads:
        raise UserError(
            f"box {type(box).__name__} spreads each edge over distances from the point, but {name} codes boxes as "
            f"{type(family.coding).__name__.lower()}: give the family coding: distances, where it has that option"
        )
    if bins < quality.min_bins:
        raise UserError(
            f"quality {type(quality).__name__} reads the {quality.min_bins} highest probabilities of an edge (top_k), "
            f"but box {type(box).__name__} has {bins or 'none'}: use a box representation with more bins"
        )
    if quality.max_anchors is not None and anchors > quality.max_anchors:
        raise UserError(
            f"quality {type(quality).__name__} reads one box a cell, but {name} has {anchors} anchors there: give the "
            "family coding: distances, where it has that option"
        )
