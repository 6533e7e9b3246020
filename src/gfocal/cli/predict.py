"""`gfocal predict`: boxes in pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gfocal.cli.options import Device, ModelSource, Precision, Size


def predict(
    model: ModelSource,
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURES...", help="files, or folders of them")],
    *,
    out: Annotated[Path, typer.Option("--out", help="folder for the drawn pictures")] = Path("runs/predict"),
    threshold: Annotated[float, typer.Option("--threshold", min=0, max=1, help="lowest score drawn or printed")] = 0.3,
    size: Size = None,
    precision: Precision = "auto",
    device: Device = "auto",
    json: Annotated[bool, typer.Option("--json", help="print one line of JSON a picture instead of a summary")] = False,
    edges: Annotated[bool, typer.Option("--edges/--no-edges", help="draw the distribution of each edge")] = True,
) -> None:
    """Find boxes in pictures and draw them, each edge with its distribution.

    Next: read the boxes in Python with `gfocal.load(MODEL).predict("picture.jpg")`.
    """
    import gfocal
    from gfocal.predicting import draw_to_folder, picture_files, to_json

    files = picture_files(pictures)
    loaded = gfocal.load(model, device=device)
    for file, picture, found in draw_to_folder(
        loaded, files, out, threshold=threshold, size=size, precision=precision, edges=edges
    ):
        typer.echo(to_json(file, picture, found) if json else f"{file}: {len(found)} boxes")
    typer.echo(f"drawn to {out}", err=True)
