"""Axis 1: one function a family, saying which priors, assigner and box coding it uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gfocal.assign.atss import ATSS
from gfocal.assign.base import Assigner
from gfocal.coding import Coding, Distances
from gfocal.priors import SquareAnchors

STRIDES = (8, 16, 32, 64, 128)
"""Pixels a cell of P3 to P7."""


@dataclass(frozen=True)
class Family:
    """The parts that make a family: where it looks, what learns what, and how four values stand for a box."""

    priors: SquareAnchors
    assigner: Assigner
    coding: Coding


def atss(*, topk: int = 9, anchor_scale: float = 8.0) -> Family:
    """Return ATSS, the family that GFL V1 and V2 stand on: one square anchor a cell, distances in strides.

    topk: candidates a level of the assigner. anchor_scale: side of an anchor in strides.
    """
    return Family(priors=SquareAnchors(STRIDES, anchor_scale), assigner=ATSS(topk=topk), coding=Distances())


FAMILIES: Mapping[str, Callable[..., Family]] = {"atss": atss}
