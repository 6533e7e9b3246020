"""Training with Lightning Fabric; the only part of the package that imports it."""

from gfocal.training.replay import replay
from gfocal.training.run import resume, train

__all__ = ["replay", "resume", "train"]
