"""`gfocal evaluate`: COCO metrics of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from gfocal.cli.options import Data, Device, ModelSource, Precision, Size, Workers


def evaluate(
    model: ModelSource,
    *,
    data: Data,
    split: Annotated[str, typer.Option("--split", help="which split of the data set")] = "val",
    size: Size = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="pictures at once")] = 1,
    workers: Workers = 2,
    precision: Precision = "auto",
    device: Device = "auto",
    save: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--save", help="also write the detections as a COCO results file"),
    ] = None,
) -> None:
    """Print the twelve COCO figures and a class table.

    Next: `gfocal predict MODEL PICTURES` draws what the model finds.
    """
    import gfocal
    from gfocal.data.dataset import open_dataset
    from gfocal.progress import ProgressBar

    dataset = open_dataset(data, split)
    loaded = gfocal.load(model, device=device)
    with ProgressBar(len(dataset), "evaluating") as bar:
        metrics = gfocal.evaluate(
            loaded,
            dataset,
            size=size,
            batch=batch,
            workers=workers,
            precision=precision,
            save=save,
            progress=bar.update,
        )
    typer.echo(metrics.table())
