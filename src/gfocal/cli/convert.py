"""`gfocal convert`: official weights as one file of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from gfocal.cli.options import Weights


def convert(
    source: Weights,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="the .safetensors file to write")],
    *,
    recipe: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--recipe", help="name or YAML file, where the keys of the file do not tell"),
    ] = None,
) -> None:
    """Write weights of GFocalV2 or mmdetection as .safetensors with their recipe inside.

    Next: `gfocal predict OUT PICTURES`.
    """
    import gfocal

    written = gfocal.convert(source, out, recipe=recipe)
    typer.echo(f"{out}: {written.name}, {len(written.class_names)} classes\nnext: gfocal predict {out} PICTURES")
