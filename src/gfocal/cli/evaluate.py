"""`gfocal evaluate`: COCO metrics of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from gfocal.cli.options import Backend, Compile, Data, Device, Precision, RunnableSource, Size, Workers, settled


def evaluate(
    model: RunnableSource,
    *,
    data: Data,
    split: Annotated[str, typer.Option("--split", help="which split of the data set")] = "val",
    size: Size = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="pictures at once")] = 1,
    workers: Workers = 2,
    precision: Precision = "auto",
    device: Device = "auto",
    backend: Backend = "auto",
    compile: Compile = False,
    tta: Annotated[bool, typer.Option("--tta", help="see each picture at several scales, and mirrored")] = False,
    scale: Annotated[
        Optional[list[float]],  # noqa: UP045
        typer.Option("--scale", help="with --tta: a factor on the test size; may be repeated [default: 0.75 1 1.25]"),
    ] = None,
    flip: Annotated[bool, typer.Option("--flip/--no-flip", help="with --tta: whether to mirror")] = True,
    fuse: Annotated[
        str, typer.Option("--fuse", help="with --tta: boxes, or distributions, which mixes those of each object")
    ] = "boxes",
    save: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--save", help="also write the detections as a COCO results file"),
    ] = None,
) -> None:
    """Print the twelve COCO figures and a class table.

    Next: `gfocal predict MODEL PICTURES` draws what the model finds.
    """
    import gfocal
    from gfocal.data.opening import open_dataset
    from gfocal.errors import UserError
    from gfocal.loading import load_for
    from gfocal.progress import ProgressBar
    from gfocal.tta import Augmentation

    if not tta and (scale or not flip or fuse != "boxes"):
        raise UserError("--scale, --no-flip and --fuse say how several views are seen: give --tta, too")
    views = Augmentation(tuple(scale or Augmentation.scales), flip, fuse) if tta else None  # type: ignore[arg-type]
    say = settled(device, precision)
    dataset = open_dataset(data, split)
    backend = "compile" if compile else backend
    loaded = load_for(model, pictures=len(dataset), device=device, backend=backend, size=size, precision=precision)
    with ProgressBar(len(dataset), "evaluating") as bar:

        def progress(done: int) -> None:
            say()
            bar.update(done)

        metrics = gfocal.evaluate(
            loaded,
            dataset,
            size=size,
            batch=batch,
            workers=workers,
            precision=precision,
            augmentation=views,
            save=save,
            progress=progress,
        )
    if metrics.num_boxes:
        typer.echo(metrics.table())
    else:
        typer.echo(f"{metrics.num_pictures} pictures without annotations: there is nothing to score")
    if save is not None:
        typer.echo(f"detections: {save}")
