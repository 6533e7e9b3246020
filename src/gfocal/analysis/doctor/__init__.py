"""The doctor: what is wrong with a data set, and whether the bins of a recipe suit it."""

from __future__ import annotations

from gfocal.analysis.doctor.clipping import Clipping, clipped_targets
from gfocal.analysis.doctor.examination import examine, open_splits
from gfocal.analysis.doctor.findings import Example, Finding
from gfocal.analysis.doctor.page import write_page
from gfocal.analysis.doctor.report import Report

__all__ = ["Clipping", "Example", "Finding", "Report", "clipped_targets", "examine", "open_splits", "write_page"]
