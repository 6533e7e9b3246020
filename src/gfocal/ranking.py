"""Which pairs of location and class are worth decoding: above the threshold, and among the best of their level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gfocal.structures import Grid


class Ranking(Protocol):
    """What all kinds of ranking take and return."""

    def __call__(
        self,
        scores: Float[Tensor, "n c"],
        held: Float[Tensor, "n c"],
        grids: Sequence[Grid],
        *,
        threshold: float,
        limit: int | None,
        best: int | None,
    ) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"], bool]:
        """Return location and class of pairs, and whether they are all there are.

        scores: 0..1, rank. held: 0..1, what is held against `threshold`, which they must exceed. limit: what is kept of
        a level, None for all. best: where fewer will do, at least so many, and none of them worse than one left out.
        `held` is `scores` itself where no quality tells them apart, which saves half of the work.
        """
        ...


def best_locations(
    scores: Float[Tensor, "n c"],
    held: Float[Tensor, "n c"],
    grids: Sequence[Grid],
    *,
    threshold: float,
    limit: int | None,
    best: int | None,
) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"], bool]:
    """Keep the locations of a level whose best class is among the best, as the reference does (see `Ranking`)."""
    tops = scores.amax(dim=-1)
    locations = _best_of_levels(tops, grids, limit)
    # index_select, because it takes half the time of indexing
    reached = tops[locations] if held is scores else held.index_select(0, locations).amax(dim=-1)
    locations = locations[reached > threshold]
    ranked = scores.index_select(0, locations)
    ranked = ranked.masked_fill((ranked if held is scores else held.index_select(0, locations)) <= threshold, 0)
    tops = ranked.amax(dim=-1)
    floor, complete = _floor(tops[tops > 0], best)
    inside = (tops >= floor).nonzero()[:, 0]
    row, label = (ranked[inside] >= floor).nonzero(as_tuple=True)
    return locations[inside[row]], label, complete


def best_pairs(
    scores: Float[Tensor, "n c"],
    held: Float[Tensor, "n c"],
    grids: Sequence[Grid],
    *,
    threshold: float,
    limit: int | None,
    best: int | None,
) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"], bool]:
    """Keep the pairs of a level that are among the best, as mmdetection does since 2.20 (see `Ranking`)."""
    ranked = scores.masked_fill(held <= threshold, 0).flatten()
    classes = scores.shape[1]
    kept: list[Tensor] = []
    start = 0
    for grid in grids:
        stop = start + grid.num_priors * classes
        pairs = ranked[start:stop].nonzero()[:, 0] + start
        if limit is not None and len(pairs) > limit:
            pairs = pairs[ranked[pairs].topk(limit).indices]
        kept.append(pairs)
        start = stop
    pair = torch.cat(kept)
    floor, complete = _floor(ranked[pair], best)
    pair = pair[ranked[pair] >= floor]
    return pair // classes, pair % classes, complete


def _floor(scores: Float[Tensor, " n"], best: int | None) -> tuple[Tensor, bool]:
    """Return the least score, above 0, that a pair must reach so that `best` of them stay, and whether all do.

    scores: of some of the pairs; where these are the best of each location, more pairs than `best` may reach it.
    """
    if best is None or len(scores) <= best:
        return scores.new_tensor(torch.finfo(scores.dtype).tiny), True
    return scores.topk(best).values[-1], False


def _best_of_levels(best: Float[Tensor, " n"], grids: Sequence[Grid], limit: int | None) -> Int[Tensor, " k"]:
    """Return the locations that are among the `limit` best of their level."""
    kept: list[Tensor] = []
    start = 0
    for grid in grids:
        stop = start + grid.num_priors
        if limit is not None and grid.num_priors > limit:
            kept.append(best[start:stop].topk(limit).indices + start)
        else:
            kept.append(torch.arange(start, stop, device=best.device))
        start = stop
    return torch.cat(kept)


RANKINGS: Mapping[str, Ranking] = {"locations": best_locations, "pairs": best_pairs}
