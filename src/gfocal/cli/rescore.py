"""`gfocal rescore`: rank the boxes of a finished detector better, by a quality read off its edge distributions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from gfocal.cli.options import WEIGHTS_HELP, Data


def rescore(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"{WEIGHTS_HELP}, or an .npz of any head's arrays")],
    *,
    data: Data,
    split: Annotated[str, typer.Option("--split", help="which split of the data set")] = "val",
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="highest probabilities of each edge that are read")] = 4,
    hidden: Annotated[int, typer.Option("--hidden", min=1, help="width of the predictor's hidden layer")] = 64,
    folds: Annotated[int, typer.Option("--folds", min=2, help="parts of the pictures, each scored by the others")] = 4,
    seed: Annotated[int, typer.Option("--seed", help="of the folds, the fit and the intervals")] = 0,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("-o", "--out", metavar="FILE.SAFETENSORS", help="write the rescorer fitted on all pictures"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> None:
    """Fit a quality predictor to a detector's boxes, and tell AP before and after on pictures not fitted on.

    DATA may be a COCO JSON alone where MODEL is an .npz, because no picture is read.
    Next: `gfocal.analysis.rescoring.Rescorer.load(FILE)` scores candidates in Python.
    """
    from json import dumps

    from gfocal.analysis.rescoring import rescore as run
    from gfocal.errors import UserError
    from gfocal.progress import ProgressBar

    if out is not None and out.suffix != ".safetensors":
        raise UserError(f"{out}: a rescorer is a .safetensors file: let the name end so")
    with ProgressBar(folds + 1, "fitting") as bar:
        result = run(model, data, split=split, top_k=top_k, hidden=hidden, folds=folds, seed=seed, progress=bar.update)
    typer.echo(dumps(result.report.to_dict(), indent=2) if json else result.report.text())
    if out is not None:
        result.rescorer.save(out)
        typer.echo(f"rescorer: {out}", err=True)
