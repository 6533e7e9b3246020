"""Which file a source of weights stands for, and what is in it: a recipe and its weights under this package's keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gfocal.calibration import Calibration
from gfocal.checkpoint import read_calibration, read_weights
from gfocal.config import Recipe
from gfocal.download import fetch
from gfocal.errors import UserError
from gfocal.official import convert_official, fitted, read_official, recipe_of_official
from gfocal.recipes import RECIPES, get_recipe


@dataclass(frozen=True)
class Weights:
    """The content of a file of weights: the recipe of the model they belong to, and each under its key.

    calibration: of that model, where it has been calibrated.
    """

    path: Path
    recipe: Recipe
    state: Mapping[str, Tensor]
    calibration: Calibration | None = None


def open_weights(source: str | Path, *, recipe: str | Path | Recipe | None = None) -> Weights:
    """Read weights from what `gfocal.load` takes.

    source: a run folder, a .safetensors file of `Model.save`, an official .pth, or the name of a recipe whose weights
    mmdetection publishes, which are downloaded once. recipe: replaces the file's own, or the one found from its keys.
    UserError where there is no such file, or it cannot be read.
    """
    path = weights_file(source)
    if path.suffix == ".safetensors":
        stored, state = read_weights(path)
        return Weights(path, stored if recipe is None else get_recipe(recipe), state, read_calibration(path))
    official = read_official(path)
    if recipe is None and str(source) in RECIPES:
        recipe = str(source)
    chosen = fitted(recipe_of_official(official) if recipe is None else get_recipe(recipe), official)
    return Weights(path, chosen, convert_official(official, chosen))


def weights_file(source: str | Path) -> Path:
    """Return the file that `open_weights` reads, downloaded where a recipe's name stands for it; UserError for none."""
    path = Path(source)
    if path.is_dir():
        for name in ("best.safetensors", "last.safetensors"):
            if (path / name).is_file():
                return path / name
        raise UserError(f"{path}: holds neither best.safetensors nor last.safetensors: name a run folder")
    if not path.exists() and str(source) in RECIPES:
        return _download(str(source))
    if not path.is_file():
        raise UserError(
            f"{path}: no such file or folder: name a run folder, a .safetensors, an official .pth, a recipe from "
            "`gfocal recipes`, or, to find boxes, an .onnx or .xml of `gfocal export`"
        )
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise UserError(f"{path}: weights are .safetensors or official .pth files")
    return path


def _download(name: str) -> Path:
    """Return the published file of a recipe, from torch.hub's folder or the network."""
    if name not in PUBLISHED:
        by_hand = " (the authors' files are linked from github.com/implus/GFocalV2)" if name.startswith("gflv2") else ""
        raise UserError(
            f"{name} is a recipe whose weights cannot be downloaded by name{by_hand}: load a .pth file by its path, "
            "train it, or make it with random weights by gfocal.build"
        )
    file = PUBLISHED[name]
    # mmdetection ends a file's name with the beginning of its SHA-256
    digest = file.removesuffix(".pth").rsplit("-", 1)[-1]
    return fetch(f"{SERVER}/{file}", Path(torch.hub.get_dir()) / "checkpoints", sha256=digest)


SERVER = "https://download.openmmlab.com/mmdetection/v2.0/gfl"

PUBLISHED: Mapping[str, str] = {
    "gfl_r50_fpn_1x": "gfl_r50_fpn_1x_coco/gfl_r50_fpn_1x_coco_20200629_121244-25944287.pth",
    "gfl_r50_fpn_ms2x": "gfl_r50_fpn_mstrain_2x_coco/gfl_r50_fpn_mstrain_2x_coco_20200629_213802-37bb1edc.pth",
    "gfl_r101_fpn_ms2x": "gfl_r101_fpn_mstrain_2x_coco/gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth",
    "gfl_r101_dcn_fpn_ms2x": "gfl_r101_fpn_dconv_c3-c5_mstrain_2x_coco/"
    "gfl_r101_fpn_dconv_c3-c5_mstrain_2x_coco_20200630_102002-134b07df.pth",
    "gfl_x101_32x4d_fpn_ms2x": "gfl_x101_32x4d_fpn_mstrain_2x_coco/"
    "gfl_x101_32x4d_fpn_mstrain_2x_coco_20200630_102002-50c1ffdb.pth",
    "gfl_x101_32x4d_dcn_fpn_ms2x": "gfl_x101_32x4d_fpn_dconv_c4-c5_mstrain_2x_coco/"
    "gfl_x101_32x4d_fpn_dconv_c4-c5_mstrain_2x_coco_20200630_102002-14a2bf25.pth",
}
"""The file of each recipe that mmdetection publishes, below `SERVER` (its GFL README)."""
