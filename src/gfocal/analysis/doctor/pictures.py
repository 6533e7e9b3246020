"""Flaws of the picture files: those that cannot be read or are of another size, and those that are there twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import final

from torch.utils import data

from gfocal.analysis.doctor.columns import Columns
from gfocal.analysis.doctor.findings import Example, Flaws
from gfocal.data.dataset import Dataset
from gfocal.errors import UserError

AT_ONCE = 16
"""Pictures that a worker looks at before it answers."""


@dataclass(frozen=True)
class Look:
    """What a picture was found to be. digest: of its pixels, None where it cannot be used. fault: why it cannot."""

    index: int
    digest: bytes | None
    fault: str = ""


@final
class Looks(data.Dataset[Look]):
    """The pictures of a data set, each read whole and summed up, for a `torch.utils.data.DataLoader`."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Look:
        try:
            picture = self.dataset.picture(index)
        except UserError as error:
            return Look(index, None, str(error))
        digest = blake2b(repr(picture.shape).encode(), digest_size=16)
        digest.update(picture.data)
        return Look(index, digest.digest())


def picture_flaws(
    datasets: Mapping[str, Dataset],
    splits: Sequence[Columns],
    *,
    workers: int,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Flaws]:
    """Yield the flaws of all pictures; each is read once, in `workers` processes of its own (0: in this one).

    Two pictures are the same where all their pixels are. progress: is told how many were read.
    """
    seen: dict[bytes, list[tuple[Columns, int]]] = {}
    done = 0
    for columns in splits:
        faults: dict[str, list[Example]] = {"picture": [], "size": []}
        for look in _looks(datasets[columns.split], workers):
            done += 1
            if progress is not None:
                progress(done)
            if look.digest is not None:
                seen.setdefault(look.digest, []).append((columns, look.index))
                continue
            # what `read_picture` says of a picture that is whole but of another size
            kind = "size" if "its annotation says" in look.fault else "picture"
            name = columns.files[look.index]
            detail = look.fault.partition(f"{name}: ")[2] or look.fault  # the name is told already
            faults[kind].append(Example(columns.split, name, None, detail, look.index))
        for kind, examples in faults.items():
            yield Flaws(kind, len(examples), tuple(examples))
    yield from _same(seen.values())


def _looks(dataset: Dataset, workers: int) -> Iterator[Look]:
    batches = -(-len(dataset) // AT_ONCE)
    if not batches:  # every entry of the split is at fault
        return
    loader = data.DataLoader(
        Looks(dataset), batch_size=AT_ONCE, num_workers=min(workers, batches - 1), collate_fn=list[Look]
    )
    for batch in loader:
        yield from batch


def _same(groups: Iterable[Sequence[tuple[Columns, int]]]) -> Iterator[Flaws]:
    """Yield the pictures that are in several splits, and those that are in one more than once."""
    leaks: list[Example] = []
    repeats: list[Example] = []
    for places in groups:
        firsts = {columns.split: (columns, index) for columns, index in reversed(places)}
        for columns, index in places:
            first = firsts[columns.split][1]
            if index != first:
                detail = f"the same picture as {columns.files[first]}"
                repeats.append(Example(columns.split, columns.files[index], None, detail, index))
        if len(firsts) > 1:
            columns, index = places[0]
            others = [f"{other.files[at]} in {split}" for split, (other, at) in firsts.items() if other is not columns]
            detail = f"the same picture as {' and '.join(sorted(others))}"
            leaks.append(Example(columns.split, columns.files[index], None, detail, index))
    yield Flaws("leak", len(leaks), tuple(leaks))
    yield Flaws("repeated", len(repeats), tuple(repeats))
