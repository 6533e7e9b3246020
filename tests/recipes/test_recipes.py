from __future__ import annotations

import pytest
import torch

from costs import cost_of
from gfocal.builder import build_parts
from gfocal.recipes import RECIPES, get_recipe
from gfocal.recipes.costs import COSTS

COCO = [name for name in sorted(RECIPES) if "mini" not in name]


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_builds_and_runs(name: str) -> None:
    recipe = get_recipe(name)
    assert recipe.name == name
    # SSD takes pictures of its own size; on the others' lie 8 · 8 + 4 · 4 + 2 · 2 + 1 + 1 cells
    size, cells = ((512, 512), 24_564) if name == "ssd512_vgg16" else ((64, 64), 86)
    with torch.device("meta"):
        parts = build_parts(recipe)
        raw = parts.detector.eval()(torch.zeros(1, 3, *size))
    count = 9 * cells if name.startswith("retinanet") else cells
    assert raw.scores.shape == (1, count, len(recipe.class_names))
    assert raw.box.shape == (1, count, 4, 17 if name.startswith("gfl") else 1)
    assert (raw.quality_logits is not None) == name.startswith(("gflv2", "atss", "fcos"))


def test_one_recipe_of_the_paper_runs_on_the_cpu() -> None:
    parts = build_parts(get_recipe("gflv2_r50_fpn_1x"))
    with torch.no_grad():
        raw = parts.detector.eval()(torch.randn(1, 3, 64, 64))
    assert raw.scores.isfinite().all()
    # a hundredth a class, times a quality of a half before anything is learnt
    torch.testing.assert_close(raw.scores.mean(), torch.tensor(0.005), rtol=0.2, atol=0)


UNPUBLISHED = "atss_r101_fpn_1x"
"""Neither repository's README gives a figure that the package could cite."""


@pytest.mark.parametrize("name", COCO)
def test_expected_figures_carry_their_source(name: str) -> None:
    expected = get_recipe(name).expected
    assert bool(expected) == (name != UNPUBLISHED)
    for figures in expected:
        assert figures.source
        assert any(word in figures.source for word in ("README", "Table"))
        assert figures.minival is not None or figures.test_dev is not None
        for value in (figures.minival, figures.test_dev):
            assert value is None or 20 < value < 60


# recipe, minival by mmdetection or GFocalV2's README, by GFocal's, test-dev by the README, by the paper's table
PUBLISHED = [
    ("gfl_r50_fpn_1x", 40.2, 40.2, None, None),
    ("gfl_r50_fpn_ms2x", 42.9, 42.8, None, 43.1),
    ("gfl_r101_fpn_ms2x", 44.7, 44.9, None, 45.0),
    ("gfl_x101_32x4d_fpn_ms2x", 45.9, 45.7, None, 46.0),
    ("gfl_r101_dcn_fpn_ms2x", 47.1, 47.2, None, 47.3),
    ("gfl_x101_32x4d_dcn_fpn_ms2x", 48.1, 48.3, None, 48.2),
    ("gflv2_r50_fpn_1x", 41.0, None, 41.1, None),
    ("gflv2_r50_fpn_ms2x", 43.9, None, 44.4, 44.3),
    ("gflv2_r101_fpn_ms2x", 45.8, None, 46.0, 46.2),
    ("gflv2_r101_dcn_fpn_ms2x", 48.0, None, 48.2, 48.3),
    ("gflv2_x101_32x4d_dcn_fpn_ms2x", 48.8, None, 49.0, 49.0),
    ("gflv2_r2101_dcn_fpn_ms2x", 49.9, None, 50.5, 50.6),
]


@pytest.mark.parametrize(("name", "minival", "gfocal", "readme", "paper"), PUBLISHED)
def test_the_figures_are_the_published_ones(
    name: str, minival: float, gfocal: float | None, readme: float | None, paper: float | None
) -> None:
    expected = get_recipe(name).expected
    first = "GFocalV2 README" if name.startswith("gflv2") else "mmdetection README"
    table = "V2 Table 7" if name.startswith("gflv2") else "V1 Table 4"
    assert (minival, readme) in [(one.minival, one.test_dev) for one in expected if first in one.source]
    if gfocal is not None:
        assert gfocal in [one.minival for one in expected if one.source == "GFocal README"]
    if paper is not None:
        assert paper in [one.test_dev for one in expected if one.source == table]


# recipe, minival by mmdetection's README, by the papers' tables and in which
BASELINES = [
    ("atss_r50_fpn_1x", 39.4, {39.2: "V1 Table 3; V2 Table 5"}),
    ("fcos_r50_fpn_1x", 38.7, {38.5: "V1 Table 1a; V2 Table 5"}),
    ("retinanet_r50_fpn_1x", 36.5, {36.5: "V2 Table 5", 35.6: "V1 Table 1b"}),
    ("foveabox_r50_fpn_1x", 36.5, {36.4: "V1 Table 1b; V2 Table 5"}),
    ("ssd512_vgg16", None, {29.4: "V1 Table 1b"}),
]


@pytest.mark.parametrize(("name", "readme", "tables"), BASELINES)
def test_the_figures_of_the_baselines_are_the_published_ones(
    name: str, readme: float | None, tables: dict[float, str]
) -> None:
    expected = get_recipe(name).expected
    assert readme in [None, *(one.minival for one in expected if "mmdetection README" in one.source)]
    for value, source in tables.items():
        assert any(one.minival == value and source in one.source for one in expected)
    assert {one.minival for one in expected} == {*tables, *([] if readme is None else [readme])}


def test_the_schedules_of_the_baselines_are_the_references() -> None:
    for name, *_ in BASELINES[:4]:
        schedule, default = get_recipe(name).schedule, get_recipe("gfl_r50_fpn_1x").schedule
        assert schedule == default
    ssd = get_recipe("ssd512_vgg16").schedule
    assert (ssd.lr, ssd.weight_decay, ssd.epochs) == (2e-3, 5e-4, 5 * 24)


def test_pictures_are_prepared_as_the_reference_prepares_them() -> None:
    fcos, ssd = get_recipe("fcos_r50_fpn_1x").pictures, get_recipe("ssd512_vgg16").pictures
    assert fcos.bgr
    assert (fcos.mean, fcos.std) == ((103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
    assert (ssd.short, ssd.long, ssd.keep_aspect, ssd.std) == (512, 512, False, (1.0, 1.0, 1.0))
    assert ssd.mean == get_recipe("atss_r50_fpn_1x").pictures.mean == (123.675, 116.28, 103.53)


def test_detections_are_taken_as_the_reference_takes_them() -> None:
    nms = {name: get_recipe(name).test.nms_threshold for name, *_ in BASELINES}
    assert list(nms.values()) == [0.6, 0.6, 0.5, 0.5, 0.45]
    ssd = get_recipe("ssd512_vgg16").test
    assert (ssd.score_threshold, ssd.max_per_level, ssd.max_detections) == (0.02, None, 200)


def test_every_recipe_of_the_papers_is_there() -> None:
    assert {name for name, *_ in (*PUBLISHED, *BASELINES)} == set(COCO) - {UNPUBLISHED}


@pytest.mark.parametrize("name", RECIPES)
def test_the_cost_of_a_recipe_is_the_one_in_the_table(name: str) -> None:
    parameters, gmacs = cost_of(get_recipe(name))
    assert parameters == COSTS[name].parameters
    assert gmacs == pytest.approx(COSTS[name].gmacs, abs=0.05)


# the authors' files, less buffers, the 81st score of V2 (9 · 256 + 1) and the bins of the integral
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gfl_r50_fpn_1x", 32_440_537),
        ("gfl_x101_32x4d_dcn_fpn_ms2x", 53_467_053),
        ("gflv2_r101_dcn_fpn_ms2x", 52_722_551 - 2305),
    ],
)
def test_parameters_are_as_many_as_in_the_official_files(name: str, parameters: int) -> None:
    assert COSTS[name].parameters == parameters


@pytest.mark.parametrize(("v1", "v2"), [(n.replace("gflv2", "gfl"), n) for n in RECIPES if n.startswith("gflv2")])
def test_v2_adds_1409_parameters_to_v1(v1: str, v2: str) -> None:
    if v1 in COSTS:
        assert COSTS[v2].parameters - COSTS[v1].parameters == 1409
