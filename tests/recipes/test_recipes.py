from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gfocal.builder import build_parts
from gfocal.errors import UserError
from gfocal.recipes import RECIPES, get_recipe

COCO = [name for name in sorted(RECIPES) if "mini" not in name]


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_builds_and_runs(name: str) -> None:
    recipe = get_recipe(name)
    assert recipe.name == name
    with torch.device("meta"):
        parts = build_parts(recipe)
        raw = parts.detector.eval()(torch.zeros(1, 3, 64, 64))
    assert raw.scores.shape == (1, 86, len(recipe.class_names))
    assert raw.box.shape == (1, 86, 4, 17)
    assert (raw.quality_logits is not None) == name.startswith("gflv2")


def test_one_recipe_of_the_paper_runs_on_the_cpu() -> None:
    parts = build_parts(get_recipe("gflv2_r50_fpn_1x"))
    with torch.no_grad():
        raw = parts.detector.eval()(torch.randn(1, 3, 64, 64))
    assert raw.scores.isfinite().all()
    # a hundredth a class, times a quality of a half before anything is learnt
    torch.testing.assert_close(raw.scores.mean(), torch.tensor(0.005), rtol=0.2, atol=0)


@pytest.mark.parametrize("name", COCO)
def test_expected_figures_carry_their_source(name: str) -> None:
    expected = get_recipe(name).expected
    assert expected
    for figures in expected:
        assert figures.source
        assert any(word in figures.source for word in ("README", "Table"))
        assert figures.minival is not None or figures.test_dev is not None
        for value in (figures.minival, figures.test_dev):
            assert value is None or 20 < value < 60


@pytest.mark.parametrize(
    ("name", "source", "minival", "test_dev"),
    [
        ("gfl_r50_fpn_1x", "V1 Table 2b", 40.2, None),
        ("gfl_r50_fpn_ms2x", "mmdetection README", 42.9, None),
        ("gfl_r50_fpn_ms2x", "GFocal README", 42.8, None),
        ("gfl_r50_fpn_ms2x", "V1 Table 4", None, 43.1),
        ("gflv2_r50_fpn_1x", "V2 Table 1", 41.1, None),
        ("gflv2_r50_fpn_1x", "GFocalV2 README", 41.0, 41.1),
        ("gflv2_r50_fpn_ms2x", "GFocalV2 README", 43.9, 44.4),
        ("gflv2_r50_fpn_ms2x", "V2 Table 7", None, 44.3),
    ],
)
def test_the_figures_are_the_published_ones(
    name: str, source: str, minival: float | None, test_dev: float | None
) -> None:
    found = [(entry.minival, entry.test_dev) for entry in get_recipe(name).expected if source in entry.source]
    assert (minival, test_dev) in found


@pytest.mark.parametrize("name", COCO)
def test_the_papers_settings(name: str) -> None:
    recipe = get_recipe(name)
    assert recipe.family == {"name": "atss"}
    assert recipe.box == {"name": "general"}
    assert recipe.quality == {"name": "dgqp" if name.startswith("gflv2") else "joint"}
    assert (recipe.head.channels, recipe.head.depth) == (256, 4)
    assert len(recipe.class_names) == 80
    assert recipe.backbone.weights == "imagenet"
    assert recipe.backbone.frozen_stages == 1
    assert (recipe.test.score_threshold, recipe.test.nms_threshold) == (0.05, 0.6)
    schedule = recipe.schedule
    assert (schedule.optimizer, schedule.lr, schedule.batch, schedule.warmup) == ("sgd", 0.01, 16, 500)
    epochs = [share * schedule.epochs for share in schedule.milestones]
    if name.endswith("ms2x"):
        assert schedule.epochs == 24
        assert epochs == pytest.approx([16, 22])
        assert recipe.pictures.train_short == ((480, 960) if name.startswith("gflv2") else (480, 800))
    else:
        assert schedule.epochs == 12
        assert epochs == pytest.approx([8, 11])
        assert recipe.pictures.train_short == (800, 800)


def test_the_classes_are_cocos_in_order() -> None:
    names = get_recipe("gfl_r50_fpn_1x").class_names
    assert (names[0], names[9], names[12], names[39], names[79]) == (
        "person",
        "traffic light",
        "parking meter",
        "bottle",
        "toothbrush",
    )
    assert all(name == name.strip() and name for name in names)


@pytest.mark.parametrize("name", ["gfl_r18_mini", "gflv2_r18_mini"])
def test_the_mini_recipes_start_from_nothing_and_promise_nothing(name: str) -> None:
    recipe = get_recipe(name)
    assert recipe.backbone.weights == "none"
    assert recipe.expected == ()


def test_a_recipe_is_taken_as_it_is() -> None:
    recipe = get_recipe("gfl_r18_mini")
    assert get_recipe(recipe) is recipe
    assert get_recipe(Path("gfl_r18_mini")) == recipe


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("gfl_r50_fpn_1", "gfl_r50_fpn_1x"),
        ("gflv2_r50_ms2x", "gflv2_r50_fpn_ms2x"),
        ("GFLV2_r18_mini", "gflv2_r18_mini"),
    ],
)
def test_an_unknown_recipe_names_the_nearest_and_all_others(given: str, near: str) -> None:
    with pytest.raises(UserError, match=f"unknown recipe '{given}': did you mean '{near}'") as caught:
        get_recipe(given)
    assert all(name in str(caught.value) for name in RECIPES)


def test_a_recipe_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml"):
        get_recipe(tmp_path / "none.yaml")
