"""Dense object detectors whose box edges are probability distributions: Generalized Focal Loss V1 and V2."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from gfocal.version import __version__

if TYPE_CHECKING:
    from gfocal import ops
    from gfocal.analysis.audit import audit
    from gfocal.analysis.benchmark import benchmark
    from gfocal.analysis.calibration import calibrate
    from gfocal.analysis.rescoring import rescore
    from gfocal.config import Recipe
    from gfocal.errors import UserError
    from gfocal.evaluation import Metrics
    from gfocal.explaining import explain
    from gfocal.exporting import export
    from gfocal.loading import load
    from gfocal.model import Model, build, convert
    from gfocal.recipes import get_recipe
    from gfocal.structures import Detections, EdgeDistributions
    from gfocal.testing import evaluate
    from gfocal.training import train

__all__ = [
    "Detections",
    "EdgeDistributions",
    "Metrics",
    "Model",
    "Recipe",
    "UserError",
    "__version__",
    "audit",
    "benchmark",
    "build",
    "calibrate",
    "convert",
    "evaluate",
    "explain",
    "export",
    "get_recipe",
    "load",
    "ops",
    "rescore",
    "train",
]

_HOMES = {
    "Detections": "gfocal.structures",
    "EdgeDistributions": "gfocal.structures",
    "Metrics": "gfocal.evaluation",
    "Model": "gfocal.model",
    "Recipe": "gfocal.config",
    "UserError": "gfocal.errors",
    "audit": "gfocal.analysis.audit",
    "benchmark": "gfocal.analysis.benchmark",
    "build": "gfocal.model",
    "calibrate": "gfocal.analysis.calibration",
    "convert": "gfocal.model",
    "evaluate": "gfocal.testing",
    "explain": "gfocal.explaining",
    "export": "gfocal.exporting",
    "get_recipe": "gfocal.recipes",
    "load": "gfocal.loading",
    "rescore": "gfocal.analysis.rescoring",
    "train": "gfocal.training",
}


def __getattr__(name: str) -> object:
    """Import a public name where it is first used, so that `import gfocal` itself costs nothing."""
    if name == "ops":
        return import_module("gfocal.ops")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'gfocal' has no attribute {name!r}")
