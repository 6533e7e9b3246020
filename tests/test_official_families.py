"""Files of the baselines, as mmdetection and the authors' repository write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gfocal.builder import Parts, build_parts
from gfocal.checkpoint import load_state
from gfocal.config import Recipe
from gfocal.errors import UserError
from gfocal.model import load_model
from gfocal.official import OfficialFile, convert_official, read_official, recipe_of_official
from gfocal.recipes import RECIPES
from helpers import (
    OFFICIAL_HEADS,
    assert_same_weights,
    official_ssd_name,
    official_state,
    randomised,
    without_weights,
)


def file_of(state: dict[str, Tensor]) -> OfficialFile:
    return OfficialFile(Path("file.pth"), state, None)


def narrow(name: str, tiny_recipe: Recipe) -> Recipe:
    """Return a recipe with three classes and few channels."""
    recipe = RECIPES[name]()
    backbone = tiny_recipe.backbone
    if recipe.family["name"] == "ssd":
        backbone = recipe.backbone.model_copy(update={"width": 1 / 16, "weights": "none"})
    shape = {"head": tiny_recipe.head, "class_names": tiny_recipe.class_names, "backbone": backbone}
    return recipe.model_copy(update=shape)


def assert_file_becomes(parts: Parts, recipe: Recipe, path: Path) -> None:
    """Assert that an official file gives a model of other weights those of `parts`."""
    other = without_weights(recipe)
    load_state(other.detector, convert_official(read_official(path), recipe), where="x")
    assert_same_weights(parts, other)


@pytest.mark.parametrize(("name", "called"), [("fcos_r50_fpn_1x", "fcos"), ("foveabox_r50_fpn_1x", "fovea")])
def test_files_from_before_output_layers_had_one_name_become_our_weights(
    tiny_recipe: Recipe, tmp_path: Path, name: str, called: str
) -> None:
    recipe = narrow(name, tiny_recipe)
    parts = randomised(build_parts(recipe))
    state = official_state(parts, head=str(recipe.family["name"]))
    old = {key.replace("bbox_head.conv_", f"bbox_head.{called}_"): value for key, value in state.items()}
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "official.pth")
    assert_file_becomes(parts, recipe, tmp_path / "official.pth")


@pytest.mark.parametrize("name", ["atss_r50_fpn_1x", "fcos_r50_fpn_1x", "retinanet_r50_fpn_1x", "foveabox_r50_fpn_1x"])
@pytest.mark.parametrize("version", [2, 3])
def test_files_of_the_baselines_become_our_weights(
    tiny_recipe: Recipe, tmp_path: Path, name: str, version: int
) -> None:
    """Their keys are the same in mmdetection 2.x and 3.x, which adds how pictures are normalised."""
    recipe = narrow(name, tiny_recipe)
    parts = randomised(build_parts(recipe))
    state = official_state(parts, head=str(recipe.family["name"]))
    assert not any(key.startswith(("outputs.", "trunk.", "scales.")) for key in state)
    content: dict[str, Any] = {"meta": {}, "state_dict": state}
    if version == 3:
        content["state_dict"] |= {"data_preprocessor.mean": torch.zeros(3, 1, 1)}
        content["meta"] = {"dataset_meta": {"classes": recipe.class_names}}
    torch.save(content, tmp_path / "official.pth")
    model = load_model(tmp_path / "official.pth", recipe=recipe, device="cpu")
    assert {key: value.shape for key, value in model.detector.state_dict().items()} == {
        key: value.shape for key, value in parts.detector.state_dict().items()
    }
    assert_file_becomes(parts, recipe, tmp_path / "official.pth")


@pytest.mark.parametrize("neck", [False, True])
def test_ssds_layers_may_lie_in_the_backbone_or_the_neck(tiny_recipe: Recipe, *, neck: bool) -> None:
    """In mmdetection, added layers and norm moved from backbone to neck, and layers into containers."""
    recipe = narrow("ssd512_vgg16", tiny_recipe)
    parts = randomised(build_parts(recipe))
    own = parts.detector.state_dict()
    state = {official_ssd_name(key, neck=neck): value.clone() for key, value in own.items()}
    assert ("neck.extra_layers.4.1.conv.weight" in state, "backbone.extra.9.weight" in state) == (neck, not neck)
    assert ("bbox_head.cls_convs.6.0.bias" in state, "bbox_head.cls_convs.6.bias" in state) == (neck, not neck)
    other = without_weights(recipe)
    load_state(other.detector, convert_official(file_of(state), recipe), where="x")
    assert_same_weights(parts, other)


@pytest.mark.parametrize("family", sorted(OFFICIAL_HEADS.keys() - {"gfl"}))
def test_keys_of_another_family_stay_as_they_are(tiny_recipe: Recipe, family: str) -> None:
    name = next(name for name in RECIPES if name.startswith(family))
    recipe = narrow(name, tiny_recipe)
    other = "fcos" if family == "retinanet" else "retinanet"
    state = official_state(build_parts(recipe), head=other)
    converted = convert_official(file_of(state), recipe)
    left = {key for key in converted if key.startswith("bbox_head.")}
    assert {f"bbox_head.{layer}.weight" for layer in OFFICIAL_HEADS[other][:2]} <= left
    with pytest.raises(UserError, match=r"missing outputs\.0\.quality\.cls\.weight"):
        load_state(build_parts(recipe).detector, converted, where="x")


@pytest.mark.parametrize("name", ["atss_r50_fpn_1x", "fcos_r50_fpn_1x", "retinanet_r50_fpn_1x", "foveabox_r50_fpn_1x"])
def test_files_of_the_baselines_ask_for_their_recipe(tiny_recipe: Recipe, name: str) -> None:
    recipe = narrow(name, tiny_recipe)
    state = official_state(build_parts(recipe), head=str(recipe.family["name"]))
    with pytest.raises(UserError, match=r"file\.pth: not a GFL V1 or V2 file: name its recipe"):
        recipe_of_official(file_of(state))
