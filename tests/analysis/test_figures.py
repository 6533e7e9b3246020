"""Figures without a model: their numbers are those of the formulas; and what a user is told who asks for the wrong."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image

from gfocal.analysis.figures import FIGURES, disturbance, reproduce_figure
from gfocal.analysis.figures.losses import BINS, EXPECTATION, with_mean
from gfocal.analysis.figures.plotting import around, means_of_bins
from gfocal.analysis.runs import Plan
from gfocal.errors import UserError
from gfocal.recipes.tables import get_table

Rows = list[dict[str, str]]


def plan(out: Path, *, scale: str = "mini", steps: int | None = None) -> Plan:
    return Plan(scale, None, out, steps, "cpu")


def drawn(name: str, out: Path, *, steps: int | None = None, models: Sequence[str] = ()) -> Rows:
    """Draw a figure, check that its picture is one, and return the rows of its table."""
    png, table = reproduce_figure(name, plan(out, steps=steps), models=models)
    assert (png, table) == (out / "mini" / f"{name}.png", out / "mini" / f"{name}.csv")
    with Image.open(png) as picture:
        picture.load()
        assert picture.width > 300
        low, high = picture.convert("L").getextrema()
        assert (low < 100, high > 250) == (True, True)  # type: ignore[operator]
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def column(rows: Rows, name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


def test_every_figure_says_what_it_is() -> None:
    for name, figure in FIGURES.items():
        paper, number = name.split("-fig")
        assert figure.source.startswith(f"{paper.upper()} Fig. {number}")
        assert figure.title
        assert len({make().name for make in figure.recipes}) == len(figure.recipes)


@pytest.mark.parametrize(("name", "table"), [("v1-fig8", "v1-table4"), ("v2-fig6", "v2-table7")])
def test_speed_is_drawn_of_the_rows_of_a_table_in_their_order(name: str, table: str) -> None:
    recipes = [row.recipe.name for row in get_table(table).rows if row.recipe is not None]
    assert [make().name for make in FIGURES[name].recipes] == recipes


def test_the_quality_focal_loss_is_that_of_equation_2(tmp_path: Path) -> None:
    settings = dict(mpl.rcParams)
    rows = drawn("v1-fig5a", tmp_path)
    s = column(rows, "sigma")
    for beta in (0, 0.5, 1, 2, 4):
        expected = -(np.abs(0.5 - s) ** beta) * (0.5 * np.log(1 - s) + 0.5 * np.log(s))
        np.testing.assert_allclose(column(rows, f"qfl_beta_{beta:g}"), expected, rtol=1e-5, atol=1e-7)
    assert dict(mpl.rcParams) == settings
    assert sorted(path.name for path in (tmp_path / "mini").iterdir()) == ["v1-fig5a.csv", "v1-fig5a.png"]


def test_distributions_of_one_expectation_have_the_dfl_of_equation_6(tmp_path: Path) -> None:
    rows = drawn("v1-fig5b", tmp_path)
    losses: list[float] = []
    for name in dict.fromkeys(row["distribution"] for row in rows):
        mine = [row for row in rows if row["distribution"] == name]
        masses, bins = column(mine, "probability"), column(mine, "bin")
        assert masses.sum() == pytest.approx(1, abs=1e-5)
        assert masses @ bins == pytest.approx(7.3, abs=1e-5)
        losses.append(-0.7 * np.log(masses[7]) - 0.3 * np.log(masses[8]))
        np.testing.assert_allclose(column(mine, "dfl"), losses[-1], rtol=1e-4)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(-0.7 * np.log(0.7) - 0.3 * np.log(0.3), rel=1e-4)


def test_a_shape_is_tilted_to_a_mean() -> None:
    masses = with_mean(np.ones(17), mean=3.0)
    assert masses @ BINS == pytest.approx(3.0)
    np.testing.assert_allclose(np.diff(np.log(masses)), np.log(masses[1] / masses[0]))
    np.testing.assert_allclose(
        with_mean(np.exp(-np.abs(BINS - 8)), mean=8.0), with_mean(np.exp(-np.abs(BINS - 8)), mean=8.0)[::-1]
    )
    assert EXPECTATION == 7.3


def test_objectives_are_those_of_table_5(tmp_path: Path) -> None:
    rows = drawn("v1-fig9", tmp_path)
    x = np.linspace(0, 10, 401)
    of = {name: column([r for r in rows if r["objective"] == name], "loss") for name in {r["objective"] for r in rows}}
    assert len(of) == 5
    for name, values in of.items():
        if "GIoU" in name:
            # one side of a square of ten moves: the overlap over the union, which the hull equals
            expected = 1 - np.minimum(x + 5, 10) / np.maximum(x + 5, 10)
        elif "Gaussian" in name:
            sigma = float(name.split("σ = ")[1].split()[0])
            expected = (x - 5) ** 2 / (2 * sigma**2) + np.log(sigma**2) / 2
        else:
            expected = (x - 5) ** 2 / 2
        np.testing.assert_allclose(values, expected, atol=1e-5)


def test_a_disturbance_moves_a_dirac_edge_by_the_norm_of_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disturbance, "REPEATS", 5)
    monkeypatch.setattr(disturbance, "STEPS", 60)
    rows = drawn("v1-fig10", tmp_path)
    assert len(rows) == 3 * 3 * 5
    for row in rows:
        if row["representation"] == "Dirac delta":
            # from weights near 0 gradient steps share the target out between the feature of norm 1 and the bias
            assert float(row["largest_error"]) == pytest.approx(0.1 * float(row["target"]) / 2, rel=0.05)
            assert float(row["mean_error"]) == pytest.approx(float(row["largest_error"]) * 2 / np.pi, rel=0.05)
        assert float(row["mean_error"]) <= float(row["largest_error"])


def test_repeats_of_the_disturbance_follow_from_the_seed() -> None:
    one, same, other = (
        disturbance.errors_after_disturbance("General", seed=seed, repeats=3, steps=20) for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_means_of_bins_leave_out_those_of_few_points() -> None:
    x = np.array([0.1] * 10 + [0.6] * 9 + [1.0] * 10)
    middles, means = means_of_bins(x, np.arange(29.0), low=0, high=1, bins=4)
    np.testing.assert_allclose(middles, [0.125, 0.875])
    np.testing.assert_allclose(means, [4.5, 23.5])


def test_a_window_is_a_square_within_the_picture() -> None:
    assert around((10, 20, 50, 40), (200, 300), margin=0.5) == (0, 0, 80, 80)
    assert around((250, 150, 290, 190), (200, 300), margin=0.25) == (240, 140, 300, 200)
    assert around((0, 0, 1, 1), (200, 300)) == (0, 0, 32, 32)
    assert around((0, 0, 300, 100), (200, 300)) == (50, 0, 250, 200)


def test_an_unknown_figure_and_a_wrong_number_of_models_are_the_users(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown figure 'v1-fig5': did you mean 'v1-fig5"):
        reproduce_figure("v1-fig5", plan(tmp_path))
    with pytest.raises(
        UserError, match=r"v2-fig7 takes 2 models \(gfl_r50_fpn_1x, gflv2_r50_fpn_1x\), in this order, and 1"
    ):
        reproduce_figure("v2-fig7", plan(tmp_path), models=["one"])
    with pytest.raises(UserError, match="v1-fig5a takes no model, in this order, and 1"):
        reproduce_figure("v1-fig5a", plan(tmp_path), models=["one"])
    with pytest.raises(UserError, match="unknown scale"):
        reproduce_figure("v1-fig5a", plan(tmp_path, scale="huge"))
    with pytest.raises(UserError, match="no such file or folder"):
        reproduce_figure("v1-fig12", plan(tmp_path), models=["nowhere"])
    assert list(tmp_path.iterdir()) == []
