"""`gfocal reproduce`: a table or a figure of the papers, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from gfocal.cli.options import Device


def reproduce(
    name: Annotated[str, typer.Argument(help="v1-table1a, v1-fig5a, … ; `list` shows all of them", metavar="NAME")],
    *,
    out: Annotated[Path, typer.Option("--out", help="folder of runs, tables and figures")] = Path("runs/reproduce"),
    scale: Annotated[
        str, typer.Option("--scale", help="mini (minutes a run on two cores) or paper (COCO, the paper's schedule)")
    ] = "mini",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="runs of each row")] = 1,
    data: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--data", help="a data set to use instead of the scale's own"),
    ] = None,
    row: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--row", help="only this row or group of a table, and what it is compared with; may be repeated"),
    ] = None,
    model: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--model", help="take this run or weight file in a figure or v2-table6; may be repeated, in order"
        ),
    ] = None,
    steps: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--steps", min=1, help="length of each run instead of the scale's"),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="runs at a time")] = 1,
    device: Device = "auto",
) -> None:
    """Measure a table of the papers beside its own figures, or draw a figure with the data behind it as CSV.

    Runs that are done are not done again, so the command may be stopped and repeated, and tables share their runs.
    """
    from gfocal.analysis.figures import FIGURES, reproduce_figure
    from gfocal.analysis.reproduction import correlations, reproduce_table
    from gfocal.analysis.runs import Plan
    from gfocal.errors import UserError, unknown
    from gfocal.recipes.tables import TABLES

    plan = Plan(scale, data, out, steps, device)
    if name == "list":
        titles = {table: make().title for table, make in TABLES.items()}
        titles |= {figure: made.title for figure, made in FIGURES.items()}
        typer.echo("\n".join(f"{one:<12} {title}" for one, title in titles.items()))
    elif name == "v2-table6" and model:
        typer.echo(correlations(model, plan))
    elif name in TABLES:
        if model:
            raise UserError(f"--model goes with figures and v2-table6; the rows of {name} are trained here")
        reproduce_table(name, plan, seeds=range(seeds), jobs=jobs, rows=row)
        typer.echo((plan.home / f"{name}.md").read_text(encoding="utf-8"))
    elif name in FIGURES:
        if row or seeds > 1:
            raise UserError(f"--row and --seeds go with tables; {name} is a figure, drawn from runs of one seed")
        for path in reproduce_figure(name, plan, jobs=jobs, models=model or ()):
            typer.echo(path)
    else:
        raise unknown("table or figure", name, [*TABLES, *FIGURES])
