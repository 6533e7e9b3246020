"""Axis 2: how a detector says how good a box is, and how that is learnt."""

from __future__ import annotations

from collections.abc import Mapping

from gfocal.quality.base import Head, Quality
from gfocal.quality.convs import ConvFeatures
from gfocal.quality.joint import DGQP, Composed, Joint
from gfocal.quality.separate import Branch, Guided, Plain

__all__ = ["QUALITIES", "Head", "Quality"]

QUALITIES: Mapping[str, type[Quality]] = {
    "none": Plain,
    "branch": Branch,
    "guided": Guided,
    "joint": Joint,
    "dgqp": DGQP,
    "composed": Composed,
    "conv": ConvFeatures,
}
