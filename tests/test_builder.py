"""Parts fit together: every family, with every quality and every box representation that it can have, learns."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from functools import cache
from statistics import median
from typing import Any, get_args

import pytest
import torch
from annotated_types import Ge
from jaxtyping import config as shape_checks
from torch import Tensor, nn

from gfocal import builder
from gfocal.boxrep import BOXES, Dirac, General
from gfocal.builder import Parts, build_parts
from gfocal.config import BackboneConfig, HeadConfig, PicturesConfig, Recipe
from gfocal.errors import UserError
from gfocal.families import FAMILIES
from gfocal.nn.backbone import create_backbone
from gfocal.quality import QUALITIES
from gfocal.quality.convs import Places
from gfocal.quality.joint import DGQP
from helpers import Edges, head

Spec = dict[str, Any]

FAMILY_SPECS: list[Spec] = [
    {"name": "atss"},
    {"name": "atss", "coding": "deltas"},
    {"name": "fcos"},
    {"name": "retinanet"},
    {"name": "retinanet", "coding": "deltas"},
    {"name": "foveabox"},
    {"name": "foveabox", "coding": "logarithms"},
    {"name": "ssd"},
]
SPREAD = [spec for spec in FAMILY_SPECS if spec["name"] != "ssd" and "coding" not in spec]
"""Families whose values are distances, which a distribution can stand for."""
MANY_ANCHORS = [spec for spec in FAMILY_SPECS if spec in ({"name": "retinanet", "coding": "deltas"}, {"name": "ssd"})]
"""Families of several anchors a cell."""
QUALITY_SPECS: list[Spec] = [
    {"name": "none"},
    {"name": "branch", "label": "centerness"},
    {"name": "branch", "label": "iou"},
    {"name": "guided", "label": "centerness"},
    {"name": "guided", "label": "iou"},
    {"name": "joint"},
    {"name": "dgqp"},
    {"name": "composed"},
    {"name": "conv", "places": "point"},
    {"name": "conv", "places": "star"},
]
BOX_SPECS: list[Spec] = [{"name": "dirac"}, {"name": "gaussian"}, {"name": "general"}]
TURNS = {
    "dirac": ("branch_centerness", "guided_iou", "conv_point"),
    "gaussian": ("branch_iou", "guided_centerness", "conv_star"),
    "general": ("branch_centerness", "guided_iou", "conv_point"),
}
"""Which label or place each box representation meets with every family, since neither sees the other."""

STATISTICS = [["top"], ["mean"], ["var"], ["top", "var"], ["mean", "var"], ["top", "mean", "var"]]
FURTHER: list[tuple[Spec, Spec]] = [
    *(({"name": "dgqp", "statistics": names}, {"name": "general"}) for names in STATISTICS),
    ({"name": "dgqp", "top_k": 1, "hidden": 8, "beta": 1.0}, {"name": "general"}),
    ({"name": "composed", "dims": 8, "statistics": ["top", "mean", "var"]}, {"name": "general"}),
    ({"name": "joint", "beta": 0.0}, {"name": "general", "n": 12}),
    *(({"name": "conv", "places": places}, {"name": "general"}) for places in get_args(Places)),
    *(
        (quality, box)
        for quality in ({"name": "branch"}, {"name": "dgqp"})
        for box in (
            {"name": "general", "dfl_weight": 0.0},
            {"name": "general", "n": 12},
            {"name": "general", "n": 32, "delta": 0.5},
        )
    ),
]
"""What further options there are, with ATSS: they do not see the family."""


def refusal(family: Spec, quality: Spec, box: Spec) -> str | None:
    """Return what the refusal of a combination must say, None for a legal one: the papers' own limits."""
    if box["name"] == "general" and family not in SPREAD:
        return "spreads each edge over distances"
    if quality["name"] in ("dgqp", "composed") and box["name"] != "general":
        return "reads the 4 highest probabilities"
    if quality["name"] in ("dgqp", "composed", "conv") and family in MANY_ANCHORS:
        return "reads one box a cell"
    return None


def spec_id(spec: Spec) -> str:
    return "_".join("-".join(value) if isinstance(value, list) else str(value) for value in spec.values())


ALL = [(family, quality, box) for family in FAMILY_SPECS for quality in QUALITY_SPECS for box in BOX_SPECS]
ILLEGAL = [combination for combination in ALL if refusal(*combination)]
LEGAL = [
    (family, quality, box)
    for family, quality, box in ALL
    if not refusal(family, quality, box) and (len(quality) == 1 or spec_id(quality) in TURNS[box["name"]])
]


def combination_ids(combinations: list[tuple[Spec, Spec, Spec]]) -> list[str]:
    return ["-".join(map(spec_id, combination)) for combination in combinations]


# ---------------------------------------------------------------- the contract

HEIGHT, WIDTH = 64, 96
BOXES_OF_TWO = torch.tensor([[4.0, 6.0, 60.0, 58.0], [50.0, 20.0, 95.0, 63.0]])
TRUTHS = [
    {"boxes": BOXES_OF_TWO, "labels": torch.tensor([0, 2])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long), "size": (64, 64)},
]
STEPS = 15


@cache
def backbone_of(name: str, width: float) -> nn.Module:
    torch.manual_seed(0)
    return create_backbone(name, width=width)


@pytest.fixture
def backbones_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy the backbone of the first test in all others, because making one takes longer than the steps."""

    def copied(name: str, *, pretrained: bool, width: float) -> nn.Module:
        assert not pretrained
        return copy.deepcopy(backbone_of(name, width))

    monkeypatch.setattr(builder, "create_backbone", copied)


@pytest.fixture
def shapes_checked_once() -> Iterator[None]:
    """Check shapes up to the end of the first step only, since all steps have the same; the test switches it off."""
    yield
    shape_checks.update("jaxtyping_disable", False)


def combined(base: Recipe, family: Spec, quality: Spec, box: Spec) -> Recipe:
    values = base.model_dump() | {"family": family, "quality": quality, "box": box}
    values["backbone"] |= {"name": "resnet10t"}  # the shallowest: the steps are most of the time that this takes
    if family["name"] == "ssd":
        values["backbone"] = BackboneConfig(name="ssd_vgg16", weights="none", width=1 / 16)
        values["pictures"] = PicturesConfig(short=512, long=512, train_short=(512, 512), keep_aspect=False)
    return Recipe.model_validate(values)


def example(recipe: Recipe) -> tuple[Tensor, list[dict[str, Any]], list[tuple[int, int]]]:
    """Return pictures, truths and sizes: with Dirac a second picture, without boxes; for SSD one as it wants it."""
    if recipe.family["name"] == "ssd":
        return torch.randn(1, 3, 512, 512), [{"boxes": 5 * BOXES_OF_TWO, "labels": torch.tensor([0, 2])}], [(512, 512)]
    count = 2 if recipe.box["name"] == "dirac" else 1
    return torch.randn(count, 3, HEIGHT, WIDTH), TRUTHS[:count], [(60, 90), (64, 64)][:count]


def trained(
    parts: Parts, images: Tensor, truths: list[dict[str, Any]], names: set[str]
) -> tuple[list[float], set[str]]:
    """Return the sum of the losses `names` at each step, and the parameters whose gradient was not 0 in all of them."""
    # of steps whose size does not hang on the unit of a family's box code
    optimizer = torch.optim.AdamW(parts.detector.parameters(), lr=2e-3, fused=True)
    totals: list[float] = []
    moved: set[str] = set()
    for _ in range(STEPS):
        losses = parts.criterion(parts.detector.train()(images), truths)
        shape_checks.update("jaxtyping_disable", True)
        assert losses.keys() == names
        total = sum(losses.values(), torch.zeros(()))
        optimizer.zero_grad()
        total.backward()
        for name, parameter in parts.detector.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            if name not in moved and parameter.grad.any():
                moved.add(name)
        optimizer.step()
        totals.append(total.item())
        assert math.isfinite(totals[-1]), losses
    return totals, moved


def check_detections(parts: Parts, images: Tensor, sizes: list[tuple[int, int]], quality: Spec) -> None:
    with torch.no_grad():
        raw = parts.detector.eval()(images)
    for found, (height, width) in zip(parts.postprocess(raw, sizes, threshold=1e-4), sizes, strict=True):
        limit = torch.tensor([width, height, width, height], dtype=torch.float32)
        assert 0 < len(found) <= parts.postprocess.max_detections
        assert (found.boxes >= 0).all()
        assert (found.boxes <= limit).all()
        assert (found.boxes[:, 2:] >= found.boxes[:, :2]).all()
        assert (found.scores.diff() <= 0).all()
        assert (found.quality is not None) == (quality["name"] in ("branch", "dgqp", "conv"))
        spreads = parts.criterion.family.coding.spreads and not isinstance(parts.criterion.box, Dirac)
        assert (found.edges is not None) == spreads
        if found.edges is not None and isinstance(parts.criterion.box, General):
            assert found.edges.probabilities.shape[-1] == parts.criterion.box.width
            torch.testing.assert_close(found.edges.mean.clamp(min=0).minimum(limit), found.boxes, rtol=1e-4, atol=1e-3)


def check_contract(recipe: Recipe) -> None:
    parts = build_parts(recipe)
    images, truths, sizes = example(recipe)
    names = {"cls", "box"}
    names |= {"dfl"} if recipe.box["name"] == "general" and recipe.box.get("dfl_weight") != 0 else set()
    names |= {"quality"} if recipe.quality["name"] == "branch" else set()
    totals, moved = trained(parts, images, truths, names)
    # the likelihood of a narrow Gaussian is steep: single steps may leap
    assert median(totals[-5:]) < totals[0]
    still = {name for name, _ in parts.detector.named_parameters()} - moved
    if parts.criterion.family.shared:
        # a level without positives learns no scale of boxes
        assert all(name.startswith("scales.") for name in still), still
        assert len(still) < len(parts.detector.scales)
    check_detections(parts, images, sizes, recipe.quality)


@pytest.mark.usefixtures("backbones_made_once", "shapes_checked_once")
@pytest.mark.parametrize(("family", "quality", "box"), LEGAL, ids=combination_ids(LEGAL))
def test_every_legal_combination_learns(tiny_recipe: Recipe, family: Spec, quality: Spec, box: Spec) -> None:
    """The contract of the three axes: it builds, learns to finite and falling losses, moves all, and finds boxes.

    Not all products are taken. Each box representation meets one label of branch, one of guided and one place of
    `conv`, so that every family meets two of each: labels and places do not see how boxes are represented. What
    further options a quality or a box representation has meets ATSS alone, below: they do not see the family.
    """
    check_contract(combined(tiny_recipe, family, quality, box))


@pytest.mark.usefixtures("backbones_made_once", "shapes_checked_once")
@pytest.mark.parametrize(("quality", "box"), FURTHER, ids=["-".join(map(spec_id, pair)) for pair in FURTHER])
def test_every_option_learns_with_atss(tiny_recipe: Recipe, quality: Spec, box: Spec) -> None:
    check_contract(combined(tiny_recipe, {"name": "atss"}, quality, box))


@pytest.mark.usefixtures("backbones_made_once")
@pytest.mark.parametrize(("family", "quality", "box"), ILLEGAL, ids=combination_ids(ILLEGAL))
def test_every_other_combination_is_refused_with_the_reason(
    tiny_recipe: Recipe, family: Spec, quality: Spec, box: Spec
) -> None:
    recipe = combined(tiny_recipe, family, quality, box)
    with pytest.raises(UserError, match=refusal(family, quality, box)) as caught:
        build_parts(recipe)
    assert "\n" not in str(caught.value)


def test_the_contract_leaves_no_choice_of_an_axis_out() -> None:
    assert {family["name"] for family, _, _ in LEGAL} == FAMILIES.keys()
    assert {quality["name"] for _, quality, _ in LEGAL} == QUALITIES.keys()
    assert {box["name"] for _, _, box in LEGAL} == BOXES.keys()
    assert len(ALL) == 8 * 10 * 3
    for family in FAMILY_SPECS:
        met = {(quality["name"], box["name"]) for other, quality, box in LEGAL if other == family}
        boxes = {"dirac", "gaussian"} | ({"general"} if family in SPREAD else set())
        qualities = {"none", "branch", "guided", "joint"} | (set() if family in MANY_ANCHORS else {"conv"})
        reading = {("dgqp", "general"), ("composed", "general")} if family in SPREAD else set()
        assert met == {(quality, box) for quality in qualities for box in boxes} | reading


# ---------------------------------------------------------------- how parts hang together


def test_the_parts_share_what_they_have_in_common(tiny_recipe: Recipe) -> None:
    parts = build_parts(tiny_recipe)
    assert parts.criterion.quality is parts.detector.outputs_of(0).quality
    assert parts.criterion.box is parts.postprocess.box
    assert parts.criterion.family.coding is parts.postprocess.coding
    assert parts.criterion.family.priors is parts.detector.priors
    assert parts.postprocess.class_names == tiny_recipe.class_names
    for name, value in tiny_recipe.test:
        assert getattr(parts.postprocess, name) == value, name


def test_options_reach_their_parts(tiny_recipe: Recipe) -> None:
    family = {"name": "atss", "topk": 5, "anchor_scale": 4.0}
    quality = {"name": "dgqp", "top_k": 3, "hidden": 16, "beta": 1.0}
    box = {"name": "general", "n": 8, "delta": 2.0, "dfl_weight": 0.5}
    parts = build_parts(combined(tiny_recipe, family, quality, box))
    assert parts.detector.priors.sides[0].tolist() == [[32.0, 32.0]]
    assert parts.criterion.family.assigner.topk == 5
    assert parts.detector.outputs_of(0).box_conv.out_channels == 4 * 9
    assert isinstance(parts.criterion.quality, DGQP)
    assert (parts.criterion.quality.read.top_k, parts.criterion.quality.beta) == (3, 1.0)
    assert parts.criterion.quality.predictor[0].weight.shape[:2] == (16, 16)
    assert isinstance(parts.criterion.box, General)
    assert (parts.criterion.box.delta, parts.criterion.box.dfl_weight) == (2.0, 0.5)


def test_ssd_has_output_layers_on_every_level_and_the_others_share_theirs(tiny_recipe: Recipe) -> None:
    none, dirac = {"name": "none"}, {"name": "dirac"}
    for family, count, scaled in (({"name": "ssd"}, 7, False), ({"name": "fcos"}, 1, True)):
        detector = build_parts(combined(tiny_recipe, family, none, dirac)).detector
        assert len(detector.outputs) == count
        assert len({id(detector.outputs_of(level)) for level in range(len(detector.scales))}) == count
        assert any("scales" in name for name, _ in detector.named_parameters()) == scaled


def test_a_part_from_outside_takes_the_place_of_the_recipes(tiny_recipe_v1: Recipe) -> None:
    box = Edges()
    parts = build_parts(tiny_recipe_v1, box=box)
    assert parts.criterion.box is parts.postprocess.box is box
    raw = parts.detector.eval()(torch.randn(2, 3, HEIGHT, WIDTH))
    assert raw.box.shape[2:] == (4, 1)
    losses = parts.criterion(raw, TRUTHS)
    assert losses.keys() == {"cls", "box"}
    (found, _) = parts.postprocess(raw, [(64, 96), (64, 64)], threshold=1e-4)
    assert len(found) > 0
    assert found.edges is None

    quality = DGQP(head(64, 3), top_k=2)
    assert build_parts(tiny_recipe_v1, quality=quality).detector.outputs_of(0).quality is quality


# ---------------------------------------------------------------- what is refused besides


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("axis", ["quality", "box"])
def test_a_part_from_outside_is_an_instance(tiny_recipe: Recipe, axis: str) -> None:
    parts: dict[str, Any] = {axis: {"name": "general"}}
    with pytest.raises(UserError, match=f"^{axis} must be an instance of a .* got {{'name': 'general'}}"):
        build_parts(tiny_recipe, **parts)


def test_a_quality_that_reads_distributions_needs_some(tiny_recipe: Recipe) -> None:
    with pytest.raises(UserError, match=r"DGQP.*Edges"):
        build_parts(tiny_recipe, box=Edges())


def test_a_quality_cannot_look_at_more_probabilities_than_there_are(tiny_recipe: Recipe) -> None:
    for name in ("dgqp", "composed"):
        with pytest.raises(UserError, match="top_k"):
            build_parts(
                combined(tiny_recipe, {"name": "atss"}, {"name": name, "top_k": 8}, {"name": "general", "n": 4})
            )


def test_one_quality_from_outside_cannot_be_on_every_level(tiny_recipe: Recipe) -> None:
    recipe = combined(tiny_recipe, {"name": "ssd"}, {"name": "none"}, {"name": "dirac"})
    quality = QUALITIES["none"](head(64, 3, anchors=4))
    with pytest.raises(UserError, match="'ssd' has output layers of its own on every level"):
        build_parts(recipe, quality=quality)


@pytest.mark.parametrize(("family", "backbone"), [("ssd", "resnet18"), ("fcos", "ssd_vgg16")])
def test_a_backbone_of_other_strides_is_refused(tiny_recipe: Recipe, family: str, backbone: str) -> None:
    recipe = combined(tiny_recipe, {"name": family}, {"name": "none"}, {"name": "dirac"})
    changed = recipe.backbone.model_copy(update={"name": backbone, "width": 0.25})
    with pytest.raises(UserError, match=rf"'{family}' needs features at strides \[.*{backbone}"):
        build_parts(recipe.model_copy(update={"backbone": changed}))


@pytest.mark.parametrize(
    "pictures",
    [
        PicturesConfig(short=320, long=512, train_short=(512, 512)),
        PicturesConfig(short=512, long=512, train_short=(480, 512)),
        PicturesConfig(short=512, long=512, train_short=(512, 512), jitter=(0.5, 2.0), jitter_size=(512, 480)),
    ],
)
def test_ssd_refuses_pictures_that_its_last_level_has_no_cell_for(
    tiny_recipe: Recipe, pictures: PicturesConfig
) -> None:
    recipe = combined(tiny_recipe, {"name": "ssd"}, {"name": "none"}, {"name": "dirac"})
    with pytest.raises(UserError, match="'ssd' needs pictures of 512 pixels at least"):
        build_parts(recipe.model_copy(update={"pictures": pictures}))


def test_an_unknown_backbone_is_named(tiny_recipe: Recipe) -> None:
    backbone = tiny_recipe.backbone.model_copy(update={"name": "resnet19"})
    with pytest.raises(UserError, match="resnet19"):
        build_parts(tiny_recipe.model_copy(update={"backbone": backbone}))


def test_the_narrowest_head_takes_the_smallest_picture(tiny_recipe: Recipe) -> None:
    bounds = HeadConfig.model_fields["channels"].metadata
    narrowest = next(bound.ge for bound in bounds if isinstance(bound, Ge))
    head = tiny_recipe.head.model_copy(update={"channels": narrowest})
    detector = build_parts(tiny_recipe.model_copy(update={"head": head})).detector
    assert detector.eval()(torch.zeros(1, 3, 32, 32)).scores.shape[0] == 1


def test_the_same_seed_builds_the_same_weights(tiny_recipe: Recipe) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(build_parts(tiny_recipe).detector.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_the_same_seed_gives_all_qualities_and_boxes_the_same_weights_below_them(tiny_recipe: Recipe) -> None:
    states = []
    for quality, box in (("joint", "dirac"), ("dgqp", "general")):
        torch.manual_seed(7)
        recipe = combined(tiny_recipe, {"name": "atss"}, {"name": quality}, {"name": box})
        states.append(build_parts(recipe).detector.state_dict())
    shared = [key for key in states[0] if not key.startswith("outputs.")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in shared)
    assert len(shared) > 20
