"""Calibration of edges, boxes and scores: fitted on one part of the pictures, reported on another."""

from gfocal.analysis.calibration.calibrating import calibrate, calibration_report
from gfocal.analysis.calibration.fitting import conformal_quantile, fit_calibration, fit_temperatures
from gfocal.analysis.calibration.report import CalibrationReport

__all__ = [
    "CalibrationReport",
    "calibrate",
    "calibration_report",
    "conformal_quantile",
    "fit_calibration",
    "fit_temperatures",
]
