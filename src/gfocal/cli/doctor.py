"""`gfocal doctor`: what is wrong with a data set."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Optional

import typer

from gfocal.cli.options import DATA_HELP, Workers

FOUND = 1


def doctor(
    data: Annotated[str, typer.Argument(metavar="DATA", help=DATA_HELP)],
    *,
    recipe: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--recipe", help="whose bins are held against the boxes [default: gfl_r50_fpn_1x]"),
    ] = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("-o", "--out", metavar="PAGE.HTML", help="also write a page with plots, and pictures with flaws"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print all that was found as JSON instead of a summary")] = False,
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="read every picture file")] = True,
    workers: Workers = 2,
) -> None:
    """Look for all that is wrong with a data set, in every split: entries, boxes, classes, pictures, bins.

    Exit code: 0 when nothing is wrong, 1 when errors or warnings were found (notes do not count), 2 when the data set
    or an option cannot be used.
    Next: mend what was found, then `gfocal train --recipe gflv2_r18_mini --data DATA`.
    """
    from json import dumps

    from gfocal.analysis.doctor import examine, open_splits, write_page
    from gfocal.progress import ProgressBar

    datasets, faults = open_splits(data)
    total = sum(len(dataset) for dataset in datasets.values())
    with ProgressBar(total, "reading pictures") if pictures else nullcontext() as bar:
        report = examine(
            datasets,
            recipe=recipe,
            pictures=pictures,
            workers=workers,
            name=data,
            faults=faults,
            progress=None if bar is None else bar.update,
        )
    typer.echo(dumps(report.to_dict(), indent=2) if json else report.text())
    if out is not None:
        write_page(out, report, datasets)
        typer.echo(f"page: {out}", err=True)
    if not report.sound:
        raise SystemExit(FOUND)
