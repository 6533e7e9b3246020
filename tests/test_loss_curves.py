"""The first steps of the families' recipes at tiny width, so that no rewriting changes what is learnt unseen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

GOLDENS = Path(__file__).parent / "goldens"
CURVES = json.loads((GOLDENS / "loss_curves.json").read_text())


@pytest.mark.parametrize("recipe", CURVES)
def test_seeded_losses_are_what_they_were(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(GOLDENS))
    from loss_curves import STEPS, curve_of

    losses = curve_of(recipe)
    assert losses.keys() == CURVES[recipe].keys()
    for name, values in losses.items():
        assert len(values) == STEPS
        # the order of additions differs from machine to machine
        assert values == pytest.approx(CURVES[recipe][name], rel=1e-3, abs=1e-5), name


def test_every_family_has_a_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(GOLDENS))
    from loss_curves import RECIPES

    from gfocal.families import FAMILIES
    from gfocal.recipes import get_recipe

    assert set(CURVES) == set(RECIPES)
    assert {get_recipe(name).family["name"] for name in RECIPES} == FAMILIES.keys()
    for curve in CURVES.values():
        totals = [sum(step) for step in zip(*curve.values(), strict=True)]
        assert totals[-1] < totals[0]
