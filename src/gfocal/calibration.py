"""What a calibration has learnt, small enough to travel with a model: temperatures, and quantiles of its errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias, cast, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gfocal.bands import Bands, bands_around
from gfocal.structures import Detections, EdgeDistributions

Spread: TypeAlias = Literal["predicted", "side", "constant"]
Rows: TypeAlias = tuple[tuple[float, ...], ...]

MASSES = (0.5, 0.8, 0.9, 0.95)
"""Probabilities that bands are made for unless others are asked for."""


@dataclass(frozen=True)
class Calibration:
    """Corrections of the distributions and the error bands of a detector, fitted on data it was not trained on.

    temperatures: (levels + 1, 4), of each pyramid level's left, top, right and bottom edge; the last row holds for
    boxes of no or unknown level; empty where the boxes have no distributions. A distribution p becomes p^(1/T), to
    sum 1.
    masses: probabilities of the bands, rising. spread: what quantiles are multiples of, the "predicted" spread of each
    edge after its temperature, the "side" of the box across it, or a "constant", one pixel.
    groups: which row of the quantiles each class uses. intervals: (rows, masses · 4), by mass, then edge, of the error
    of each edge to either side. outward, inward: (rows, masses), by how much all four edges together move out or in.
    class_names: of the model. boxes: how many it was fitted on. iou: overlap from where on these counted as found.

    >>> two = Calibration((), (0.9,), "constant", (0,), ((2.0,) * 4,), ((3.0,),), ((1.0,),), ("disc",), 500, 0.5)
    >>> box = Detections(torch.tensor([[10.0, 10.0, 30.0, 20.0]]), torch.ones(1), torch.zeros(1).long(), ("disc",))
    >>> bands = two.apply(box).bands
    >>> bands.interval(0.9)[0].tolist(), bands.boxes(0.9)[0].tolist()
    ([[8.0, 8.0, 28.0, 18.0]], [[7.0, 7.0, 33.0, 23.0]])
    """

    temperatures: Rows
    masses: tuple[float, ...]
    spread: Spread
    groups: tuple[int, ...]
    intervals: Rows
    outward: Rows
    inward: Rows
    class_names: tuple[str, ...]
    boxes: int
    iou: float

    def __post_init__(self) -> None:
        if list(self.masses) != sorted(set(self.masses)) or not all(0 < mass < 1 for mass in self.masses):
            raise ValueError(f"masses must rise between 0 and 1, got {self.masses}")
        if self.spread not in get_args(Spread):
            raise ValueError(f"spread must be one of {get_args(Spread)}, got {self.spread!r}")
        if self.spread == "predicted" and not self.temperatures:
            raise ValueError("a predicted spread needs temperatures, one for each edge at least")
        if len(self.groups) != len(self.class_names):
            raise ValueError(f"groups must be {len(self.class_names)}, one a class, got {len(self.groups)}")
        _check("temperatures", self.temperatures, len(self.temperatures), 4)
        if not all(0 < value < math.inf for row in self.temperatures for value in row):
            raise ValueError(f"temperatures must be greater than 0, got {self.temperatures}")
        count = max(self.groups, default=0) + 1
        for name, width in (("intervals", 4 * len(self.masses)), ("outward", len(self.masses)), ("inward", 0)):
            _check(name, getattr(self, name), count, width or len(self.masses))

    def apply(self, found: Detections) -> Detections:
        """Return detections with calibrated `edges`, and with `bands`; boxes, scores and their order stay.

        A band lies around the box itself, so that it holds for what is reported. ValueError for detections that a
        calibration was applied to already, whose classes are others, or which lack the distributions it reads.
        """
        if found.bands is not None:
            raise ValueError("the detections are calibrated already: apply a calibration to what a plain model found")
        if found.class_names != self.class_names:
            raise ValueError(f"the calibration is for classes {self.class_names}, not {found.class_names}")
        edges = self.edges(found.edges, found.levels) if found.edges is not None and self.temperatures else found.edges
        return replace(found, edges=edges, bands=self.bands(found.boxes, edges, found.labels))

    def edges(self, edges: EdgeDistributions, levels: Int[Tensor, " n"] | None) -> EdgeDistributions:
        """Return the distributions at their temperatures. levels: (n,) pyramid level, -1 or None where unknown."""
        levels = torch.full((len(edges),), -1, device=edges.positions.device) if levels is None else levels
        return tempered(edges, temperatures_of(self.temperatures, levels).to(edges.probabilities))

    def bands(self, boxes: Float[Tensor, "n 4"], edges: EdgeDistributions | None, labels: Int[Tensor, " n"]) -> Bands:
        """Return the bands of boxes, xyxy pixels. edges: at their temperatures. ValueError where they are needed."""
        spread = spread_of(self.spread, boxes, edges)
        row = torch.tensor(self.groups, device=labels.device)[labels]
        columns = len(self.masses)
        interval = boxes.new_tensor(self.intervals).view(-1, columns, 4)[row].mT * spread[..., None]
        outward, inward = (boxes.new_tensor(table)[row][..., None] for table in (self.outward, self.inward))
        return bands_around(
            boxes, self.masses, interval=interval, outward=outward * spread[:, None], inward=inward * spread[:, None]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; an infinite quantile becomes None.

        >>> plain = Calibration((), (0.9,), "side", (0,), ((2.0,) * 4,), ((3.0,),), ((1.0,),), ("disc",), 500, 0.5)
        >>> Calibration.from_dict(plain.to_dict()) == plain
        True
        """
        plain = asdict(self)
        for name in ("intervals", "outward", "inward"):
            plain[name] = [[None if math.isinf(value) else value for value in row] for row in plain[name]]
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Return what `to_dict` gave; ValueError where it is something else."""
        try:
            tables = {name: _table(values[name]) for name in ("temperatures", "intervals", "outward", "inward")}
            return cls(
                masses=tuple(float(mass) for mass in values["masses"]),
                spread=values["spread"],
                groups=tuple(int(row) for row in values["groups"]),
                class_names=tuple(str(name) for name in values["class_names"]),
                boxes=int(values["boxes"]),
                iou=float(values["iou"]),
                **tables,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a calibration ({error!r})") from error


def temperatures_of(rows: Rows, levels: Int[Tensor, " n"]) -> Float[Tensor, "n 4"]:
    """Return the row of each level, (n,) from 0, of a table whose last row holds for all other levels.

    >>> temperatures_of(((1.0,) * 4, (2.0,) * 4), torch.tensor([0, -1, 7]))[:, 0].tolist()
    [1.0, 2.0, 2.0]
    """
    unknown = len(rows) - 1
    row = torch.where((levels < 0) | (levels >= unknown), unknown, levels)
    return torch.tensor(rows, device=levels.device)[row]


def tempered(edges: EdgeDistributions, temperature: Float[Tensor, "n 4"]) -> EdgeDistributions:
    """Return the distributions p as p^(1/T), to sum 1: flatter above T = 1, and sharper below.

    >>> one = EdgeDistributions(torch.tensor([0.8, 0.2]).expand(1, 4, 2), torch.tensor([0.0, 8.0]).expand(1, 4, 2))
    >>> tempered(one, torch.full((1, 4), 2.0)).probabilities[0, 0]
    tensor([0.6667, 0.3333])
    """
    tiny = torch.finfo(edges.probabilities.dtype).tiny
    logits = edges.probabilities.clamp(min=tiny).log() / temperature[..., None]
    return EdgeDistributions(logits.softmax(dim=-1), edges.positions)


def spread_of(kind: Spread, boxes: Float[Tensor, "n 4"], edges: EdgeDistributions | None) -> Float[Tensor, "n 4"]:
    """Return in pixels what the error of each edge is measured by, greater than 0.

    "predicted" is the standard deviation of the distribution with each bin's mass spread over its cell, whose own
    variance is step² / 12; "side" the width of the box for left and right and its height for top and bottom, a pixel at
    least; "constant" one pixel. ValueError where a predicted spread is wanted of boxes without distributions.

    >>> spread_of("side", torch.tensor([[10.0, 10.0, 30.0, 20.0]]), None).tolist()
    [[20.0, 10.0, 20.0, 10.0]]
    """
    if kind == "constant":
        return torch.ones_like(boxes)
    if kind == "side":
        return (boxes[:, 2:] - boxes[:, :2]).clamp(min=1).repeat(1, 2)
    if edges is None:
        raise ValueError("a predicted spread needs edge distributions, and the boxes have none")
    return edges.variance.sqrt()


def _check(name: str, rows: Sequence[Sequence[float]], count: int, width: int) -> None:
    if len(rows) != count or any(len(row) != width for row in rows):
        raise ValueError(f"{name} must be {count} rows of {width} values, got {[len(row) for row in rows]}")
    if any(math.isnan(value) for row in rows for value in row):
        raise ValueError(f"{name} must be numbers, got {rows}")


def _table(rows: object) -> Rows:
    table = cast("Sequence[Sequence[float | None]]", rows)
    return tuple(tuple(math.inf if value is None else float(value) for value in row) for row in table)
