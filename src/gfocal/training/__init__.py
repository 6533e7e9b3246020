"""Training with Lightning; the only part of the package that imports it."""

from gfocal.training.run import train

__all__ = ["train"]
