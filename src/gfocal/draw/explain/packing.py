"""The boxes of a picture as a few bytes that the page reads: see `unpack` in data.js for the other side."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou

from gfocal.draw.explain.material import Explained
from gfocal.structures import Detections

TOP_CLASSES = 5
"""Classes told of each box, best first."""

BANDS = (0.5, 0.9)
"""Probabilities of the bands that are drawn along the edges."""

SHOWN_BEFORE, SHOWN_AFTER = 1, 2
"""Flags of a row: whether it is seen before suppression, and after."""

_JPEG_QUALITY = 85
_LEVELS = 65535  # steps of a probability in two bytes: far below what a plot can show


@dataclass(frozen=True)
class Rows:
    """The boxes of one picture as the page lists them: what suppression left, best first, then all other candidates.

    A box that suppression changed (its place by voting, its score by soft suppression) stands in both parts.
    source: (r,) the candidate of each row. flags: (r,) sums of `SHOWN_BEFORE` and `SHOWN_AFTER`. winner: (r,) the row
    a candidate gave way to, or -1.
    """

    found: tuple[Detections, Detections]
    source: Tensor
    flags: Tensor
    winner: Tensor

    def column(self, name: str) -> Tensor | None:
        """Return a field of the detections, row by row, or None where they lack it."""
        parts = [getattr(part, name) for part in self.found]
        return None if any(part is None for part in parts) else torch.cat(parts)


def rows_of(explained: Explained, *, most: int) -> Rows:
    """Return the rows of a picture: everything after suppression, and of the candidates at least the `most` best."""
    before, after, source = explained.before, explained.after, explained.source
    unchanged = (before.boxes[source] == after.boxes).all(-1) & (before.scores[source] == after.scores)
    told = torch.zeros(len(before), dtype=torch.bool)
    told[source[unchanged]] = True
    order = before.scores.argsort(descending=True, stable=True)[:most]
    rest = order[~told[order]]
    flags = SHOWN_AFTER + SHOWN_BEFORE * unchanged.long()
    itself = torch.full((len(before),), -1)
    itself[source] = torch.arange(len(source))
    gave_way = torch.where(itself[rest] < 0, _winners(explained, rest), -1)
    return Rows(
        found=(after, before[rest]),
        source=torch.cat([source, rest]),
        flags=torch.cat([flags, torch.full((len(rest),), SHOWN_BEFORE)]),
        winner=torch.cat([torch.full((len(after),), -1), gave_way]),
    )


def _winners(explained: Explained, rows: Tensor) -> Tensor:
    """Return which box of `after` each candidate gave way to: the best of its class over the IoU; -1 for none."""
    before, after = explained.before, explained.after
    if not len(after) or not len(rows):
        return torch.full((len(rows),), -1)
    meets = box_iou(before.boxes[rows], before.boxes[explained.source]) > explained.overlap
    meets &= before.labels[rows, None] == after.labels
    return torch.where(meets.any(1), meets.int().argmax(1), -1)


def pack(rows: Rows, class_scores: Tensor | None) -> tuple[dict[str, object], str]:
    """Return how many rows and bins there are and which columns follow, and the columns as base64.

    The columns lie behind each other, those of wider numbers first, so that each starts where its kind may.
    """
    boxes, scores, labels = (
        torch.cat([getattr(part, name) for part in rows.found]) for name in ("boxes", "scores", "labels")
    )
    columns: list[tuple[str, NDArray[np.generic]]] = [("boxes", _numbers(boxes)), ("scores", _numbers(scores))]
    quality = rows.column("quality")
    if quality is not None:
        columns.append(("quality", _numbers(quality)))
    bins = 0
    shares: list[tuple[str, NDArray[np.generic]]] = []
    edges = [part.edges for part in rows.found if part.edges is not None]
    if edges:
        places = torch.cat([part.positions for part in edges])
        bins = places.shape[-1]
        columns += [("start", _numbers(places[..., 0])), ("step", _numbers(places[..., 1] - places[..., 0]))]
        shares = [("probabilities", _shares(torch.cat([part.probabilities for part in edges])))]
    bands = [_bands(part) for part in rows.found]
    if all(band is not None for band in bands):
        columns.append(("bands", _numbers(torch.cat([band for band in bands if band is not None]))))
    columns.append(("winner", rows.winner.numpy().astype("<i4")))
    if class_scores is not None:
        top = class_scores.float().topk(min(TOP_CLASSES, class_scores.shape[1]), dim=1)
        columns.append(("topScores", _numbers(top.values[rows.source])))
        shares.append(("topLabels", top.indices[rows.source].numpy().astype("<u2")))
    columns += [*shares, ("labels", labels.numpy().astype("<u2")), ("flags", rows.flags.numpy().astype("<u1"))]
    head: dict[str, object] = {
        "rows": len(scores),
        "bins": bins,
        "columns": [[name, array.dtype.str[1:], int(np.prod(array.shape[1:]))] for name, array in columns],
    }
    return head, base64.b64encode(b"".join(array.tobytes() for _, array in columns)).decode("ascii")


def _bands(found: Detections) -> Tensor | None:
    """Return the calibrated bands (n, 4, 4) of each edge: low and high of 50 %, then of 90 %; None without such."""
    bands = found.bands
    if bands is None or not {*BANDS} <= {*bands.masses}:
        return None
    return torch.stack([end for mass in BANDS for end in bands.interval(mass)], -1)


def picture_text(picture: NDArray[np.uint8], *, longest: int) -> str:
    """Return a picture as a JPEG in base64, made smaller where a side is longer than `longest` pixels."""
    image = Image.fromarray(picture).convert("RGB")
    image.thumbnail((longest, longest), Image.Resampling.BICUBIC, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def rounded(values: Tensor, *, digits: int = 2) -> list[list[float]]:
    """Return the rows of a matrix as short plain numbers."""
    rows: Sequence[Sequence[float]] = values.detach().cpu().double().tolist()
    return [[round(value, digits) for value in row] for row in rows]


def _numbers(values: Tensor) -> NDArray[np.generic]:
    return np.ascontiguousarray(values.detach().cpu().float().numpy().astype("<f4"))


def _shares(values: Tensor) -> NDArray[np.generic]:
    shares = values.detach().cpu().float().clamp(0, 1).mul(_LEVELS).round().numpy()
    return np.ascontiguousarray(shares.astype("<u2"))
