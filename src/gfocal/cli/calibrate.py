"""`gfocal calibrate`: what edges and scores are worth, and a calibration that travels with the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from gfocal.cli.options import DATA_HELP, WEIGHTS_HELP, Device, Precision, Size, Workers

DATA = typer.Option("--data", help=f"{DATA_HELP}; with an npz, also the COCO JSON alone")
OUT_HELP = "also write a page, or plots with their numbers where it does not end with .html"
SPREAD_HELP = "what errors are measured by: predicted, side or constant [default: predicted where there is one]"
SAVE_HELP = "the calibrated model (.safetensors), or what was fitted alone (.json)"


def calibrate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"{WEIGHTS_HELP}, or an npz with a head's outputs")],
    *,
    data: Annotated[str, DATA],
    split: Annotated[str, typer.Option("--split", help="which split of the data set to report on")] = "val",
    fit_share: Annotated[float, typer.Option("--fit-share", help="share of its pictures to fit on instead")] = 0.5,
    fit_split: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--fit-split", help="fit on another split instead, which the model was not trained on"),
    ] = None,
    iou: Annotated[float, typer.Option("--iou", min=0.01, max=1, help="overlap that a detection needs")] = 0.5,
    any_class: Annotated[bool, typer.Option("--any-class", help="match boxes of any class")] = False,
    spread: Annotated[Optional[str], typer.Option("--spread", help=SPREAD_HELP)] = None,  # noqa: UP045
    least: Annotated[int, typer.Option("--least", min=1, help="boxes a class needs for bands of its own")] = 100,
    seed: Annotated[int, typer.Option("--seed", min=0, help="of the random part of the pictures")] = 0,
    splits: Annotated[int, typer.Option("--splits", min=1, help="also average coverage over random parts")] = 1,
    json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
    out: Annotated[Optional[Path], typer.Option("-o", "--out", help=OUT_HELP)] = None,  # noqa: UP045
    save: Annotated[Optional[Path], typer.Option("--save", help=f"where to write {SAVE_HELP}")] = None,  # noqa: UP045
    size: Size = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="pictures at once")] = 1,
    workers: Workers = 2,
    precision: Precision = "auto",
    device: Device = "auto",
) -> None:
    """Fit temperatures and error bands on a part of the pictures, and report on the rest how well all of it holds.

    A detection is matched with the best free annotation of its class, at the IoU of --iou, the best score first. The
    report: coverage, width, CRPS and likelihood of edges, coverage of whole boxes, and calibration of the scores.
    Next: `gfocal predict CALIBRATED.safetensors PICTURES`, whose detections have bands.
    """
    from dataclasses import replace
    from json import dumps

    from gfocal.analysis.calibration import calibrate as fit
    from gfocal.analysis.calibration.writing import check_save, save_calibration, write_report
    from gfocal.heads import is_heads, open_annotations
    from gfocal.loading import load_inner
    from gfocal.progress import ProgressBar

    heads = is_heads(model)
    check_save(save, heads=heads)
    total = sum(len(open_annotations(data, name)) for name in (split, fit_split) if name is not None)
    with ProgressBar(total, "matching" if heads else "detecting") as bar:
        report, calibrated = fit(
            model if heads else load_inner(model, device=device),
            data,
            split=split,
            fit_split=fit_split,
            fit_share=fit_share,
            iou=iou,
            same_class=not any_class,
            spread=spread,  # type: ignore[arg-type]  checked there
            least=least,
            seed=seed,
            splits=splits,
            size=size,
            batch=batch,
            workers=workers,
            precision=precision,
            progress=bar.update,
        )
    report = replace(report, source=model)
    typer.echo(dumps(report.to_dict(), indent=2) if json else report.text())
    if out is not None:
        typer.echo(f"report: {write_report(out, report)}", err=True)
    if save is not None:
        save_calibration(save, report.calibration, calibrated)
        typer.echo(f"calibration: {save}", err=True)
