"""What a run makes of its recipe is the recipe of that very run."""

from __future__ import annotations

import pytest

from gfocal.config import Recipe
from gfocal.recipes import get_recipe
from gfocal.training.settings import Settings, resolve


def resolved(recipe: Recipe, batch: int, size: tuple[int, int] | None = None) -> Recipe:
    settings = Settings(
        data="data",
        seed=0,
        batch=batch,
        accumulate=1,
        workers=0,
        precision=None,
        device=None,
        devices=1,
        nodes=1,
        on_bad_data="error",
        save_every=200,
        compile=False,
        loggers=(),
    )
    return resolve(recipe, ("thing",), settings, weights=None, size=size, epochs=None, steps=None, changes={})


@pytest.mark.parametrize(
    ("name", "size", "train_short"),
    [
        ("gflv2_r50_fpn_ms2x", (640, 1066), (384, 768)),
        ("gflv2_r50_fpn_ms2x", (640, 700), (384, 700)),
        ("gflv2_r50_fpn_1x", (333, 500), (333, 333)),
        ("gflv2_r18_mini", (320, 448), (240, 320)),
        ("gflv2_r18_mini", (32, 48), (32, 32)),
    ],
)
def test_a_size_scales_the_range_of_training_with_several_scales(name, size, train_short):
    pictures = resolved(get_recipe(name), 8, size).pictures
    assert (pictures.short, pictures.long) == size
    assert pictures.train_short == train_short


@pytest.mark.parametrize("name", ["gflv2_r18_mini", "gflv2_r50_fpn_1x"])
def test_a_resolved_recipe_stays_as_it_is_so_that_its_run_can_be_resumed(name):
    for batch in range(1, 65):
        once = resolved(get_recipe(name), batch)
        assert resolved(once, batch) == once, batch
