"""A loss that is not a number ends the run before it spoils the weights, and leaves behind what reproduces it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from gfocal.data.collate import Batch
from gfocal.data.pictures import path_text
from gfocal.devices import autocast, precision_name
from gfocal.distributed import mean_over_ranks, wait_for_all
from gfocal.errors import UserError
from gfocal.model import Model
from gfocal.training.state import save_tensors

FORMAT = "gfocal-replay-1"


@final
class Guard:
    """Looks at the losses of a step before the weights move.

    A loss of any process ends all of them, because what it does to the gradients reaches all of them. On a GPU the look
    waits for the forward pass alone: the backward pass is queued behind it and goes on meanwhile. dtype: what the step
    is done in. path: the file that this process writes on failure.
    """

    def __init__(self, model: Model, *, dtype: torch.dtype, path: Path) -> None:
        self.model = model
        self.dtype = dtype
        self.path = path
        self._flags: list[tuple[Tensor, Tensor, torch.cuda.Event | None]] = []

    def watch(self, total: Tensor) -> None:
        """Take note of whether the loss of a batch is finite in all processes, without waiting for it."""
        own = torch.isfinite(total.detach())
        finite = mean_over_ranks(own.float()) == 1
        if not finite.is_cuda:
            self._flags.append((own, finite, None))
            return
        flag = torch.empty((), dtype=torch.bool, pin_memory=True)
        flag.copy_(finite, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._flags.append((own, flag, event))

    def check(self, batches: Sequence[Batch], step: int) -> None:
        """Raise UserError where a loss since the last check was not finite, with a file that reproduces it."""
        flags, self._flags = self._flags, []
        for batch, (own, flag, event) in zip(batches, flags, strict=True):
            if event is not None:
                event.synchronize()
            if not flag:
                terms = self._terms(batch)  # in all processes, because they add up what losses are divided by
                elsewhere = UserError(f"step {step}: the loss is not finite in another process, which says more")
                failure = elsewhere if own else self._failure(batch, step, terms)
                wait_for_all()  # the first process to end may take the others with it
                raise failure

    def _failure(self, batch: Batch, step: int, terms: Mapping[str, float]) -> UserError:
        """Write what reproduces the step and return what to say of it."""
        names = ", ".join(map(path_text, batch.names[:8])) + (f" and {len(batch) - 8} more" if len(batch) > 8 else "")
        shown = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
        spoilt = [name for name, value in self.model.detector.named_parameters() if not value.isfinite().all()]
        cause = f"; the weights are not finite either, since the step before: {spoilt[0]}" if spoilt else ""
        write_replay(self.path, self.model, batch, step=step, precision=precision_name(self.dtype))
        return UserError(
            f"step {step}: the loss is not finite ({shown}) on {names}{cause}. `gfocal train --replay {self.path}` "
            "does the step again and says where it starts; a lower learning rate, `clip_norm` or precision 'float32' "
            "may avoid it"
        )

    @torch.no_grad()
    def _terms(self, batch: Batch) -> Mapping[str, float]:
        with autocast(self.dtype, batch.images.device):
            losses = self.model.criterion(self.model.detector(batch.images), batch.truths)
        return {name: loss.item() for name, loss in losses.items()}


def write_replay(path: Path, model: Model, batch: Batch, *, step: int, precision: str) -> None:
    """Write weights and batch so that the step can be done again anywhere."""
    content = {
        "format": FORMAT,
        "step": step,
        "precision": precision,
        "recipe": model.recipe.to_yaml(),
        "weights": model.detector.state_dict(),
        "images": batch.images,
        "truths": batch.truths,
        "names": batch.names,
    }
    save_tensors(path, content)
