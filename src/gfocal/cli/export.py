"""`gfocal export`: files for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from gfocal.cli.options import DATA_HELP, Size, Weights


def export(
    model: Weights,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="the .onnx file to write, or .xml for OpenVINO")],
    *,
    raw: Annotated[bool, typer.Option("--raw", help="leave suppression out: outputs as the detector has them")] = False,
    precision: Annotated[str, typer.Option("--precision", help="float32, float16 or int8, which needs --data")] = (
        "float32"
    ),
    data: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--data", help=f"pictures to compare and score on, instead of generated ones: {DATA_HELP}"),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="which split of the data set")] = "val",
    pictures: Annotated[int, typer.Option("--pictures", min=1, help="how many of them to compare on")] = 50,
    size: Size = None,
) -> None:
    """Write a model for ONNX Runtime, OpenVINO or TensorRT, and a certificate that the file finds the same.

    The certificate is NAME.certificate.json beside the file. Next: `gfocal predict OUT PICTURES`, which takes the file
    in place of a model.
    """
    import gfocal
    from gfocal.devices import settle
    from gfocal.progress import ProgressBar

    settle()
    with ProgressBar(None, "comparing") as bar:
        certificate = gfocal.export(
            model,
            out,
            raw=raw,
            precision=precision,
            data=data,
            split=split,
            pictures=pictures,
            size=size,
            progress=lambda done, total: bar.update(done, total=total),
        )
    typer.echo(certificate.text())
    typer.echo(f"{out}, {out.with_suffix('.certificate.json')}\nnext: gfocal predict {out} PICTURES")
