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


@pytest.mark.parametrize("name", ["gflv2_r18_mini", "gflv2_r50_fpn_1x"])
def test_a_resolved_recipe_stays_as_it_is_so_that_its_run_can_be_resumed(name):
    for batch in range(1, 65):
        once = resolved(get_recipe(name), batch)
        assert resolved(once, batch) == once, batch
