"""A calibration and its report on disk: page or plots, and the calibrated model or what was fitted alone."""

from __future__ import annotations

import json
from pathlib import Path

from gfocal.analysis.calibration.report import CalibrationReport
from gfocal.calibration import Calibration
from gfocal.errors import UserError
from gfocal.files import whole_or_absent
from gfocal.model import Model

MODEL, ALONE = ".safetensors", ".json"


def write_report(out: Path, report: CalibrationReport) -> Path:
    """Write a report as one page where `out` ends with .html, else as plots with their numbers and report.json.

    Returns `out`. UserError where it cannot be written.
    """
    if out.suffix == ".html":
        from gfocal.analysis.calibration.page import write_page

        write_page(out, report)
        return out
    from gfocal.analysis.calibration.plots import write_plots

    write_plots(out, report)
    with whole_or_absent(out / "report.json") as scratch:
        scratch.write_text(json.dumps(report.to_dict(), indent=2), encoding="utf-8")
    return out


def check_save(save: Path | None, *, heads: bool) -> None:
    """Raise UserError where a calibration cannot be saved under a name. heads: whether it is of arrays, not a model."""
    if save is None or save.suffix == ALONE or (save.suffix == MODEL and not heads):
        return
    if save.suffix == MODEL:
        raise UserError(f"{save}: arrays of a head have no weights to save: let the name end with {ALONE}")
    raise UserError(f"{save}: let the name end with {MODEL}, for the model, or {ALONE}, for what was fitted alone")


def save_calibration(save: Path, calibration: Calibration, model: Model | None) -> None:
    """Write a calibrated model as .safetensors, or the calibration alone as JSON; whole or not at all."""
    check_save(save, heads=model is None)
    if model is not None and save.suffix == MODEL:
        model.save(save)
        return
    with whole_or_absent(save) as scratch:
        scratch.write_text(json.dumps(calibration.to_dict(), indent=2), encoding="utf-8")
