"""The val split scored in the course of a run, each process its share."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch.distributed
from torch.utils.data import DataLoader

from gfocal.data.collate import Batch
from gfocal.data.dataset import Dataset
from gfocal.errors import UserError
from gfocal.evaluation import CocoEvaluator, Metrics
from gfocal.model import Model
from gfocal.structures import Detections
from gfocal.training.journal import VALIDATED

logger = logging.getLogger(__name__)


def validate(model: Model, dataset: Dataset, loader: DataLoader[Batch | None], *, precision: str) -> Metrics:
    """Return the metrics of a data set, of which the loader yields this process's share.

    Pictures that it leaves out do not count; UserError where it leaves out all.
    """
    found: dict[int, Detections] = {}
    for batch in filter(None, loader):
        raw = model.forward(batch.images, precision=precision)
        for index, one in zip(batch.indices, model.postprocess(raw, batch.sizes, scales=batch.scales), strict=True):
            found[index] = replace(one.cpu(), edges=None)
    evaluator = CocoEvaluator(model.class_names)
    together = _of_all_processes(found)
    if missing := len(dataset) - len(together):
        logger.warning("%d pictures of the val split cannot be read and do not count", missing)
    if not together:
        raise UserError("no picture of the val split can be read")
    for index in sorted(together):
        evaluator.add(dataset.truth(index), together[index])
    return evaluator.metrics()


def figures_of(metrics: Metrics) -> Mapping[str, float]:
    """Return what the journal writes of a validation; 0 where there is nothing to find."""
    values = (metrics.ap, metrics.ap50, metrics.ap75)
    return {name: 0.0 if math.isnan(value) else value for name, value in zip(VALIDATED, values, strict=True)}


def _of_all_processes(found: dict[int, Detections]) -> dict[int, Detections]:
    if not torch.distributed.is_initialized():
        return found
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, found)
    return {index: one for part in parts for index, one in part.items()}
