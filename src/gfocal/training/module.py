"""What one training step and one validation are, for Lightning."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from gfocal.config import ScheduleConfig
from gfocal.data.collate import Batch
from gfocal.data.dataset import Dataset
from gfocal.evaluation import CocoEvaluator, Metrics
from gfocal.model import Model


@final
class DetectorModule(lightning.LightningModule):
    """A model's detector under training; the criterion and post-processing come along without being copied.

    dataset: the validation set, whose truths its batches stand for. total_steps: length of the run, for the schedule.
    """

    def __init__(self, model: Model, dataset: Dataset | None, *, schedule: ScheduleConfig, total_steps: int) -> None:
        super().__init__()
        self.detector = model.detector
        self.model = model
        self.dataset = dataset
        self.schedule = schedule
        self.total_steps = total_steps
        self.evaluator = CocoEvaluator(model.class_names)
        self.metrics: Metrics | None = None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the sum of the losses and log each."""
        images = batch.images.to(memory_format=torch.channels_last)
        losses = self.model.criterion(self.detector(images), batch.truths)
        total = torch.stack(list(losses.values())).sum()
        self.log_dict({f"train/{name}": loss.detach() for name, loss in losses.items()}, batch_size=len(batch))
        self.log("train/loss", total.detach(), batch_size=len(batch))
        return total

    def on_validation_epoch_start(self) -> None:
        """Begin to collect anew."""
        self.evaluator = CocoEvaluator(self.model.class_names)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the detections of a batch in the pictures' own pixels."""
        assert self.dataset is not None
        raw = self.detector(batch.images.to(memory_format=torch.channels_last))
        detections = self.model.postprocess(raw, batch.sizes, scales=batch.scales)
        for index, found in zip(batch.indices, detections, strict=True):
            self.evaluator.add(self.dataset.truth(index), found.cpu())

    def on_validation_epoch_end(self) -> None:
        """Score what was collected and log AP."""
        self.metrics = self.evaluator.metrics()
        for name in ("ap", "ap50", "ap75"):
            value = getattr(self.metrics, name)
            self.log(f"val/{name}", 0.0 if math.isnan(value) else value)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the recipe's optimiser and its learning rate for each step."""
        schedule = self.schedule
        learning = [p for p in self.detector.parameters() if p.requires_grad]
        if schedule.optimizer == "sgd":
            optimizer: torch.optim.Optimizer = torch.optim.SGD(
                learning, lr=schedule.lr, momentum=schedule.momentum, weight_decay=schedule.weight_decay
            )
        else:
            # norms and biases have no scale to shrink; weight decay there only hurts short runs
            groups = [
                {"params": [p for p in learning if p.ndim > 1], "weight_decay": schedule.weight_decay},
                {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
            ]
            optimizer = torch.optim.AdamW(groups, lr=schedule.lr, fused=True)
        factor = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(schedule, self.total_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": factor, "interval": "step"}}


def learning_rate_factor(schedule: ScheduleConfig, total_steps: int) -> Callable[[int], float]:
    """Return the factor on the learning rate at each step, from 0: linear warm-up, then the recipe's decay."""
    warmup = min(schedule.warmup, total_steps // 5)

    def factor(step: int) -> float:
        share = step / max(total_steps, 1)
        if schedule.decay == "cosine":
            decayed = (1 + math.cos(math.pi * min(share, 1.0))) / 2
        else:
            decayed = 0.1 ** sum(share >= milestone for milestone in schedule.milestones)
        if step >= warmup:
            return decayed
        return decayed * (schedule.warmup_factor + (1 - schedule.warmup_factor) * step / warmup)

    return factor
