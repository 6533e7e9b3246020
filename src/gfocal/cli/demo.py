"""`gfocal demo`: train, evaluate and show a small model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    *,
    out: Annotated[
        Path, typer.Option("--out", help="folder of the run and its report; an earlier demo there is replaced")
    ] = Path("runs/demo"),
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="length of the training [default: about 6 minutes of it]")
    ] = None,
) -> None:
    """Train a small GFL V2 on generated scenes, evaluate it and write a page of its predictions: minutes on 2 cores.

    Next: open the page in a browser, then learn your own pictures with
    `gfocal train --recipe gflv2_r18_mini --data DATA`.
    """
    from gfocal.demo import run_demo

    result = run_demo(out, steps=steps)
    typer.echo(result.metrics.table())
    typer.echo(f"AP {result.metrics.ap:.3f} on {result.metrics.num_pictures} held-out scenes, {result.seconds:.0f} s")
    typer.echo(f"report: {result.report}")
