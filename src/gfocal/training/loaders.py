"""The loaders of a run: training pictures without end in their order, validation pictures once."""

from __future__ import annotations

import signal
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import cv2
from torch.utils.data import DataLoader, Subset

from gfocal.config import PicturesConfig
from gfocal.data.collate import Batch, Example, collate
from gfocal.data.dataset import Dataset
from gfocal.data.examples import EvaluationExamples, TrainingExamples
from gfocal.data.mixing import mixing
from gfocal.data.preparing import Prepare
from gfocal.data.transforms import TrainTransform, mean_colour
from gfocal.training.order import Order

VALIDATION_BATCH = 8
GRACE = 20
"""Seconds."""


def training_loader(
    dataset: Dataset, pictures: PicturesConfig, order: Order, *, workers: int, pin_memory: bool, skip: bool
) -> DataLoader[Batch]:
    """Return augmented batches in an order. skip: whether pictures that cannot be read are stood in for."""
    transform = TrainTransform(
        short=pictures.train_short,
        long=pictures.long,
        mean=pictures.mean,
        std=pictures.std,
        bgr=pictures.bgr,
        upscale=pictures.upscale,
        keep_aspect=pictures.keep_aspect,
        flip=pictures.flip,
        vertical_flip=pictures.vertical_flip,
        expand=pictures.expand,
        expand_max=pictures.expand_max,
        iou_crop=pictures.iou_crop,
        jitter=pictures.jitter,
        jitter_size=pictures.jitter_size,
        color=pictures.color,
        distort=pictures.distort,
    )
    mix = mixing(
        mosaic=pictures.mosaic,
        mixup=pictures.mixup,
        mosaic_canvas=pictures.mosaic_canvas,
        fill=mean_colour(pictures.mean, bgr=pictures.bgr),
    )
    return DataLoader(
        TrainingExamples(dataset, transform, mix=mix, skip=skip),  # type: ignore[arg-type]  collate makes batches
        batch_sampler=order,  # type: ignore[arg-type]  of draws instead of indices
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        worker_init_fn=prepare_worker,
    )


def validation_loader(
    dataset: Dataset,
    prepare: Prepare,
    *,
    batch: int,
    workers: int,
    pin_memory: bool,
    skip: bool,
    rank: int,
    ranks: int,
) -> DataLoader[Batch | None]:
    """Return every picture that falls to a process, once; None for a batch of which, with `skip`, none can be read."""
    examples = EvaluationExamples(dataset, prepare, skip=skip)
    return DataLoader(
        Subset(examples, range(rank, len(examples), ranks)),  # type: ignore[arg-type]  collate makes batches
        batch_size=min(batch, VALIDATION_BATCH),
        num_workers=workers,
        collate_fn=_collate_what_there_is,
        pin_memory=pin_memory,
        worker_init_fn=prepare_worker,
    )


def _collate_what_there_is(examples: Sequence[Example]) -> Batch | None:
    return collate(examples) if examples else None


def prepare_worker(worker: int) -> None:
    """Let a loader's process outlive SIGTERM for a while.

    A system that ends a run sends the signal to all its processes, and the main one still has a step to finish.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE))


@contextmanager
def one_opencv_thread() -> Generator[None]:
    """Let OpenCV use one thread meanwhile, here and in the processes of loaders that start meanwhile.

    Those must not set the number themselves: threads that OpenCV had started here do not survive the fork, and each
    process would wait for their end for ever.
    """
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
