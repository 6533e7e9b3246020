"""`gfocal train`: learn a data set."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from gfocal.cli.options import Data, Device, Precision, Size, Workers

if TYPE_CHECKING:
    from gfocal.model import Model

Number = Optional[int]  # noqa: UP045  typer evaluates it on Python 3.10
Text = Optional[str]  # noqa: UP045
Names = Optional[list[str]]  # noqa: UP045
Share = Optional[float]  # noqa: UP045
Place = Optional[Path]  # noqa: UP045


def train(
    *,
    recipe: Annotated[Text, typer.Option("--recipe", help="a name from `gfocal recipes`, or a YAML file")] = None,
    data: Data = "",
    out: Annotated[Place, typer.Option("--out", help="folder of the run [default: runs/RECIPE]")] = None,
    resume: Annotated[Place, typer.Option("--resume", metavar="RUN", help="go on with a run; alone")] = None,
    replay: Annotated[
        Place,
        typer.Option(
            "--replay",
            metavar="FILE",
            help="do the step again that a run ended at, alone or with --precision and --device",
        ),
    ] = None,
    weights: Annotated[
        Text, typer.Option("--weights", help="imagenet, none (random numbers), or a file or run to go on from")
    ] = None,
    size: Size = None,
    batch: Annotated[
        Number, typer.Option("--batch", min=1, help="pictures a device at a time; the rate follows")
    ] = None,
    accumulate: Annotated[int, typer.Option("--accumulate", min=1, help="batches to a step")] = 1,
    epochs: Annotated[Number, typer.Option("--epochs", min=1, help="length of the run")] = None,
    steps: Annotated[Number, typer.Option("--steps", min=1, help="length of the run")] = None,
    freeze: Annotated[Names, typer.Option("--freeze", help="a part that does not learn, as backbone.layer1")] = None,
    ema: Annotated[Share, typer.Option("--ema", help="decay of a moving average of the weights, as 0.9998")] = None,
    patience: Annotated[Number, typer.Option("--patience", min=1, help="end after validations without gain")] = None,
    on_bad_data: Annotated[
        str, typer.Option("--on-bad-data", help="error: stop; skip: leave out, count and list what cannot be used")
    ] = "error",
    save_every: Annotated[int, typer.Option("--save-every", min=0, help="steps between saved states")] = 200,
    compile: Annotated[bool, typer.Option("--compile", help="compile the detector, which takes minutes first")] = False,
    logger: Annotated[Names, typer.Option("--logger", help="wandb or mlflow, beside TensorBoard and CSV")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="of weights, order and augmentation")] = 0,
    workers: Workers = 2,
    precision: Precision = "auto",
    device: Device = "auto",
    devices: Annotated[int, typer.Option("--devices", min=1, help="devices of each machine, a process each")] = 1,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="machines, each started by torchrun")] = 1,
) -> None:
    """Learn a data set: writes recipe, curves and weights to the run's folder.

    Next: `gfocal evaluate runs/NAME --data DATA`, then `gfocal predict runs/NAME PICTURES`.
    """
    given = dict(locals())
    from gfocal import training
    from gfocal.errors import UserError

    if replay is not None:
        refuse_company(given, "replay", {"precision", "device"})
        asked = None if precision == "auto" else precision
        typer.echo(training.replay(replay, precision=asked, device=device))
        return
    if resume is not None:
        refuse_company(given, "resume")
        tell(training.resume(resume), resume)
        return
    if recipe is None or not data:
        raise UserError("give --recipe and --data, or --resume RUN")
    taken = nullcontext(out) if out else shared_folder(Path("runs") / Path(recipe).stem, devices=devices)
    with taken as folder:
        model = training.train(
            recipe,
            data,
            folder,
            weights=weights,
            size=size,
            batch=batch,
            accumulate=accumulate,
            epochs=epochs,
            steps=steps,
            freeze=freeze,
            average=ema,
            patience=patience,
            on_bad_data=on_bad_data,
            save_every=save_every,
            compile=compile,
            loggers=logger or (),
            seed=seed,
            workers=workers,
            precision=precision,
            device=device,
            devices=devices,
            nodes=nodes,
        )
        tell(model, folder)


def refuse_company(given: Mapping[str, object], alone: str, but: Collection[str] = ()) -> None:
    """Raise UserError where `train` was given more than an option that goes alone, or with few others."""
    from gfocal.errors import UserError

    for name, parameter in inspect.signature(train).parameters.items():
        if name not in {alone, *but} and given[name] != parameter.default:
            raise UserError(
                f"--{name.replace('_', '-')} does not go with --{alone}, which has the settings that the run began with"
            )


def tell(model: Model, folder: Path) -> None:
    """Print what a run came to, in the first of its processes."""
    from gfocal.errors import UserError
    from gfocal.testing import evaluate
    from gfocal.training.settings import read_settings

    if int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))):
        return
    if (folder / "state.pt").exists():
        typer.echo(f"stopped; go on with: gfocal train --resume {folder}")
        return
    settings = read_settings(folder)
    kept = "best" if (folder / "best.safetensors").exists() else "last"
    if kept == "best":
        try:
            scored = evaluate(model, settings["data"], workers=settings["workers"], precision=settings["precision"])
            typer.echo(scored.table())
        except UserError as error:  # as in training, what cannot be used is left out; the weights are there
            typer.echo(f"not scored by class: {error}", err=True)
    typer.echo(f"weights: {folder}/{kept}.safetensors\nnext: gfocal predict {folder} PICTURES")


@contextmanager
def shared_folder(folder: Path, *, devices: int) -> Generator[Path]:
    """Take a free folder, put on the command line where other processes of the run are to be started with it.

    It is gone again afterwards where nothing was written to it, and so is the folder that it lies in.
    """
    from gfocal.errors import UserError

    if "RANK" in os.environ:
        raise UserError("give --out: the processes that torchrun starts need one folder")
    alone = not folder.parent.exists()
    free = free_folder(folder)
    sys.argv += ["--out", str(free)] if devices > 1 else []
    try:
        yield free
    finally:
        with suppress(OSError):  # of a folder that is not empty
            free.rmdir()
            if alone:
                free.parent.rmdir()


def free_folder(folder: Path) -> Path:
    """Make the folder, or the first of folder-2, folder-3, … that does not exist, and return it."""
    from gfocal.errors import UserError

    others = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return next(free for free in chain([folder], others) if _is_made(free))
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({error.strerror}): name another folder by --out") from error


def _is_made(folder: Path) -> bool:
    """Make a folder and return True, or False where it exists: of two runs that begin together, one alone makes it."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True
