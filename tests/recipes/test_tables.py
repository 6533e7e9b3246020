from __future__ import annotations

import functools
import inspect
import json
from collections import defaultdict
from collections.abc import Mapping

import pytest

from gfocal.boxrep import BOXES
from gfocal.config import Expected, Recipe
from gfocal.errors import UserError
from gfocal.evaluation import STAT_NAMES
from gfocal.families import FAMILIES
from gfocal.quality import QUALITIES
from gfocal.recipes import RECIPES
from gfocal.recipes.tables import TABLES, Row, Table, ablations, get_table

AXES = {"family": FAMILIES, "quality": QUALITIES, "box": BOXES}
FIGURES = (*STAT_NAMES[:6], "fps", "hours", "pcc")

# how many rows the paper's table has, and of how many this project has the recipe
SIZES = {
    "v1-table1a": (12, 12),
    "v1-table1b": (6, 6),
    "v1-table1c": (5, 5),
    "v1-table2a": (8, 8),
    "v1-table2b": (4, 4),
    "v1-table2c": (4, 4),
    "v1-table3": (4, 4),
    "v1-table4": (36, 5),
    "v2-table1": (6, 6),
    "v2-table2": (13, 13),
    "v2-table3": (9, 9),
    "v2-table4": (7, 7),
    "v2-table5": (8, 8),
    "v2-table6": (4, 4),
    "v2-table7": (43, 9),
    "v2-table8": (6, 3),
}

# figures in the order of FIGURES, those that a table does not have left out
SAMPLE = [
    ("v1-table1a", "FCOS", "w/o quality branch", (37.8, 56.2, 40.8, 21.2, 42.1, 48.2)),
    ("v1-table1a", "FCOS", "centerness-guided", (37.9, 56.7, 40.7, 21.2, 42.1, 49.4)),
    ("v1-table1a", "FCOS", "joint w/ QFL", (39.0, 57.8, 41.9, 22.0, 43.1, 51.0)),
    ("v1-table1a", "ATSS", "w/o quality branch", (38.0, 56.5, 40.7, 20.6, 42.1, 49.1)),
    ("v1-table1a", "ATSS", "IoU-branch", (39.6, 57.6, 43.0, 23.3, 43.7, 51.2)),
    ("v1-table1a", "ATSS", "IoU-guided", (38.9, 57.4, 41.8, 22.8, 42.4, 50.6)),
    ("v1-table1b", "FoveaBox", "FoveaBox + joint w/ QFL", (37.0, 55.7, 39.6, 20.2, 41.2, 48.8)),
    ("v1-table1b", "RetinaNet", "RetinaNet", (35.6, 55.5, 38.1, 20.1, 39.4, 46.8)),
    ("v1-table1b", "SSD512", "SSD512 + joint w/ QFL", (30.2, 50.3, 31.7, 13.3, 34.4, 45.5)),
    ("v1-table1c", "", "β = 0", (37.6, 55.4, 40.3)),
    ("v1-table1c", "", "β = 2.5", (39.7, 58.1, 42.7)),
    ("v1-table2a", "FCOS", "General", (38.8, 56.6, 42.0, 22.5, 42.9, 49.8)),
    ("v1-table2a", "FCOS", "Gaussian", (38.6, 56.5, 41.6, 21.7, 42.5, 50.0)),
    ("v1-table2a", "ATSS", "Gaussian", (39.3, 57.0, 42.4, 23.6, 42.9, 51.0)),
    ("v1-table2a", "ATSS", "General w/ DFL", (39.5, 57.3, 42.8, 23.6, 43.2, 51.2)),
    ("v1-table2b", "", "n = 12", (40.1, 58.4, 43.1, 23.1, 43.8, 52.5)),
    ("v1-table2b", "", "n = 14", (40.2, 58.3, 43.6, 23.3, 44.2, 52.2)),
    ("v1-table2b", "", "n = 18", (40.1, 58.1, 43.1, 22.6, 43.9, 52.6)),
    ("v1-table2c", "", "Δ = 0.5", (40.2, 58.4, 43.0, 22.3, 43.8, 53.1)),
    ("v1-table2c", "", "Δ = 4", (39.8, 58.5, 42.8, 22.8, 43.4, 52.3)),
    ("v1-table3", "", "DFL", (39.5, 57.3, 42.8, 19.4)),
    ("v1-table4", "multi-stage", "TSD, R-101", (43.2, 64.0, 46.9, 24.0, 46.3, 55.8, 1.1)),
    ("v1-table4", "one-stage", "CentripetalNet, HG-104", (45.8, 63.0, 49.3, 25.0, 48.2, 58.7)),
    ("v1-table4", "one-stage", "SAPD, X-101-32x4d", (44.5, 64.7, 47.8, 26.5, 47.8, 55.8, 10.7)),
    ("v1-table4", "one-stage", "ATSS, X-101-32x8d", (45.1, 63.9, 49.1, 27.9, 48.2, 54.6, 8.9)),
    ("v1-table4", "one-stage", "GFL, X-101-32x4d", (46.0, 65.1, 50.1, 28.2, 49.6, 56.0, 12.2)),
    ("v1-table4", "one-stage", "GFL, X-101-32x4d-DCN", (48.2, 67.4, 52.6, 29.2, 51.7, 60.2, 10.0)),
    ("v2-table1", "", "Mean", (40.2, 58.5, 43.6)),
    ("v2-table1", "", "Top-4 + Var", (40.9, 58.5, 44.7)),
    ("v2-table1", "", "Top-4 + Mean + Var", (40.9, 58.4, 44.7)),
    ("v2-table2", "k", "k = 0", (40.2, 58.6, 43.4, 23.0, 44.3, 53.0)),
    ("v2-table2", "k", "k = 3", (40.9, 58.5, 44.6, 24.3, 44.9, 52.3)),
    ("v2-table2", "k", "k = 16", (40.8, 58.5, 44.4, 23.4, 44.2, 53.1)),
    ("v2-table2", "p", "p = 8", (40.9, 58.4, 44.5, 23.1, 44.5, 52.6)),
    ("v2-table2", "p", "p = 256", (40.7, 58.3, 44.4, 23.4, 44.3, 52.9)),
    ("v2-table3", "", "(b) region", (40.5, 59.0, 44.0, 14.0)),
    ("v2-table3", "", "(g) deformable", (40.8, 58.9, 44.6, 18.4)),
    ("v2-table4", "", "Composed Form, d = 32", (40.5, 58.5, 43.7, 19.2)),
    ("v2-table4", "", "Composed Form, d = 256", (40.7, 58.3, 44.2, 18.5)),
    ("v2-table5", "RetinaNet", "RetinaNet", (36.5, 55.5, 38.7, 19.0)),
    ("v2-table5", "FoveaNet", "FoveaNet + GFLV2", (38.5, 56.8, 41.6, 20.0)),
    ("v2-table5", "FCOS", "FCOS", (38.5, 56.9, 41.4, 19.4)),
    ("v2-table6", "", "FCOS*", (39.1, 19.4, 0.624)),
    ("v2-table6", "", "GFLV2", (41.1, 19.4, 0.660)),
    ("v2-table7", "multi-stage", "BorderDet, X-101-64x4d-DCN", (48.0, 67.1, 52.1, 29.4, 50.7, 60.5, 6.4)),
    ("v2-table7", "one-stage", "PAA, X-101-64x4d-DCN", (49.0, 67.8, 53.3, 30.2, 52.8, 62.2, 6.9)),
    ("v2-table7", "X-101-32x4d-DCN", "GFLV1, X-101-32x4d-DCN", (48.2, 67.4, 52.6, 29.2, 51.7, 60.2, 10.7)),
    ("v2-table7", "R-101", "GFLV2, R-101", (46.2, 64.3, 50.5, 27.8, 49.9, 57.0, 14.6)),
    ("v2-table7", "R2-101-DCN", "GFLV2, R2-101-DCN", (50.6, 69.0, 55.3, 31.3, 54.3, 63.5, 10.9)),
    ("v2-table8", "", "RepPointsV2", (41.0, 13.5, 14.4)),
    ("v2-table8", "", "GFLV2", (41.1, 19.4, 8.2)),
]

# rows that are an existing recipe, or the same new one as a row of another table
SAME = [
    ("v1-table1a", "ATSS", "centerness-branch", "atss_r50_fpn_1x"),
    ("v1-table1a", "ATSS", "joint w/ QFL", "atss_r50_fpn_1x_joint"),
    ("v1-table1c", "", "β = 2", "atss_r50_fpn_1x_joint"),
    ("v1-table2a", "FCOS", "Dirac delta", "fcos_r50_fpn_1x"),
    ("v1-table2b", "", "n = 16", "gfl_r50_fpn_1x"),
    ("v1-table2c", "", "Δ = 1", "gfl_r50_fpn_1x"),
    ("v1-table3", "", "neither", "atss_r50_fpn_1x"),
    ("v1-table3", "", "QFL", "atss_r50_fpn_1x_joint"),
    ("v1-table3", "", "DFL", "atss_r50_fpn_1x_general"),
    ("v1-table3", "", "QFL and DFL", "gfl_r50_fpn_1x"),
    ("v2-table1", "", "Top-4 + Mean", "gflv2_r50_fpn_1x"),
    ("v2-table2", "k", "k = 0", "gfl_r50_fpn_1x"),
    ("v2-table2", "k", "k = 4", "gflv2_r50_fpn_1x"),
    ("v2-table2", "p", "p = 64", "gflv2_r50_fpn_1x"),
    ("v2-table3", "", "Baseline (ATSS w/ QFL)", "atss_r50_fpn_1x_joint"),
    ("v2-table4", "", "Decomposed Form", "gflv2_r50_fpn_1x"),
    ("v2-table5", "ATSS", "ATSS + GFLV2", "gflv2_r50_fpn_1x"),
    ("v2-table6", "", "FCOS*", "fcos_r50_fpn_1x_joint"),
    ("v2-table7", "R-50", "GFLV1, R-50", "gfl_r50_fpn_ms2x"),
    ("v2-table8", "", "ATSS*", "atss_r50_fpn_1x_joint"),
]


@functools.cache
def table(name: str) -> Table:
    return get_table(name)


@functools.cache
def recipes() -> Mapping[str, Recipe]:
    return ablations()


def row_at(name: str, label: str, *, group: str) -> Row:
    (found,) = (row for row in table(name).rows if (row.group, row.label) == (group, label))
    return found


def content(recipe: Recipe) -> str:
    """Return all that a run depends on, options at their defaults written out."""
    fields = recipe.model_dump(mode="json", exclude={"name", "expected"})
    for axis, parts in AXES.items():
        make = parts[fields[axis]["name"]]
        parameters = inspect.signature(make.__init__ if inspect.isclass(make) else make).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}
        fields[axis] = defaults | fields[axis]
    return json.dumps(fields, sort_keys=True)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_knows_itself_and_has_all_rows(name: str) -> None:
    made = table(name)
    assert made.name == name
    assert made.source == name.replace("-table", " Table ").replace("v", "V")
    assert made.title
    assert (len(made.rows), sum(row.recipe is not None for row in made.rows)) == SIZES[name]
    assert made.split == ("test-dev" if name in ("v1-table4", "v2-table7") else "minival")
    assert len({(row.group, row.label) for row in made.rows}) == len(made.rows)


@pytest.mark.parametrize(("name", "group", "label", "figures"), SAMPLE)
def test_figures_are_the_papers(name: str, group: str, label: str, figures: tuple[float, ...]) -> None:
    paper = row_at(name, label, group=group).paper
    assert set(paper) <= set(FIGURES)
    assert tuple(paper[figure] for figure in FIGURES if figure in paper) == figures


@pytest.mark.parametrize("name", TABLES)
def test_figures_are_in_order(name: str) -> None:
    for row in table(name).rows:
        paper = row.paper
        assert 25 < paper["ap"] < 60
        if "ap50" in paper:
            assert paper["ap"] < paper["ap75"] < paper["ap50"] < 75
        if "ap_small" in paper:
            assert paper["ap_small"] < paper["ap_medium"] < paper["ap_large"]
        assert -1 <= paper.get("pcc", 0) <= 1


def test_gains_are_those_that_the_papers_state() -> None:
    def gain(name: str, label: str, *, group: str = "") -> float:
        row = row_at(name, label, group=group)
        assert row.baseline is not None
        return round(row.paper["ap"] - row_at(name, row.baseline, group=group).paper["ap"], 1)

    v2 = [gain("v2-table5", f"{m} + GFLV2", group=m) for m in ("RetinaNet", "FoveaNet", "FCOS", "ATSS")]
    assert v2 == [2.1, 2.1, 2.1, 1.9]
    assert gain("v2-table6", "GFLV2") == 0.9
    assert gain("v1-table3", "QFL and DFL") == 1.0
    joint = [gain("v1-table1b", f"{m} + joint w/ QFL", group=m) for m in ("FoveaBox", "RetinaNet", "SSD512")]
    assert joint == [0.6, 0.8, 0.8]


def test_one_model_has_one_figure_but_where_the_papers_disagree() -> None:
    # V2 has other figures than V1 for these
    disagree = {
        ("fcos_r50_fpn_1x_joint", "ap"),
        *(("retinanet_r50_fpn_1x", figure) for figure in ("ap", "ap75")),
        *(("fcos_r50_fpn_1x", figure) for figure in ("ap50", "ap75")),
        ("gfl_x101_32x4d_dcn_fpn_ms2x", "fps"),
    }
    seen: dict[tuple[str, str], set[float]] = defaultdict(set)
    for name in TABLES:
        for row in table(name).rows:
            who = row.label if row.recipe is None else row.recipe.name
            if row.recipe is not None or table(name).split == "test-dev":
                for figure, value in row.paper.items():
                    seen[who, figure].add(value)
    assert {key for key, values in seen.items() if len(values) > 1} == disagree


@pytest.mark.parametrize(("name", "group", "label", "recipe"), SAME)
def test_rows_that_are_one_model_are_one_recipe(name: str, group: str, label: str, recipe: str) -> None:
    assert row_at(name, label, group=group).recipe == recipes()[recipe]


def test_names_and_contents_belong_together() -> None:
    made = [row.recipe for name in TABLES for row in table(name).rows if row.recipe is not None]
    contents: dict[str, set[str]] = defaultdict(set)
    names: dict[str, set[str]] = defaultdict(set)
    for recipe in [*made, *(make() for make in RECIPES.values())]:
        contents[recipe.name].add(content(recipe))
        names[content(recipe)].add(recipe.name)
    assert {name for name, found in contents.items() if len(found) > 1} == set()
    assert [found for found in names.values() if len(found) > 1] == []


def test_ablations_are_all_recipes_of_all_tables() -> None:
    for name in TABLES:
        for row in table(name).rows:
            if row.recipe is not None:
                assert recipes()[row.recipe.name] == row.recipe
    named = {row.recipe.name for name in TABLES for row in table(name).rows if row.recipe is not None}
    assert set(recipes()) == named
    assert all(name == recipe.name for name, recipe in recipes().items())


def test_recipes_are_the_named_ones_or_start_with_the_name_of_one() -> None:
    for name, recipe in recipes().items():
        if name in RECIPES:
            assert recipe == RECIPES[name]()
        else:
            assert any(name.startswith(f"{base}_") for base in RECIPES)


def test_new_recipes_carry_one_figure_with_its_table() -> None:
    first: dict[str, Expected] = {}
    for name in TABLES:
        for row in table(name).rows:
            if row.recipe is not None:
                first.setdefault(row.recipe.name, Expected(minival=row.paper["ap"], source=table(name).source))
    for name, recipe in recipes().items():
        if name not in RECIPES:
            assert recipe.expected == (first[name],)


def test_recipes_come_back_from_yaml() -> None:
    for name, recipe in recipes().items():
        assert Recipe.from_yaml(recipe.to_yaml(), where=name) == recipe


def test_recipes_have_the_scale_of_the_paper() -> None:
    for name, recipe in recipes().items():
        assert len(recipe.class_names) == 80
        assert recipe.backbone.weights == "imagenet"
        assert recipe.schedule.epochs == (120 if "ssd" in name else 24 if "ms2x" in name else 12)


@pytest.mark.parametrize("name", TABLES)
def test_baselines_are_in_their_group(name: str) -> None:
    rows = table(name).rows
    for row in rows:
        assert row.baseline is None or (row.group, row.baseline) in {(one.group, one.label) for one in rows}
        assert row.baseline != row.label
    # the test-dev tables compare by backbone, and in V2 Table 8 each row is compared with the one that it builds on
    if table(name).split == "test-dev" or name == "v2-table8":
        return
    for group in {row.group for row in rows}:
        baselines = {row.baseline for row in rows if row.group == group} - {None}
        assert len(baselines) == 1
        (baseline,) = baselines
        assert baseline is not None
        against = row_at(name, baseline, group=group)
        assert against.recipe is not None
        assert against.baseline is None


def test_v2_is_compared_with_v1_on_the_same_backbone() -> None:
    pairs = [(row.recipe, row) for row in table("v2-table7").rows if row.baseline is not None]
    assert len(pairs) == 4
    for recipe, row in pairs:
        assert recipe is not None
        assert row.baseline is not None
        before = row_at("v2-table7", row.baseline, group=row.group).recipe
        assert before is not None
        assert before.backbone == recipe.backbone


def test_an_unknown_table_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"^unknown table 'v1-tabel1a': did you mean 'v1-table1a'\? choose from v1-"):
        get_table("v1-tabel1a")
