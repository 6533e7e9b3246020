"""The papers' tables, measured: each row trained over seeds, and held against the paper's own figures."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gfocal.analysis.comparison import Comparison, Paired, compare, compare_figures
from gfocal.analysis.efficiency import Speed, measure_speed
from gfocal.analysis.positives import pearson, positives
from gfocal.analysis.runs import Outcome, Plan, Run, matches_of, outcome_of, perform, recipe_at_scale, refuse_failed
from gfocal.analysis.scales import get_scale
from gfocal.errors import unknown
from gfocal.evaluation import STAT_NAMES
from gfocal.files import whole_or_absent
from gfocal.model import load_model
from gfocal.recipes.tables import Row, Table, get_table
from gfocal.testing import check_classes

STATS: Mapping[str, str] = dict(zip(("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L"), STAT_NAMES[:6], strict=True))
"""Figures of a row by the head of their column."""


@dataclass(frozen=True)
class Measured:
    """A row of a table and what came of it.

    outcomes: of each seed, empty for other people's detectors and for rows that nobody has trained yet. comparison:
    with the row's baseline, None where it has none or either is not trained. correlation: the same of Pearson's
    correlation, where the paper gives it and there are two seeds or more. speed: beside the baseline's, where it was
    measured.
    """

    row: Row
    outcomes: tuple[Outcome, ...]
    comparison: Comparison | None = None
    correlation: Paired | None = None
    speed: Speed | None = None
    paper_difference: float | None = None
    paper_correlation: float | None = None

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
    failed = perform([Run(recipe, seed) for seed in seeds for recipe in recipes], plan, jobs=jobs)
    measured = _measured(table.rows, plan, seeds)
    _write(table, measured, plan, seeds)
    refuse_failed(failed)
    return measured


def correlations(models: Sequence[str], plan: Plan) -> str:
    """Return a Markdown table of how well the scores of any models tell the IoU of their boxes (V2 Table 6).

    models: run folders or files of weights. What correlates are the score that ranks and the IoU with the true box,
    over the locations that the model's own assigner makes positives, in the test pictures of the plan.
    """
    scale = get_scale(plan.scale)
    pictures = scale.test(plan.data)
    lines = [_line(("model", "positives", "PCC")), _line(["---"] * 3)]
    for source in models:
        model = load_model(source, device=plan.device)
        check_classes(model.class_names, pictures.class_names, where=source)
        samples = positives(model, pictures, precision=scale.precision)
        lines.append(_line((source, str(len(samples)), f"{pearson(samples.scores, samples.iou):.3f}")))
    return "\n".join(lines)


def _write(table: Table, measured: Sequence[Measured], plan: Plan, seeds: Sequence[int]) -> None:
    for suffix, text in ((".md", markdown(table, measured, plan, seeds)), (".csv", as_csv(measured))):
        with whole_or_absent(plan.home / f"{table.name}{suffix}") as scratch:
            scratch.write_text(text, encoding="utf-8")


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
        one = Measured(row, tuple(outcomes.values()))
        if row.baseline is not None:
            baseline, theirs = by_label[row.group, row.baseline]
            shared = [seed for seed in outcomes if seed in theirs]
            pairs = [(outcomes[seed].pcc, theirs[seed].pcc) for seed in shared]
            one = _compared(_correlated(one, baseline, pairs), baseline, plan, shared)
        found.append(one)
    return found


def _correlated(one: Measured, baseline: Row, pairs: Sequence[tuple[float | None, float | None]]) -> Measured:
    """Return a row with its correlation held against the baseline's, pairs of the same seed, where a paper gives it."""
    known = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
    if "pcc" not in one.row.paper or "pcc" not in baseline.paper or len(known) < 2:
        return one
    ours, theirs = zip(*known, strict=True)
    difference = one.row.paper["pcc"] - baseline.paper["pcc"]
    return replace(one, correlation=compare_figures(ours, theirs), paper_correlation=difference)


def _outcomes(row: Row, plan: Plan, seeds: Sequence[int]) -> dict[int, Outcome]:
    """Return what came of a row, by seed, as far as it is there."""
    if row.recipe is None:
        return {}
    found = {seed: outcome_of(Run(row.recipe, seed), plan) for seed in seeds}
    return {seed: outcome for seed, outcome in found.items() if outcome is not None}


def _compared(one: Measured, baseline: Row, plan: Plan, seeds: Sequence[int]) -> Measured:
    """Return a row with its AP and speed held against its baseline's, over the seeds that both have."""
    row = one.row
    if row.recipe is None or baseline.recipe is None or not seeds:
        return one
    recipes = (row.recipe, baseline.recipe)
    ours, theirs = ([matches_of(Run(recipe, seed), plan) for seed in seeds] for recipe in recipes)
    speed = None
    if "fps" in row.paper or "hours" in row.paper:
        ours_at_scale, theirs_at_scale = (recipe_at_scale(one, plan, class_names=one.class_names) for one in recipes)
        scale = get_scale(plan.scale)
        speed = measure_speed(
            ours_at_scale, theirs_at_scale, size=scale.speed_size, precision=scale.precision, device=plan.device
        )
    # of figures of one decimal, without what binary fractions add to it
    difference = round(row.paper["ap"] - baseline.paper["ap"], 6)
    return replace(one, comparison=compare(ours, theirs), speed=speed, paper_difference=difference)


def markdown(table: Table, measured: Sequence[Measured], plan: Plan, seeds: Sequence[int]) -> str:
    """Return the table as Markdown, with how to read it."""
    head, *body = _cells(measured)
    lines = [f"# {table.source}: {table.title}", ""]
    length = "" if plan.steps is None else f", {plan.steps} steps"
    seeded = "1 seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
    lines += [
        f"Scale {plan.scale}, data {plan.data or 'its own'}{length}, {seeded}. The paper measures on {table.split}.",
        "",
    ]
    lines += [_line(head), _line(["---"] * len(head)), *(_line(cells) for cells in body), ""]
    lines += [
        "AP in percent, mean ± standard deviation over seeds. Difference: to the row's baseline, with its 95 % interval"
        " over seeds and pictures. Detectable: the smallest difference that these runs would have told from 0 in 80 %"
        " of cases. The paper's sign is reproduced where the interval lies on its side of 0, refuted where it lies on"
        " the other.",
    ]
    if len(seeds) == 1:
        lines += [
            "",
            "One seed decides nothing: its interval knows only of other test pictures, not of other trainings.",
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
    comparison, correlation, speed = one.comparison, one.correlation, one.speed
    paper = one.row.paper
    return {
        "group": one.row.group,
        "row": one.row.label,
        "recipe": one.row.recipe.name if one.row.recipe else "",
        **{f"paper {title}": f"{paper[key]:.1f}" if key in paper else "" for title, key in STATS.items()},
        **{
            title: _over_seeds([100 * o.metrics[key] for o in one.outcomes if o.metrics[key] is not None], digits=1)
            for title, key in STATS.items()
        },
        "paper PCC": f"{paper['pcc']:.3f}" if "pcc" in paper else "",
        "PCC": _over_seeds([o.pcc for o in one.outcomes if o.pcc is not None], digits=3) if "pcc" in paper else "",
        "paper difference": f"{one.paper_difference:+.1f}" if one.paper_difference is not None else "",
        "difference": f"{100 * comparison.difference:+.2f}" if comparison else "",
        "95 % interval": f"{100 * comparison.low:+.2f} to {100 * comparison.high:+.2f}" if comparison else "",
        "detectable": f"{100 * comparison.resolution:.2f}" if comparison else "",
        "sign": one.verdict,
        "paper PCC difference": f"{one.paper_correlation:+.3f}" if one.paper_correlation is not None else "",
        "PCC difference": f"{correlation.difference:+.3f}" if correlation else "",
        "PCC 95 % interval": f"{correlation.low:+.3f} to {correlation.high:+.3f}" if correlation else "",
        "PCC sign": correlation.verdict(one.paper_correlation or 0) if correlation else "",
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
