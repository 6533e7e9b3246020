"""`gfocal explain`: a page in which each box can be asked where its edges may lie."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from gfocal.cli.options import DATA_HELP, WEIGHTS_HELP, Device, Precision, Size


def explain(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"{WEIGHTS_HELP}, or an .npz of a head's outputs")],
    pictures: Annotated[
        Optional[list[Path]],  # noqa: UP045  typer evaluates it on Python 3.10
        typer.Argument(metavar="PICTURES...", help="files, or folders of them; none: the first ones of --data"),
    ] = None,
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="the page")] = Path("runs/explain.html"),
    data: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--data", help=f"show its boxes as the truth: {DATA_HELP}"),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="which split of the data set")] = "val",
    limit: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--limit", min=1, help="at most so many pictures [default: 50 of --data, all that are named]"),
    ] = None,
    threshold: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--threshold", min=0, max=1, help="lowest score in the page [default: the recipe's]"),
    ] = None,
    score: Annotated[float, typer.Option("--score", min=0, max=1, help="lowest score shown at first")] = 0.3,
    candidates: Annotated[
        int, typer.Option("--candidates", min=0, help="boxes before suppression that are told of a picture")
    ] = 300,
    png: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--png", help="a folder for still pictures of the same boxes, for papers"),
    ] = None,
    size: Size = None,
    precision: Precision = "auto",
    device: Device = "auto",
) -> None:
    """Write one page that works offline, where each box shows the distributions of its four edges.

    Next: open the page, choose a box, and switch between the boxes before and after suppression.
    """
    import gfocal
    from gfocal.explaining import short_name
    from gfocal.heads import is_heads
    from gfocal.loading import load_inner
    from gfocal.progress import ProgressBar

    loaded = model if is_heads(model) else load_inner(model, device=device)
    with ProgressBar(None, "explaining") as bar:
        count = gfocal.explain(
            loaded,
            pictures or (),
            out=out,
            data=data,
            split=split,
            limit=limit,
            threshold=threshold,
            first_score=score,
            candidates=candidates,
            size=size,
            precision=precision,
            png=png,
            title=f"What {short_name(Path(model))} sees",
            progress=lambda done, total: bar.update(done, total=total),
        )
    typer.echo(f"{count} picture{'' if count == 1 else 's'} explained in {out}")
