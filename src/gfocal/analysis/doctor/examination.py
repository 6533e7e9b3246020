"""Examining a data set: every split opened, every check made, one report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from gfocal.analysis.doctor.boxes import box_flaws, pictures_without_boxes
from gfocal.analysis.doctor.classes import class_flaws
from gfocal.analysis.doctor.clipping import MUCH, Clipping, clipped_targets, has_bins
from gfocal.analysis.doctor.columns import Columns, columns_of
from gfocal.analysis.doctor.findings import MOST_EXAMPLES, Example, Flaws, gather
from gfocal.analysis.doctor.pictures import picture_flaws
from gfocal.analysis.doctor.report import Report
from gfocal.analysis.doctor.statistics import statistics_of
from gfocal.config import Recipe
from gfocal.data.dataset import Dataset
from gfocal.data.faults import Fault, Faults
from gfocal.data.opening import open_dataset, splits_of
from gfocal.errors import UserError
from gfocal.recipes import get_recipe

RECIPE = "gfl_r50_fpn_1x"
MOST_PICTURES, MOST_BOXES = 500, 20_000
"""Looked at for the bins, where there are more: a second's work."""
PARTS: Mapping[str, tuple[str, ...]] = {"trainval": ("train", "val"), "test-dev": ("test",)}
"""Splits that hold the pictures of others by design (VOC, COCO): left out where those are there."""


def open_splits(data: str | Path) -> tuple[dict[str, Dataset], dict[str, tuple[Fault, ...]]]:
    """Open all splits of the data set that a user named, and return them with the faults of each.

    Splits that are made of others are left out. UserError where a file cannot be understood as a whole.
    """
    names = splits_of(data)
    datasets: dict[str, Dataset] = {}
    faults: dict[str, tuple[Fault, ...]] = {}
    told: set[Fault] = set()
    for name in names:
        if name in PARTS and set(PARTS[name]) <= set(names):
            continue
        collected = Faults(stop=False)
        datasets[name] = open_dataset(data, name, faults=collected)
        # a file that several splits share is told of once
        faults[name] = tuple(fault for fault in collected.found if fault not in told)
        told.update(collected.found)
    return datasets, faults


def examine(
    data: str | Path | Mapping[str, Dataset],
    *,
    recipe: str | Path | Recipe | None = None,
    pictures: bool = True,
    workers: int = 2,
    name: str | None = None,
    faults: Mapping[str, Sequence[Fault]] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Look for all that is wrong with a data set, and return what was found.

    data: what --data takes, or open data sets by split. recipe: whose bins are held against the boxes of the train
    split, None for GFL V1's; from 500 pictures, where there are more. pictures: whether every picture is read, by
    `workers` processes. name: what the report calls the data set, None for `data` itself. faults: of each split, what
    its reader left out, where the data sets are open already (`open_splits`). progress: is told how many pictures were
    read. UserError where the data set or the recipe is none.
    """
    chosen = get_recipe(recipe if recipe is not None else RECIPE)
    named = name or ("data set" if isinstance(data, Mapping) else str(data))
    datasets, noted = (data, faults or {}) if isinstance(data, Mapping) else open_splits(data)
    if not datasets:
        raise UserError(f"{named}: there is no split to examine")
    columns = [columns_of(name, dataset) for name, dataset in datasets.items()]
    clipping = _clipping(datasets, columns, chosen)
    flaws = [*_reader_flaws(noted), *class_flaws(columns), *_clipping_flaws(clipping)]
    for split in columns:
        flaws += [*box_flaws(split), pictures_without_boxes(split)]
    if pictures:
        flaws += picture_flaws(datasets, columns, workers=workers, progress=progress)
    return Report(
        data=named,
        splits={split.split: statistics_of(split) for split in columns},
        findings=gather(flaws),
        clipping=clipping,
        recipe=chosen.name,
        read_pictures=pictures,
    )


def _reader_flaws(faults: Mapping[str, Sequence[Fault]]) -> Iterator[Flaws]:
    for split, found in faults.items():
        by_kind: dict[str, list[Fault]] = {}
        for fault in found:
            by_kind.setdefault(fault.kind, []).append(fault)
        for kind, alike in by_kind.items():
            examples = tuple(Example(split, fault.where, None, fault.what) for fault in alike[:MOST_EXAMPLES])
            yield Flaws(kind, len(alike), examples)


def _clipping(datasets: Mapping[str, Dataset], splits: Sequence[Columns], recipe: Recipe) -> Clipping | None:
    """Return what the bins clip of what is learnt: of the train split, or of the first where there is none."""
    learnt = next((split for split in splits if split.split == "train"), splits[0])
    if not has_bins(recipe) or not learnt.learnt.any():
        return None
    pictures = len(learnt.files)
    most = min(MOST_PICTURES, max(pictures * MOST_BOXES // len(learnt.boxes), 1))
    return clipped_targets(datasets[learnt.split], recipe, pictures=most)


def _clipping_flaws(clipping: Clipping | None) -> Iterator[Flaws]:
    if clipping is not None and clipping.share > MUCH:
        yield Flaws("clipped", clipping.clipped)
