"""Named models: each recipe is a plain function that returns literal values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from gfocal.config import Recipe, read_recipe
from gfocal.errors import unknown
from gfocal.recipes import baselines, v1, v2
from gfocal.recipes.tables import ablations

RECIPES: Mapping[str, Callable[[], Recipe]] = {
    make.__name__: make
    for make in (
        v1.gfl_r18_mini,
        v1.gfl_r50_fpn_1x,
        v1.gfl_r50_fpn_ms2x,
        v1.gfl_r101_fpn_ms2x,
        v1.gfl_x101_32x4d_fpn_ms2x,
        v1.gfl_r101_dcn_fpn_ms2x,
        v1.gfl_x101_32x4d_dcn_fpn_ms2x,
        v2.gflv2_r18_mini,
        v2.gflv2_r50_fpn_1x,
        v2.gflv2_r50_fpn_ms2x,
        v2.gflv2_r101_fpn_ms2x,
        v2.gflv2_r101_dcn_fpn_ms2x,
        v2.gflv2_x101_32x4d_dcn_fpn_ms2x,
        v2.gflv2_r2101_dcn_fpn_ms2x,
        baselines.atss_r50_fpn_1x,
        baselines.atss_r101_fpn_1x,
        baselines.fcos_r50_fpn_1x,
        baselines.retinanet_r50_fpn_1x,
        baselines.foveabox_r50_fpn_1x,
        baselines.ssd512_vgg16,
    )
}


def get_recipe(source: str | Path | Recipe) -> Recipe:
    """Return a recipe by its name, that of a row of the papers' tables included, from a YAML file, or as it is.

    UserError names the nearest recipe where the name is unknown, and file, key and value where a file is wrong.
    """
    if isinstance(source, Recipe):
        return source
    if str(source) in RECIPES:
        return RECIPES[str(source)]()
    if str(source).endswith((".yaml", ".yml")):
        return read_recipe(Path(source))
    rows = ablations()
    if str(source) in rows:
        return rows[str(source)]
    raise unknown("recipe", str(source), {**RECIPES, **rows} if _names_a_row(str(source)) else RECIPES)


def _names_a_row(name: str) -> bool:
    """Return whether a name begins as those of ablations do, so that a user who errs is shown them, too."""
    return any(name.startswith(f"{base}_") for base in RECIPES)
