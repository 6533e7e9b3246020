"""Pictures too large for one look: cut into tiles that overlap, what is found in all of them put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import inf

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from gfocal.data.preparing import Prepare
from gfocal.errors import UserError
from gfocal.model import Model
from gfocal.postprocess import PostProcess
from gfocal.structures import Detections
from gfocal.tta import candidates, merged

SLACK = 0.1
"""Share of the overlap by which a box may lie deeper in another tile and still be kept in this one."""


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut: into tiles of one size, evenly spread, each overlapping the next by at least `overlap`.

    tile: (height, width) in pixels of the picture; a picture that is smaller is one tile. overlap: pixels; objects up
    to this size are seen whole by a tile. UserError where tiles do not reach beyond their overlap.

    >>> Tiling((100, 100), overlap=20).spans(250, 100)
    [(0, 100), (75, 175), (150, 250)]
    """

    tile: tuple[int, int]
    overlap: int

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < min(self.tile):
            sides = " x ".join(str(side) for side in self.tile)
            raise UserError(
                f"tiles of {sides} pixels cannot overlap by {self.overlap}: it must be less, and not below 0"
            )

    @classmethod
    def of(cls, tile: int | tuple[int, int], overlap: int | None = None) -> Tiling:
        """Return a tiling; a single number stands for both sides, and without an overlap a quarter of the shorter one.

        >>> Tiling.of(1024)
        Tiling(tile=(1024, 1024), overlap=256)
        """
        sides = (tile, tile) if isinstance(tile, int) else tile
        return cls(sides, min(sides) // 4 if overlap is None else overlap)

    def spans(self, length: int, tile: int) -> list[tuple[int, int]]:
        """Return where the tiles of one axis begin and end."""
        if length <= tile:
            return [(0, length)]
        count = -(-(length - self.overlap) // (tile - self.overlap))
        return [(start, start + tile) for start in (i * (length - tile) // (count - 1) for i in range(count))]


@dataclass(frozen=True)
class _Axis:
    """The tiles of a picture along x or y: where each begins and ends."""

    spans: list[tuple[int, int]]
    slack: float

    def answers(self, index: int, low: Float[Tensor, " n"], high: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Return whether a tile is the one that answers for what lies from `low` to `high`.

        It is where no other sees it deeper inside, but for the slack, as the edges that two tiles find may differ a
        little. The ends of the picture cut off nothing, and count as infinitely far away.
        """
        starts = low.new_tensor([-inf, *(start for start, _ in self.spans[1:])])
        stops = high.new_tensor([*(stop for _, stop in self.spans[:-1]), inf])
        depth = torch.minimum(low[:, None] - starts, stops - high[:, None])
        return depth[:, index] + self.slack >= depth.amax(dim=1)


def predict_tiled(
    model: Model,
    picture: NDArray[np.uint8],
    *,
    tile: int | tuple[int, int],
    overlap: int | None = None,
    size: tuple[int, int] | None = None,
    precision: str | None = None,
    threshold: float | None = None,
) -> Detections:
    """Return what is in a large uint8 RGB picture (h, w, 3), in its own pixels, seen in tiles.

    tile: side, or (height, width), in pixels of the picture. overlap: pixels that neighbours share at least, None for a
    quarter of the tile; as wide as the objects that are looked for. size: (short, long) that each tile is resized to;
    None shows the network the pixels as they are, whatever the size of the recipe's pictures, but for tiles that are
    smaller than its family takes, which are enlarged to that. precision, threshold: as
    in `Model.predict`.

    A box is kept where it comes from the tile that it lies deepest in, so that one that is cut off by a tile's border
    gives way to the whole one that the neighbour sees. The candidates of all tiles, with their distributions, are then
    suppressed together; as many boxes may be left as the recipe allows a picture, times the tiles. Only one tile at a
    time is held beside the picture. UserError for a tile or overlap that makes no sense.

    >>> import gfocal
    >>> model = gfocal.build("gflv2_r18_mini", device="cpu")
    >>> len(predict_tiled(model, np.zeros((96, 128, 3), np.uint8), tile=64, overlap=16))
    0
    """
    tiling = Tiling.of(tile, overlap)
    prepare = _as_they_are(model, picture.shape[:2], tiling) if size is None else model.prepare(size)

    def look(part: NDArray[np.uint8]) -> Detections:
        return candidates(model, prepare(part), precision=precision, threshold=threshold).cpu()

    return model.calibrated(put_together(look_at_tiles(picture, tiling, look), model.postprocess))


def _as_they_are(model: Model, size: tuple[int, ...], tiling: Tiling) -> Prepare:
    """Return the preparation that leaves tiles of a picture of `size` (height, width) as large as they are."""
    short, long = sorted(min(pair) for pair in zip(size, tiling.tile, strict=True))
    least = max(model.least_side, short)
    # all tiles are of one size, which an aspect of its own must not change
    return replace(model.prepare((least, -(-long * least // short))), keep_aspect=True)


def look_at_tiles(
    picture: NDArray[np.uint8], tiling: Tiling, look: Callable[[NDArray[np.uint8]], Detections]
) -> list[Detections]:
    """Return what each tile of a picture (h, w, 3) answers for, in pixels of the picture.

    look: finds the candidates in a tile, a view of the picture, in pixels of the tile.
    """
    rows, columns = (
        _Axis(tiling.spans(length, side), SLACK * tiling.overlap)
        for length, side in zip(picture.shape[:2], tiling.tile, strict=True)
    )
    parts: list[Detections] = []
    for row, column in product(range(len(rows.spans)), range(len(columns.spans))):
        (top, bottom), (left, right) = rows.spans[row], columns.spans[column]
        found = shifted(look(picture[top:bottom, left:right]), left, top)
        x1, y1, x2, y2 = found.boxes.unbind(-1)
        parts.append(found[columns.answers(column, x1, x2) & rows.answers(row, y1, y2)])
    return parts


def put_together(parts: Sequence[Detections], postprocess: PostProcess) -> Detections:
    """Return what suppression leaves of the candidates of tiles; each may add as many boxes as a picture may hold."""
    return replace(postprocess, max_detections=postprocess.max_detections * len(parts)).suppressed(merged(parts))


def shifted(found: Detections, x: float, y: float) -> Detections:
    """Return detections of a part of a picture, whose corner is at x and y, as they lie in the whole."""
    return replace(
        found,
        boxes=found.boxes + found.boxes.new_tensor([x, y, x, y]),
        edges=None if found.edges is None else found.edges.shifted(x, y),
    )
