"""`gfocal predict`: boxes in pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from gfocal.cli.options import Backend, Compile, Device, Precision, RunnableSource, Size, settled

PICTURES = (
    "files, folders (with their sub-folders), quoted globs, http(s) addresses, videos, cameras (0, 1, or camera:0), "
    "addresses of streams"
)


def predict(
    model: RunnableSource,
    pictures: Annotated[list[str], typer.Argument(metavar="PICTURES...", help=PICTURES)],
    *,
    out: Annotated[Path, typer.Option("--out", help="folder for detections.jsonl and the drawings")] = Path(
        "runs/predict"
    ),
    threshold: Annotated[float, typer.Option("--threshold", min=0, max=1, help="lowest score drawn or printed")] = 0.3,
    size: Size = None,
    precision: Precision = "auto",
    device: Device = "auto",
    backend: Backend = "auto",
    compile: Compile = False,
    devices: Annotated[
        Optional[str],  # noqa: UP045  typer evaluates it on Python 3.10
        typer.Option("--devices", help="how many devices share the pictures, or a list: 0,2 or cpu,cpu"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print one line of JSON a picture instead of a summary")] = False,
    draw: Annotated[bool, typer.Option("--draw/--no-draw", help="write each picture or video with its boxes")] = True,
    edges: Annotated[bool, typer.Option("--edges/--no-edges", help="draw the distribution of each edge")] = True,
    every: Annotated[int, typer.Option("--every", min=1, help="of a video, look at each so many-th frame")] = 1,
    tile: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--tile", min=32, help="side in pixels of tiles that large pictures are looked at in"),
    ] = None,
    overlap: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--overlap", min=0, help="with --tile: pixels that tiles share [default: a quarter]"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the run that --out holds")] = False,
    on_bad_data: Annotated[
        str, typer.Option("--on-bad-data", help="error, or skip to leave out what cannot be read")
    ] = "error",
) -> None:
    """Find boxes in pictures and draw them, each edge with its distribution.

    Next: read the boxes from detections.jsonl, or in Python with `gfocal.load(MODEL).predict("picture.jpg")`.
    """
    from gfocal.data.pictures import path_text
    from gfocal.errors import UserError
    from gfocal.finding import Result, Search
    from gfocal.predicting import predict_to_folder
    from gfocal.tiling import Tiling

    if overlap is not None and tile is None:
        raise UserError("--overlap is of tiles: give --tile, too")
    tiling = None if tile is None else Tiling.of(tile, overlap)

    say = settled(device, precision)

    def tell(result: Result) -> None:
        say()
        if result.fault is not None:
            typer.echo(f"left out: {result.fault}", err=True)
        else:
            typer.echo(result.line if json else f"{path_text(result.name)}: {result.num_boxes} boxes")

    totals = predict_to_folder(
        model,
        pictures,
        out,
        Search(threshold, size, precision, tiling, every, edges, "compile" if compile else backend),
        draw=draw,
        resume=resume,
        on_bad_data=on_bad_data,
        device=device,
        devices=devices,
        tell=tell,
    )
    typer.echo(totals.summary(out), err=True)
