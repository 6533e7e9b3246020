"""The papers' tables, measured: each row trained over seeds, and held against the paper's own figures."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gfocal.analysis.comparison import Comparison, compare
from gfocal.analysis.efficiency import Speed, measure_speed
from gfocal.analysis.runs import Outcome, Plan, Run, matches_of, outcome_of, perform, recipe_at_scale
from gfocal.analysis.scales import get_scale
from gfocal.errors import unknown
from gfocal.files import whole_or_absent
from gfocal.recipes.tables import Row, Table, get_table

SPEED_SIZES: Mapping[str, tuple[int, int]] = {"mini": (256, 256), "paper": (800, 1216)}
"""Height and width of the pictures that speed is measured on."""


@dataclass(frozen=True)
class Measured:
    """A row of a table and what came of it.

    outcomes: of each seed, empty for other people's detectors and for rows that nobody has trained yet. comparison:
    with the row's baseline, None where it has none or either is not trained. speed: beside the baseline's, where it was
    measured.
    """

    row: Row
    outcomes: tuple[Outcome, ...]
    comparison: Comparison | None
    paper_difference: float | None
    speed: Speed | None

    @property
    def verdict(self) -> str:
        """Whether the paper's sign came out, or nothing where there is nothing to compare."""
        if self.comparison is None or self.paper_difference is None:
            return ""
        return self.comparison.verdict(self.paper_difference)


def reproduce_table(
    name: str,
    plan: Plan,
    *,
    seeds: Sequence[int] = (0,),
    jobs: int = 1,
    rows: Sequence[str] | None = None,
) -> list[Measured]:
    """Train and score what a table still lacks, write NAME.md and NAME.csv into the plan's home, return its rows.

    seeds: one run of every row each. jobs: runs at once. rows: labels or groups to train, None for all; the others show
    what is there of them. UserError for an unknown table, row or scale, and for runs that failed.
    """
    table = get_table(name)
    recipes = [row.recipe for row in _chosen(table, rows) if row.recipe is not None]
    # a seed of all rows before the next one: what is there at any time compares
    perform([Run(recipe, seed) for seed in seeds for recipe in recipes], plan, jobs=jobs)
    measured = _measured(table.rows, plan, seeds)
    for suffix, text in ((".md", markdown(table, measured, plan, seeds)), (".csv", as_csv(measured))):
        with whole_or_absent(plan.home / f"{name}{suffix}") as scratch:
            scratch.write_text(text, encoding="utf-8")
    return measured


def _chosen(table: Table, rows: Sequence[str] | None) -> list[Row]:
    """Return the rows that were named by label or group, and those that they are compared with."""
    if rows is None:
        return list(table.rows)
    known = {name for row in table.rows for name in (row.label, row.group)}
    for name in rows:
        if name not in known:
            raise unknown("row", name, known - {""})
    kept = [row for row in table.rows if row.label in rows or row.group in rows]
    wanted = {(row.group, label) for row in kept for label in (row.label, row.baseline)}
    return [row for row in table.rows if (row.group, row.label) in wanted]


def _measured(rows: Sequence[Row], plan: Plan, seeds: Sequence[int]) -> list[Measured]:
    by_label = {(row.group, row.label): (row, _outcomes(row, plan, seeds)) for row in rows}
    found: list[Measured] = []
    for row, outcomes in by_label.values():
        compared = None, None, None
        if row.baseline is not None:
            baseline, theirs = by_label[row.group, row.baseline]
            compared = _compared(row, baseline, plan, [seed for seed in outcomes if seed in theirs])
        found.append(Measured(row, tuple(outcomes.values()), *compared))
    return found


def _outcomes(row: Row, plan: Plan, seeds: Sequence[int]) -> dict[int, Outcome]:
    """Return what came of a row, by seed, as far as it is there."""
    if row.recipe is None:
        return {}
    found = {seed: outcome_of(Run(row.recipe, seed), plan) for seed in seeds}
    return {seed: outcome for seed, outcome in found.items() if outcome is not None}


def _compared(
    row: Row, baseline: Row, plan: Plan, seeds: Sequence[int]
) -> tuple[Comparison | None, float | None, Speed | None]:
    """Compare a row with its baseline over the seeds that both have."""
    if row.recipe is None or baseline.recipe is None or not seeds:
        return None, None, None
    recipes = (row.recipe, baseline.recipe)
    ours, theirs = ([matches_of(Run(recipe, seed), plan) for seed in seeds] for recipe in recipes)
    speed = None
    if "fps" in row.paper or "hours" in row.paper:
        ours_at_scale, theirs_at_scale = (recipe_at_scale(one, plan, class_names=one.class_names) for one in recipes)
        size = SPEED_SIZES[plan.scale]
        speed = measure_speed(ours_at_scale, theirs_at_scale, size=size, device=plan.device)
    return compare(ours, theirs), row.paper["ap"] - baseline.paper["ap"], speed


def markdown(table: Table, measured: Sequence[Measured], plan: Plan, seeds: Sequence[int]) -> str:
    """Return the table as Markdown, with how to read it."""
    head, *body = _cells(measured)
    lines = [f"# {table.source}: {table.title}", ""]
    length = "" if plan.steps is None else f", {plan.steps} steps"
    seeded = "1 seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
    lines += [f"Scale {plan.scale}, data {plan.data or 'its own'}{length}, {seeded}.", ""]
    lines += [_line(head), _line(["---"] * len(head)), *(_line(cells) for cells in body), ""]
    lines += [
        "AP in percent, mean ± standard deviation over seeds. Difference: to the row's baseline, with its 95 % interval"
        " over seeds and pictures. Detectable: the smallest difference that these runs would have told from 0 in 80 %"
        " of cases. The paper's sign is reproduced where the interval lies on its side of 0, refuted where it lies on"
        " the other.",
    ]
    for note in (table.note, get_scale(plan.scale).note):
        lines += ["", note] if note else []
    return "\n".join(lines) + "\n"


def as_csv(measured: Sequence[Measured]) -> str:
    """Return the same cells as comma-separated values."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(_cells(measured))
    return text.getvalue()


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(measured: Sequence[Measured]) -> list[list[str]]:
    """Return the table's cells, the head first; columns that no row fills are left out."""
    rows = [_row(one) for one in measured]
    kept = [name for name in rows[0] if name in ("row", "paper AP", "AP") or any(row[name] for row in rows)]
    return [kept, *([row[name] for name in kept] for row in rows)]


def _row(one: Measured) -> Mapping[str, str]:
    comparison, speed = one.comparison, one.speed
    paper = one.row.paper
    return {
        "group": one.row.group,
        "row": one.row.label,
        "recipe": one.row.recipe.name if one.row.recipe else "",
        "paper AP": f"{paper['ap']:.1f}",
        "paper AP50": f"{paper['ap50']:.1f}" if "ap50" in paper else "",
        "paper AP75": f"{paper['ap75']:.1f}" if "ap75" in paper else "",
        "AP": _over_seeds([100 * o.metrics["ap"] for o in one.outcomes], digits=1),
        "AP50": _over_seeds([100 * o.metrics["ap50"] for o in one.outcomes], digits=1),
        "AP75": _over_seeds([100 * o.metrics["ap75"] for o in one.outcomes], digits=1),
        "paper PCC": f"{paper['pcc']:.3f}" if "pcc" in paper else "",
        "PCC": _over_seeds([o.pcc for o in one.outcomes if o.pcc is not None], digits=3) if "pcc" in paper else "",
        "paper difference": f"{one.paper_difference:+.1f}" if one.paper_difference is not None else "",
        "difference": f"{100 * comparison.difference:+.2f}" if comparison else "",
        "95 % interval": f"{100 * comparison.low:+.2f} to {100 * comparison.high:+.2f}" if comparison else "",
        "detectable": f"{100 * comparison.resolution:.2f}" if comparison else "",
        "sign": one.verdict,
        "paper FPS": f"{paper['fps']:.1f}" if "fps" in paper else "",
        "paper hours": f"{paper['hours']:g}" if "hours" in paper else "",
        "forward time": f"{speed.forward:.3f}×" if speed else "",
        "training step": f"{speed.step:.3f}×" if speed else "",
    }


def _over_seeds(values: Sequence[float], *, digits: int) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"
