"""Which detection stands for which annotated box: what calibration, rescoring and the audit all start from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.ops import box_iou

from gfocal.structures import Detections, EdgeDistributions, Truth


@final
@dataclass(frozen=True)
class Matched:
    """What was made of each of n detections of one picture.

    truth: (n,) index of the annotated box that it stands for, -1 for none. iou: (n,) in 0..1 with that box, 0 for
    none. ignored: (n,) whether it stands for none and lies on a crowd box, so that it counts neither way.
    """

    truth: Int[Tensor, " n"]
    iou: Float[Tensor, " n"]
    ignored: Bool[Tensor, " n"]


def match(found: Detections, truth: Truth, *, iou: float = 0.5, same_class: bool = True) -> Matched:
    """Return which detection stands for which annotated box, as COCO matches at one threshold.

    Detections take their turn by score, the best first; each takes the free box of highest IoU, of equal ones the
    last, if that is `iou` or more. Crowd boxes are taken by nobody: what matches no box, but lies inside a crowd box
    with a share `iou` of its area, is ignored. same_class: whether a detection may only take a box of its own class.

    >>> from gfocal import Detections
    >>> from gfocal.analysis.matching import match
    >>> from gfocal.structures import Truth
    >>> box, label = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([0])
    >>> truth = Truth(1, "1.png", (20, 20), box, label, crowd=torch.tensor([False]))
    >>> found = Detections(box.repeat(2, 1), torch.tensor([0.6, 0.9]), label.repeat(2), ("cat",))
    >>> match(found, truth).truth.tolist()
    [-1, 0]
    """
    if not 0 < iou <= 1:
        raise ValueError(f"iou must lie above 0 and at most at 1, got {iou}")
    boxes, labels = found.boxes.double().cpu(), found.labels.cpu()
    overlaps = box_iou(boxes, truth.boxes.double()).nan_to_num(nan=0.0)
    allowed = (labels[:, None] == truth.labels) if same_class else torch.ones_like(overlaps, dtype=torch.bool)
    single = torch.where(allowed & ~truth.crowd, overlaps, -1.0).numpy()
    taken = np.full(len(boxes), -1)
    order = np.argsort(-found.scores.cpu().numpy(), kind="stable")
    for row in order[single[order].max(axis=1, initial=-1) >= iou].tolist():
        best = single.shape[1] - 1 - int(single[row, ::-1].argmax())
        if single[row, best] >= iou:
            taken[row] = best
            single[:, best] = -1
    chosen = torch.from_numpy(taken)
    hit = chosen >= 0
    reached = torch.zeros(len(boxes))
    reached[hit] = overlaps[hit, chosen[hit]].float()
    inside = _share_inside(boxes, truth.boxes.double()[truth.crowd])
    on_crowd = ((inside >= iou) & allowed[:, truth.crowd]).any(1)
    return Matched(chosen, reached, on_crowd & ~hit)


def _share_inside(boxes: Float[Tensor, "n 4"], others: Float[Tensor, "g 4"]) -> Float[Tensor, "n g"]:
    """Return the share of each box's area that lies inside each of the others."""
    low, high = torch.maximum(boxes[:, None, :2], others[:, :2]), torch.minimum(boxes[:, None, 2:], others[:, 2:])
    area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1)
    return ((high - low).clamp(min=0).prod(-1) / area[:, None]).nan_to_num(nan=0.0, posinf=0.0)


@final
@dataclass(frozen=True)
class Outcomes:
    """What became of d detections of many pictures, those ignored left out.

    scores: (d,) in 0..1. labels: (d,). correct: (d,) whether it stands for an annotated box. iou: (d,) with that box,
    0 where it stands for none. boxes: (d, 4) xyxy pixels. pictures: (d,) index of the picture.
    """

    scores: Float[Tensor, " d"]
    labels: Int[Tensor, " d"]
    correct: Bool[Tensor, " d"]
    iou: Float[Tensor, " d"]
    boxes: Float[Tensor, "d 4"]
    pictures: Int[Tensor, " d"]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: slice | Tensor) -> Outcomes:
        """Return the detections at `index` (slice, long or bool)."""
        return Outcomes(**{field.name: getattr(self, field.name)[index] for field in fields(Outcomes)})


@final
@dataclass(frozen=True)
class MatchedEdges:
    """The m detections of many pictures that stand for an annotated box, and what became of all detections.

    boxes: (m, 4) found, truths: (m, 4) annotated, xyxy pixels. edges: the distributions, None where the detector has
    none. labels: (m,) class found. scores, iou: (m,) in 0..1. levels: (m,) pyramid level, -1 where unknown. softness:
    (m, 4) pixels over which the true edges fade, NaN where unknown. sizes: (m, 2) height and width of the picture.
    pictures: (m,) index of the picture. outcomes: of all detections, matched or not. num_pictures: how many there are,
    with boxes or without. num_truths: boxes to be found in them, crowds left out.
    """

    boxes: Float[Tensor, "m 4"]
    truths: Float[Tensor, "m 4"]
    edges: EdgeDistributions | None
    labels: Int[Tensor, " m"]
    scores: Float[Tensor, " m"]
    iou: Float[Tensor, " m"]
    levels: Int[Tensor, " m"]
    softness: Float[Tensor, "m 4"]
    sizes: Float[Tensor, "m 2"]
    pictures: Int[Tensor, " m"]
    outcomes: Outcomes
    num_pictures: int
    num_truths: int

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: slice | Tensor) -> MatchedEdges:
        """Return the matched boxes at `index` (slice, long or bool); what is known of all detections stays."""
        return self._at(index, self.outcomes)

    def of_pictures(self, chosen: Bool[Tensor, " pictures"]) -> MatchedEdges:
        """Return what belongs to some of the pictures: a flag for each; the two counts stay those of all."""
        return self._at(chosen[self.pictures], self.outcomes[chosen[self.outcomes.pictures]])

    def _at(self, index: slice | Tensor, outcomes: Outcomes) -> MatchedEdges:
        same = ("edges", "outcomes", "num_pictures", "num_truths")
        rows = {
            field.name: getattr(self, field.name)[index] for field in fields(MatchedEdges) if field.name not in same
        }
        edges = None if self.edges is None else self.edges[index]
        return MatchedEdges(
            **rows, edges=edges, outcomes=outcomes, num_pictures=self.num_pictures, num_truths=self.num_truths
        )


def matched_edges(
    pairs: Iterable[tuple[Truth, Detections]], *, iou: float = 0.5, same_class: bool = True
) -> MatchedEdges:
    """Return the detections that stand for an annotated box, over all pictures, in host memory.

    pairs: truth and detections of each picture, as `gfocal.testing.detect` yields for a model and
    `gfocal.heads.open_heads` for arrays. iou, same_class: as of `match`. ValueError where there is no picture.

    >>> from gfocal import Detections
    >>> from gfocal.analysis.matching import matched_edges
    >>> from gfocal.structures import Truth
    >>> box, label = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([0])
    >>> truth = Truth(1, "1.png", (20, 20), box, label, crowd=torch.tensor([False]))
    >>> matched = matched_edges([(truth, Detections(box, torch.tensor([0.9]), label, ("cat",)))])
    >>> len(matched), matched.iou.tolist(), matched.outcomes.correct.tolist()
    (1, [1.0], [True])
    """
    parts: list[dict[str, Tensor]] = []
    everything: list[Outcomes] = []
    edges: list[EdgeDistributions] = []
    truths = 0
    for picture, (truth, detections) in enumerate(pairs):
        found = detections.cpu()
        matched = match(found, truth, iou=iou, same_class=same_class)
        truths += int((~truth.crowd).sum())
        hit = matched.truth >= 0
        everything.append(_outcomes(found, matched, picture)[~matched.ignored])
        parts.append(_rows(found[hit], truth, matched.truth[hit], matched.iou[hit], picture))
        if found.edges is not None:
            edges.append(found.edges[hit])
    if not parts:
        raise ValueError("there must be at least one picture")
    if edges and len(edges) != len(parts):
        raise ValueError(f"only {len(edges)} of {len(parts)} pictures have edge distributions: give all or none")
    columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    outcomes = {f.name: torch.cat([getattr(part, f.name) for part in everything]) for f in fields(Outcomes)}
    return MatchedEdges(
        **columns,
        edges=EdgeDistributions.cat(edges) if edges else None,
        outcomes=Outcomes(**outcomes),
        num_pictures=len(parts),
        num_truths=truths,
    )


def _outcomes(found: Detections, matched: Matched, picture: int) -> Outcomes:
    pictures = torch.full((len(found),), picture)
    return Outcomes(found.scores, found.labels, matched.truth >= 0, matched.iou, found.boxes, pictures)


def _rows(
    found: Detections, truth: Truth, taken: Int[Tensor, " m"], iou: Float[Tensor, " m"], picture: int
) -> dict[str, Tensor]:
    count = len(found)
    softness = torch.full((count, 4), torch.nan) if truth.softness is None else truth.softness[taken]
    return {
        "boxes": found.boxes,
        "truths": truth.boxes[taken],
        "labels": found.labels,
        "scores": found.scores,
        "iou": iou,
        "levels": torch.full((count,), -1) if found.levels is None else found.levels,
        "softness": softness,
        "sizes": torch.tensor(truth.size, dtype=torch.float32).expand(count, 2),
        "pictures": torch.full((count,), picture),
    }
