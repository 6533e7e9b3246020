"""`gfocal train`: learn a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from gfocal.cli.options import Data, Device, Precision, Size, Workers


def train(
    *,
    recipe: Annotated[str, typer.Option("--recipe", help="a name from `gfocal recipes`, or a YAML file")],
    data: Data,
    out: Annotated[Optional[Path], typer.Option("--out", help="folder of the run [default: runs/RECIPE]")] = None,  # noqa: UP045
    weights: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--weights", help="imagenet, none (random numbers), or a file or run to go on from"),
    ] = None,
    size: Size = None,
    batch: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--batch", min=1, help="pictures a step; the learning rate follows"),
    ] = None,
    epochs: Annotated[Optional[int], typer.Option("--epochs", min=1, help="length of the run")] = None,  # noqa: UP045
    steps: Annotated[Optional[int], typer.Option("--steps", min=1, help="length of the run")] = None,  # noqa: UP045
    seed: Annotated[int, typer.Option("--seed", min=0, help="of weights, order and augmentation")] = 0,
    workers: Workers = 2,
    precision: Precision = "auto",
    device: Device = "auto",
) -> None:
    """Learn a data set: writes recipe, curves and weights to the run's folder.

    Next: `gfocal evaluate runs/NAME --data DATA`, then `gfocal predict runs/NAME PICTURES`.
    """
    import gfocal
    from gfocal.testing import evaluate

    folder = out or free_folder(Path("runs") / Path(recipe).stem)
    model = gfocal.train(
        recipe,
        data,
        folder,
        weights=weights,
        size=size,
        batch=batch,
        epochs=epochs,
        steps=steps,
        seed=seed,
        workers=workers,
        precision=precision,
        device=device,
    )
    validated = (folder / "best.safetensors").exists()
    if validated:
        typer.echo(evaluate(model, data, workers=workers, precision=precision).table())
    kept = "best" if validated else "last"
    typer.echo(f"weights: {folder}/{kept}.safetensors\nnext: gfocal predict {folder} PICTURES")


def free_folder(folder: Path) -> Path:
    """Return the folder, or the first of folder-2, folder-3, … that does not exist."""
    number = 1
    free = folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free
