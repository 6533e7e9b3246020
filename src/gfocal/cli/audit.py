"""`gfocal audit`: labels that a trained detector finds hard to believe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from gfocal.cli.options import Data, Device, Precision, Size

ENDINGS = (".html", ".csv", ".json")
OUT_HELP = "also write all of it as .html (with crops), .csv or .json; may be repeated"


def audit(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="what `gfocal evaluate` takes, or an .npz of any head's arrays")
    ],
    *,
    data: Data,
    split: Annotated[str, typer.Option("--split", help="which split of the data set")] = "train",
    least: Annotated[float, typer.Option("--least", min=0, max=1, help="score that a suspicion needs")] = 0.3,
    out: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option("-o", "--out", metavar="FILE", help=OUT_HELP),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print all of it as JSON instead of a summary")] = False,
    size: Size = None,
    precision: Precision = "auto",
    device: Device = "auto",
) -> None:
    """Rank the labels that look wrong: edges, missed and spurious boxes, duplicates, classes.

    DATA may be a COCO JSON alone where MODEL is an .npz; the page then has no pictures unless they lie beside it.
    Next: look at the page, and mend in your labelling tool what is wrong indeed.
    """
    from json import dumps

    from gfocal.analysis.audit import audit as run
    from gfocal.analysis.audit import write_page
    from gfocal.errors import UserError
    from gfocal.heads import is_heads, open_annotations
    from gfocal.loading import load
    from gfocal.progress import ProgressBar

    files = out or []
    for file in files:
        if file.suffix not in ENDINGS:
            raise UserError(f"{file}: the name must end with {', '.join(ENDINGS)}, which says what is written")
    dataset = open_annotations(data, split)
    source = model if is_heads(model) else load(model, device=device)
    with ProgressBar(len(dataset), "auditing") as bar:
        found = run(source, dataset, least=least, size=size, precision=precision, name=data, progress=bar.update)
    typer.echo(dumps(found.to_dict(), indent=2) if json else found.text())
    for file in files:
        if file.suffix == ".html":
            write_page(file, found, dataset)
        elif file.suffix == ".csv":
            found.write_csv(file)
        else:
            found.write_json(file)
        typer.echo(f"written: {file}", err=True)
