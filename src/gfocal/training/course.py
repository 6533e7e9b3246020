"""A run that is ready to go: everything its steps need, put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers.tensorboard import TensorBoardLogger
from torch.utils.data import DataLoader

from gfocal.config import PicturesConfig
from gfocal.data.collate import Batch
from gfocal.data.dataset import Dataset, orientations
from gfocal.devices import precision_name
from gfocal.evaluation import Metrics
from gfocal.model import Model
from gfocal.training.average import Average
from gfocal.training.guard import Guard
from gfocal.training.journal import Journal
from gfocal.training.keeping import Keeper
from gfocal.training.left_out import LeftOut
from gfocal.training.loaders import training_loader, validation_loader
from gfocal.training.logs import make_loggers, tensorboard
from gfocal.training.optimizer import freeze, learning_rate_factor, make_optimizer
from gfocal.training.order import Order
from gfocal.training.pictures import show
from gfocal.training.settings import Settings
from gfocal.training.step import Learner, Stepper
from gfocal.training.validation import validate


@dataclass(frozen=True)
class Course:
    """A run that is ready to go.

    accumulate: batches of the loader to a step. total_steps: length; start: steps done before. validations: how many,
    evenly spaced, the last one at the end. save_every: steps between saved states, 0 for never. validate: scores the
    weights that are kept, None where there is nothing to score them on; show: logs pictures of what they find, at a
    step.
    """

    fabric: Fabric
    model: Model
    stepper: Stepper
    average: Average | None
    loader: DataLoader[Batch]
    journal: Journal
    keeper: Keeper
    left_out: LeftOut
    validate: Callable[[], Metrics] | None
    show: Callable[[int], None] | None
    out: Path
    seed: int
    accumulate: int
    total_steps: int
    start: int
    validations: int
    save_every: int

    def state(self, step: int) -> dict[str, Any]:
        """Return all that going on after a step needs."""
        return {
            "step": step,
            "recipe": self.model.recipe.to_yaml(),
            "detector": self.model.detector.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.stepper.optimizer.state_dict(),
            "scheduler": self.stepper.scheduler.state_dict(),
            "scaler": self.stepper.scaler.state_dict(),
            "keeper": self.keeper.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take on a state."""
        self.model.detector.load_state_dict(state["detector"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.stepper.optimizer.load_state_dict(state["optimizer"])
        self.stepper.scheduler.load_state_dict(state["scheduler"])
        self.stepper.scaler.load_state_dict(state["scaler"])
        self.keeper.load_state_dict(state["keeper"])


def make_course(
    fabric: Fabric,
    model: Model,
    settings: Settings,
    *,
    train_data: Dataset,
    val_data: Dataset | None,
    out: Path,
    dtype: torch.dtype,
    step: int,
) -> Course:
    """Put together what the steps of a run need, the first `step` of which are done."""
    schedule, writes = model.recipe.schedule, fabric.is_global_zero
    total = schedule.steps or max(round(schedule.epochs * len(train_data) / schedule.batch), 1)
    stepper = _stepper(fabric, model, dtype=dtype, total=total, out=out, compiled=settings.compile)
    average = None if schedule.average is None else Average(model.detector, schedule.average)
    kept = (
        model
        if average is None
        else Model(model.recipe, replace(model.parts, detector=average.detector), fabric.device)
    )
    board = tensorboard(out) if writes else None
    told = model.recipe.model_dump(mode="json") | {"run": asdict(settings)}
    logs = [board, *make_loggers(settings.loggers, out, told)] if board is not None else []
    judging = _judging(fabric, kept, settings, val_data=val_data, board=board, dtype=dtype)
    return Course(
        fabric=fabric,
        model=model,
        stepper=stepper,
        average=average,
        loader=_loader(fabric, train_data, model.recipe.pictures, settings, total=total, step=step),
        journal=Journal(out, logs, total_steps=total, start=step, writes=writes),
        keeper=Keeper(kept, out, patience=schedule.patience, writes=writes),
        left_out=LeftOut(out, rank=fabric.global_rank, goes_on=step > 0),
        validate=judging.validate,
        show=judging.show,
        out=out,
        seed=settings.seed,
        accumulate=settings.accumulate,
        total_steps=total,
        start=step,
        validations=schedule.validations,
        save_every=settings.save_every,
    )


def _stepper(fabric: Fabric, model: Model, *, dtype: torch.dtype, total: int, out: Path, compiled: bool) -> Stepper:
    """Return what moves the weights, of the parts that are not frozen."""
    schedule = model.recipe.schedule
    freeze(model.detector, schedule.freeze)
    optimizer = make_optimizer(model.detector, schedule)
    return Stepper(
        fabric,
        fabric.setup_module(Learner(model.detector, model.criterion, dtype, compiled=compiled)),
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(schedule, total)),
        scaler=torch.amp.GradScaler(fabric.device.type, enabled=dtype is torch.float16),
        clip_norm=schedule.clip_norm,
        guard=Guard(model, dtype=dtype, path=out / f"replay-{fabric.global_rank}.pt"),
    )


def _loader(
    fabric: Fabric, train_data: Dataset, pictures: PicturesConfig, settings: Settings, *, total: int, step: int
) -> DataLoader[Batch]:
    """Return the batches of the steps of a run, of `total` those after the first `step`."""
    order = Order(
        len(train_data),
        batch=settings.batch,
        steps=total * settings.accumulate,
        seed=settings.seed,
        rank=fabric.global_rank,
        ranks=fabric.world_size,
        start=step * settings.accumulate,
        mixed=round(pictures.mixing_until * total) * settings.accumulate,
        # upright pictures beside wide ones would fill a third of the batch with padding
        groups=orientations(train_data) if pictures.keep_aspect else None,
    )
    return training_loader(
        train_data,
        pictures,
        order,
        workers=settings.workers,
        pin_memory=fabric.device.type == "cuda",
        skip=settings.on_bad_data == "skip",
    )


class _Judging(NamedTuple):
    """What scores the weights of a run, and what shows at a step what they find; None where nothing does."""

    validate: Callable[[], Metrics] | None
    show: Callable[[int], None] | None


def _judging(
    fabric: Fabric,
    kept: Model,
    settings: Settings,
    *,
    val_data: Dataset | None,
    board: TensorBoardLogger | None,
    dtype: torch.dtype,
) -> _Judging:
    """Return how the model whose weights are kept is judged on the val split. board: what shows pictures."""
    if val_data is None or not kept.recipe.schedule.validations:
        return _Judging(None, None)
    precision = precision_name(dtype)
    loader = validation_loader(
        val_data,
        kept.prepare(),
        batch=settings.batch,
        workers=settings.workers,
        pin_memory=fabric.device.type == "cuda",
        skip=settings.on_bad_data == "skip",
        rank=fabric.global_rank,
        ranks=fabric.world_size,
    )
    return _Judging(
        partial(validate, kept, val_data, loader, precision=precision),
        None if board is None else partial(show, kept, val_data, board, precision=precision),
    )
