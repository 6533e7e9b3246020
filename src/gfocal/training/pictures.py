"""What the detector finds in a few pictures in the course of a run, for TensorBoard."""

from __future__ import annotations

import numpy as np
from lightning.fabric.loggers.tensorboard import TensorBoardLogger

from gfocal.data.dataset import Dataset
from gfocal.data.pictures import path_text
from gfocal.draw.pictures import draw_detections
from gfocal.errors import UserError
from gfocal.model import Model

SHOWN = 4
THRESHOLD = 0.3


def show(model: Model, dataset: Dataset, logger: TensorBoardLogger, step: int, *, precision: str) -> None:
    """Log the first pictures of a data set with boxes, edge distributions and truth, as `val/NAME`."""
    for index in range(min(SHOWN, len(dataset))):
        truth = dataset.truth(index)
        try:
            picture = dataset.picture(index)
        except UserError:
            continue  # the validation has told of it, or leaves it out
        found = model.predict(picture, threshold=THRESHOLD, precision=precision)
        drawn = draw_detections(picture, found, threshold=THRESHOLD, truth=truth)
        logger.experiment.add_image(f"val/{path_text(truth.name)}", np.asarray(drawn), step, dataformats="HWC")
