"""Dense object detectors whose box edges are probability distributions: Generalized Focal Loss V1 and V2."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from gfocal.version import __version__

if TYPE_CHECKING:
    from gfocal import ops
    from gfocal.config import Recipe
    from gfocal.errors import UserError
    from gfocal.evaluation import Metrics
    from gfocal.model import Model, build, convert, load
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
    "build",
    "convert",
    "evaluate",
    "get_recipe",
    "load",
    "ops",
    "train",
]

_HOMES = {
    "Detections": "gfocal.structures",
    "EdgeDistributions": "gfocal.structures",
    "Metrics": "gfocal.evaluation",
    "Model": "gfocal.model",
    "Recipe": "gfocal.config",
    "UserError": "gfocal.errors",
    "build": "gfocal.model",
    "convert": "gfocal.model",
    "evaluate": "gfocal.testing",
    "get_recipe": "gfocal.recipes",
    "load": "gfocal.model",
    "train": "gfocal.training",
}


def __getattr__(name: str) -> object:
    """Import a public name where it is first used, so that `import gfocal` itself costs nothing."""
    if name == "ops":
        return import_module("gfocal.ops")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'gfocal' has no attribute {name!r}")
