"""One step of training: several batches to one movement of the weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from gfocal.criterion import Criterion
from gfocal.data.collate import Batch
from gfocal.detector import Detector
from gfocal.devices import autocast
from gfocal.errors import UserError, first_line
from gfocal.structures import Raw
from gfocal.training.guard import Guard

logger = logging.getLogger(__name__)


@final
class Learner(nn.Module):
    """What is trained: from pictures and truths to named losses; one module, so that processes can share its gradients.

    dtype: of convolutions. compiled: whether PyTorch compiles the detector; where it cannot, the run does without.
    """

    def __init__(self, detector: Detector, criterion: Criterion, dtype: torch.dtype, *, compiled: bool = False) -> None:
        super().__init__()
        self.detector = detector
        self.criterion = criterion
        self.dtype = dtype
        self._compiled: Callable[[Tensor], Raw] | None = torch.compile(detector.forward) if compiled else None

    def forward(self, images: Tensor, truths: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return the losses of a batch (b, 3, h, w), as `Criterion` gives them."""
        with autocast(self.dtype, images.device):
            return self.criterion(self._found(images), truths)

    def _found(self, images: Tensor) -> Raw:
        if self._compiled is None:
            return outputs(self.detector, images)
        try:
            return self._compiled(images)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # what PyTorch raises for all that its compilers complain of
            logger.warning("PyTorch cannot compile here (%s): going on without", first_line(error))
            self._compiled = None
            return outputs(self.detector, images)


def outputs(detector: Detector, images: Tensor) -> Raw:
    """Return what a detector that learns puts out; UserError where a batch norm is left with one value a channel."""
    try:
        return detector(images)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        height, width = images.shape[2:]
        raise UserError(
            f"one picture of {height} × {width} pixels at a time leaves batch norms one value a channel, which has "
            "no variance: give a larger --batch or --size"
        ) from error


@final
class Stepper:
    """Moves the weights of a learner; scales the loss where the precision is float16, whose gradients would vanish.

    learner: as set up by the fabric. optimizer: of its parameters. scheduler: of the learning rate, a step each.
    clip_norm: bound of the gradient's norm, or None. guard: looks at each loss before the weights move.
    """

    def __init__(
        self,
        fabric: Fabric,
        learner: nn.Module,
        *,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        scaler: torch.amp.GradScaler,
        clip_norm: float | None,
        guard: Guard,
    ) -> None:
        self.fabric = fabric
        self.learner = learner
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.scaler = scaler
        self.clip_norm = clip_norm
        self.guard = guard

    def __call__(self, batches: Sequence[Batch], step: int) -> dict[str, Tensor]:
        """Learn from the batches together and return their mean losses, detached; UserError for a loss of NaN."""
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(batches, start=1):
            images = batch.images.to(memory_format=torch.channels_last)
            with self.fabric.no_backward_sync(self.learner, enabled=number < len(batches)):  # type: ignore[arg-type]  set up by the fabric
                losses = self.learner(images, batch.truths)
                total = torch.stack(list(losses.values())).sum()
                self.guard.watch(total)
                self.fabric.backward(self.scaler.scale(total / len(batches)))
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0) + loss.detach() / len(batches)
        self.guard.check(batches, step)
        if self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.scheduler.step()
        return sums
