"""Ranking the boxes of any detector with edge distributions by a quality read off them, without training it again."""

from __future__ import annotations

from gfocal.analysis.rescoring.measuring import Interval, Report
from gfocal.analysis.rescoring.rescorer import Rescorer, fit_rescorer
from gfocal.analysis.rescoring.run import Rescoring, rescore

__all__ = ["Interval", "Report", "Rescorer", "Rescoring", "fit_rescorer", "rescore"]
