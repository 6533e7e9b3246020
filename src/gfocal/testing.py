"""A model over a data set: its detections, and their COCO metrics."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from gfocal.data.collate import Batch, collate
from gfocal.data.dataset import Dataset
from gfocal.data.examples import EvaluationExamples
from gfocal.data.opening import open_dataset
from gfocal.errors import UserError
from gfocal.evaluation import CocoEvaluator, Metrics
from gfocal.files import whole_or_absent
from gfocal.loading import load
from gfocal.model import Model
from gfocal.predictor import Predictor
from gfocal.structures import Detections, Truth
from gfocal.tta import Augmentation, predict_augmented


def detect(
    model: Predictor,
    dataset: Dataset,
    *,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    workers: int = 0,
    precision: str | None = None,
) -> Iterator[tuple[Truth, Detections]]:
    """Yield the truth and the detections of each picture of a data set, in its order and its own pixels.

    size: (short, long), None for the recipe's. batch: pictures at once. workers: processes that read pictures.
    """
    for group in _groups(model, dataset, size=size, batch=batch, workers=workers):
        found = model.find(group.images, group.sizes, scales=group.scales, precision=precision)
        yield from zip(map(dataset.truth, group.indices), found, strict=True)


def detect_candidates(model: Model, dataset: Dataset) -> Iterator[tuple[Truth, Detections]]:
    """Yield what `detect` does, before suppression: all candidates, in no order."""
    for group in _groups(model, dataset):
        found = model.postprocess.candidates(model.forward(group.images), group.sizes, scales=group.scales)
        yield from zip(map(dataset.truth, group.indices), (model.calibrated(one.cpu()) for one in found), strict=True)


def _groups(
    model: Predictor, dataset: Dataset, *, size: tuple[int, int] | None = None, batch: int = 1, workers: int = 0
) -> Iterable[Batch]:
    """Return the pictures of a data set, prepared for a model."""
    examples = EvaluationExamples(dataset, model.prepare(size))
    return DataLoader(examples, batch_size=batch, num_workers=workers, collate_fn=collate)


def detect_augmented(
    model: Model,
    dataset: Dataset,
    augmentation: Augmentation,
    *,
    size: tuple[int, int] | None = None,
    precision: str | None = None,
) -> Iterator[tuple[Truth, Detections]]:
    """Yield what `detect` does, found in several views of each picture."""
    for index in range(len(dataset)):
        picture = dataset.picture(index)
        yield dataset.truth(index), predict_augmented(model, picture, augmentation, size=size, precision=precision)


def evaluate(
    model: Predictor | str | Path,
    data: str | Path | Dataset,
    split: str = "val",
    *,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    workers: int = 0,
    precision: str | None = None,
    augmentation: Augmentation | None = None,
    save: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Metrics:
    """Return the COCO metrics of a model on a split of a data set.

    model: what `gfocal.load` returns or takes. data: what --data takes, or an open data set. augmentation: the views
    of test-time augmentation, one picture at a time. save: also write the detections as a COCO results file, which
    the evaluation server of test-dev takes. progress: called with the number of pictures done. UserError where the
    classes of the data set are not the model's, or the file cannot be written; where that turns out after the last
    picture, a warning tells the metrics.
    """
    model = model if isinstance(model, Predictor) else load(model)
    dataset = open_for(model, data, split)
    evaluator = CocoEvaluator(dataset.class_names)
    if augmentation is None:
        pairs = detect(model, dataset, size=size, batch=batch, workers=workers, precision=precision)
    elif not isinstance(model, Model):
        raise UserError("test-time augmentation joins views before suppression, which exported files do not hand out")
    else:
        pairs = detect_augmented(model, dataset, augmentation, size=size, precision=precision)
    metrics = None
    try:
        with nullcontext() if save is None else _results_file(save) as append:
            for done, (truth, found) in enumerate(pairs, start=1):
                evaluator.add(truth, found)
                if append is not None:
                    append(found.to_coco(truth.image_id, dataset.category_ids))
                if progress is not None:
                    progress(done)
            metrics = evaluator.metrics()
    except UserError:
        if metrics is not None:  # hours of work may have gone into them
            logger.warning("%s", metrics.table())
        raise
    return metrics


@contextmanager
def _results_file(path: Path) -> Generator[Callable[[list[dict[str, Any]]], None]]:
    """Yield what appends detections to a COCO results file, which is written whole or not at all.

    UserError where it cannot be written: at once, or in the end where the disk fills up meanwhile.
    """
    faults: list[OSError] = []
    before = chain("[", repeat(", "))
    with whole_or_absent(path) as scratch, scratch.open("w", encoding="utf-8") as file:

        def append(rows: list[dict[str, Any]]) -> None:
            try:
                for row in rows if not faults else ():
                    file.write(next(before) + json.dumps(row))
            except OSError as error:
                faults.append(error)

        yield append
        if faults:
            raise faults[0]
        file.write("[]" if next(before) == "[" else "]")


logger = logging.getLogger(__name__)


def open_for(model: Predictor, data: str | Path | Dataset, split: str) -> Dataset:
    """Open what --data takes, or take an open data set; UserError where its classes are not the model's."""
    dataset = open_dataset(data, split) if isinstance(data, str | Path) else data
    check_classes(model.class_names, dataset.class_names, where=str(data) if isinstance(data, str | Path) else "data")
    return dataset


def check_classes(model: tuple[str, ...], data: tuple[str, ...], *, where: str) -> None:
    """Raise UserError where a data set's classes are not the model's, in the same order."""
    if len(model) != len(data):
        raise UserError(f"{where}: the data set has {len(data)} classes, the model {len(model)}")
    for label, (ours, theirs) in enumerate(zip(model, data, strict=True)):
        if ours != theirs:
            raise UserError(f"{where}: class {label} is {theirs!r} in the data set but {ours!r} in the model")
