"""`gfocal benchmark`: how fast a model is here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from gfocal.cli.options import DATA_HELP, Device, Precision


def benchmark(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODELS...", help="what predict takes, or names of recipes with random weights"),
    ],
    *,
    size: Annotated[
        tuple[int, int], typer.Option("--size", metavar="HEIGHT WIDTH", help="of the network's input in pixels")
    ] = (800, 1216),
    batch: Annotated[int, typer.Option("--batch", min=1, help="pictures at once")] = 1,
    turns: Annotated[int, typer.Option("--turns", min=1, help="how often each is timed")] = 7,
    torchvision: Annotated[bool, typer.Option("--torchvision", help="also time torchvision's FCOS, ResNet-50")] = False,
    backend: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--backend", help="torch, compile or openvino; may be repeated [default: torch]"),
    ] = None,
    precision: Precision = "auto",
    device: Device = "auto",
    check: Annotated[
        bool, typer.Option("--check", help="compare what the first model finds in --data with float32, instead")
    ] = False,
    data: Annotated[Optional[str], typer.Option("--data", help=f"with --check: {DATA_HELP}")] = None,  # noqa: UP045
    split: Annotated[str, typer.Option("--split", help="with --check: which split of the data set")] = "val",
    json: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--json", help="also write the figures as JSON"),
    ] = None,
) -> None:
    """Time models in turns in one process, and the first one's parts against its bare convolutions.

    Ratios hold on a busy machine, milliseconds only on an idle one. Next: `--check --data DATA --precision bfloat16`
    tells whether a precision finds the same.
    """
    import gfocal
    from gfocal.devices import settle
    from gfocal.errors import UserError
    from gfocal.progress import ProgressBar

    settle()
    if check:
        if len(models) > 1 or backend or torchvision or json is not None:
            raise UserError("--check looks at one model in PyTorch and prints its line: leave the rest out")
        _check(models[0], data, split=split, precision=precision, device=device)
        return
    with ProgressBar(turns, "timing") as bar:
        found = gfocal.benchmark(
            models,
            size=size,
            batch=batch,
            turns=turns,
            precision=precision,
            device=device,
            backends=backend or ("torch",),
            torchvision=torchvision,
            progress=bar.update,
        )
    typer.echo(found.text())
    if json is not None:
        found.save(json)
        typer.echo(f"figures: {json}")


def _check(model: str, data: str | None, *, split: str, precision: str, device: str) -> None:
    import torch

    from gfocal.analysis.answers import same_answers
    from gfocal.data.opening import open_dataset
    from gfocal.devices import choose_device, choose_precision
    from gfocal.errors import UserError
    from gfocal.loading import load_inner
    from gfocal.progress import ProgressBar

    if data is None:
        raise UserError("--check needs pictures: give --data")
    if choose_precision(precision, choose_device(device)) is torch.float32:
        raise UserError("float32 is what --check compares with: give --precision bfloat16, or float16 on a GPU")
    dataset = open_dataset(data, split)
    with ProgressBar(len(dataset), "comparing") as bar:
        answers = same_answers(load_inner(model, device=device), dataset, precision=precision, progress=bar.update)
    typer.echo(answers.text())
