"""Which picture is learnt when, as a function of the seed alone: a run goes on exactly where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import final

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

from gfocal.data.examples import Draw


@final
class Order(Sampler[list[Draw]]):
    """Yields the batches of one process from step `start` on to step `steps`.

    The data set is shuffled anew for each epoch and read without end; a batch may hold the last pictures of an epoch
    and the first of the next, so that all batches are full. What stands at a place of that row, and the chance that
    its augmentation takes, hang on the seed and the place alone: not on the number of processes, nor on where a run
    was interrupted.

    length: pictures. batch: of them at once in this process, one of `ranks`, which take neighbouring parts of a step.
    mixed: steps in which pictures may be mixed, from the first on; None for all. groups: a number for each picture; a
    step then holds pictures of one group alone, but for the last of an epoch, where what is left of the groups meets.
    """

    def __init__(
        self,
        length: int,
        *,
        batch: int,
        steps: int,
        seed: int,
        start: int = 0,
        mixed: int | None = None,
        rank: int = 0,
        ranks: int = 1,
        groups: NDArray[np.int64] | None = None,
    ) -> None:
        self.length = length
        self.batch = batch
        self.steps = steps
        self.seed = seed
        self.start = start
        self.mixed = steps if mixed is None else mixed
        self.rank = rank
        self.ranks = ranks
        self.groups = groups

    def __len__(self) -> int:
        return max(self.steps - self.start, 0)

    def __iter__(self) -> Iterator[list[Draw]]:
        shuffled = lru_cache(maxsize=2)(self._shuffled)
        for step in range(self.start, self.steps):
            first = (step * self.ranks + self.rank) * self.batch
            yield [
                Draw(shuffled(place // self.length)[place % self.length], seed_of(self.seed, place), step < self.mixed)
                for place in range(first, first + self.batch)
            ]

    def _shuffled(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, -1 - epoch))
        order = torch.randperm(self.length, generator=generator)
        return (order if self.groups is None else self._grouped(order, epoch, generator)).tolist()

    def _grouped(self, order: Int[Tensor, " n"], epoch: int, generator: torch.Generator) -> Int[Tensor, " n"]:
        step = self.batch * self.ranks
        # the first pictures complete a step that the epoch before began
        first = -epoch * self.length % step
        begun, rest = order[:first], order[first:]
        groups = torch.as_tensor(self.groups)[rest]
        parts = [part for group in groups.unique() for part in rest[groups == group].split(step)]
        whole = [part for part in parts if len(part) == step]
        blocks = [whole[place] for place in torch.randperm(len(whole), generator=generator).tolist()]
        return torch.cat([begun, *blocks, *(part for part in parts if len(part) < step)])


def seed_of(seed: int, *place: int) -> int:
    """Return a seed in 0..2^63 for a place, which may be negative, unrelated to that of any other place."""
    entropy = [seed, *(2 * number if number >= 0 else -2 * number - 1 for number in place)]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
