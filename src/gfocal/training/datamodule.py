"""The loaders of a training run, for Lightning."""

from __future__ import annotations

from typing import final

import lightning
from torch.utils.data import DataLoader

from gfocal.config import PicturesConfig
from gfocal.data.collate import Batch, EvaluationExamples, TrainingExamples, collate
from gfocal.data.dataset import Dataset
from gfocal.data.transforms import Prepare, TrainTransform


@final
class DetectionData(lightning.LightningDataModule):
    """Training pictures, shuffled and augmented as the recipe says, and validation pictures in their order."""

    def __init__(
        self,
        train: Dataset,
        val: Dataset | None,
        *,
        pictures: PicturesConfig,
        prepare: Prepare,
        batch: int,
        workers: int,
        pin_memory: bool,
    ) -> None:
        super().__init__()
        transform = TrainTransform(
            short=pictures.train_short,
            long=pictures.long,
            mean=pictures.mean,
            std=pictures.std,
            flip=pictures.flip,
            bgr=pictures.bgr,
            upscale=pictures.upscale,
            keep_aspect=pictures.keep_aspect,
            jitter=pictures.jitter,
            color=pictures.color,
        )
        self.train_examples = TrainingExamples(train, transform)
        self.val_examples = None if val is None else EvaluationExamples(val, prepare)
        self.batch = batch
        self.workers = workers
        self.pin_memory = pin_memory

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled batches; the last one of an epoch is left out where it would be smaller."""
        return DataLoader(
            self.train_examples,  # type: ignore[arg-type]  collate turns examples into batches
            batch_size=self.batch,
            shuffle=True,
            drop_last=len(self.train_examples) >= self.batch,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=collate,
            pin_memory=self.pin_memory,
        )

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Return the validation pictures in order, or nothing where there are none."""
        if self.val_examples is None:
            return []
        return DataLoader(
            self.val_examples,  # type: ignore[arg-type]  collate turns examples into batches
            batch_size=min(self.batch, 8),
            num_workers=self.workers,
            collate_fn=collate,
            pin_memory=self.pin_memory,
        )
