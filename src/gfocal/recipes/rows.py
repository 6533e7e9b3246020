"""What a table of the papers is made of, and how its rows are written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from gfocal.config import Expected, Recipe
from gfocal.evaluation import STAT_NAMES


@dataclass(frozen=True)
class Row:
    """One row of a table.

    label: the row as the paper calls it, without citations and "(ours)", with its backbone where rows differ in it.
    group: rows of one group are compared with each other. recipe: what to train, None for detectors of other people,
    of which only the paper's figures are given. paper: the paper's figures by name: ap, ap50, ap75, ap_small,
    ap_medium, ap_large in percent (`gfocal.evaluation.STAT_NAMES`), fps (pictures a second), hours (of training) and
    pcc (Pearson, -1..1); only those that the table has. baseline: label of the row of the same group that this one is
    compared with, None where it is that row itself or nothing is claimed.
    """

    label: str
    group: str
    recipe: Recipe | None
    paper: Mapping[str, float]
    baseline: str | None


@dataclass(frozen=True)
class Table:
    """A table of a paper, its rows in the paper's order.

    source: where it stands, as "V1 Table 1a". split: of COCO, on which it is measured. note: what had to be decided
    that the paper leaves open, and where its figures disagree.
    """

    name: str
    title: str
    source: str
    split: Literal["minival", "test-dev"]
    rows: tuple[Row, ...]
    note: str = ""


Line: TypeAlias = "tuple[str, Recipe | None, Mapping[str, float]]"
"""Label, recipe and figures of a row."""


def stats(
    *values: float, fps: float | None = None, hours: float | None = None, pcc: float | None = None
) -> Mapping[str, float]:
    """Return a row's figures by name; values: AP, or AP, AP50 and AP75, or these and AP of three sizes, in percent."""
    others = {"fps": fps, "hours": hours, "pcc": pcc}
    return {
        **dict(zip(STAT_NAMES, values, strict=False)),
        **{name: value for name, value in others.items() if value is not None},
    }


def varied(
    base: Recipe,
    change: str,
    *,
    family: Mapping[str, object] | None = None,
    quality: Mapping[str, object] | None = None,
    box: Mapping[str, object] | None = None,
) -> Recipe:
    """Return `base` with other parts, {"name": …, option: value} each or None where it stays, named base_change."""
    parts = {"family": family, "quality": quality, "box": box}
    return Recipe.model_validate(
        {
            **base.model_dump(mode="json"),
            **{axis: spec for axis, spec in parts.items() if spec is not None},
            "name": f"{base.name}_{change}",
            "expected": (),
        }
    )


def rows_of(source: str, lines: Sequence[Line], *, group: str = "", baseline: str | None = None) -> tuple[Row, ...]:
    """Return the rows of a group, all compared with the one that `baseline` names, which may stand elsewhere.

    A recipe without published figures gets the row's AP on minival as its own, with the source.
    """
    return tuple(
        Row(
            label=label,
            group=group,
            recipe=_published(recipe, paper["ap"], source=source),
            paper=paper,
            baseline=baseline if label != baseline else None,
        )
        for label, recipe, paper in lines
    )


def _published(recipe: Recipe | None, ap: float, *, source: str) -> Recipe | None:
    if recipe is None or recipe.expected:
        return recipe
    return recipe.model_copy(update={"expected": (Expected(minival=ap, source=source),)})


def recipe_at(table: Table, label: str, *, group: str = "") -> Recipe:
    """Return the recipe of a row of `table`, for rows of other tables that are the same model."""
    found = next(row.recipe for row in table.rows if (row.group, row.label) == (group, label))
    assert found is not None
    return found
