"""What happens beside the training: progress on the screen, weights on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

from lightning.pytorch import Callback, LightningModule, Trainer

from gfocal.model import Model
from gfocal.progress import ProgressBar


@final
class ShowProgress(Callback):
    """A bar over all steps of the run with the time left, the loss and the last AP."""

    def __init__(self, total_steps: int) -> None:
        self.bar = ProgressBar(total_steps, "training")
        self.total_steps = total_steps
        self.note = ""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        self.bar.__enter__()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move on; the loss is read only now and then, because reading it waits for the device."""
        step = trainer.global_step
        if step % 20 == 0 or step == self.total_steps:
            values = trainer.callback_metrics
            ap = f"  AP {100 * float(values['val/ap']):.1f}" if "val/ap" in values else ""
            self.note = f"loss {float(values['train/loss']):.3f}{ap}"
        self.bar.update(step, self.note)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the finished bar on the screen."""
        self.bar.__exit__(None, None, None)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the terminal back."""
        self.bar.__exit__(None, None, None)


@final
class SaveWeights(Callback):
    """Writes last.safetensors after each validation and at the end, best.safetensors where AP is the highest yet."""

    def __init__(self, model: Model, out: Path) -> None:
        self.model = model
        self.out = out
        self.best = -1.0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after a validation."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        self.model.save(self.out / "last.safetensors")
        ap = float(trainer.callback_metrics["val/ap"])
        if ap > self.best:
            self.best = ap
            self.model.save(self.out / "best.safetensors")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the weights the run ends with."""
        if trainer.is_global_zero:
            self.model.save(self.out / "last.safetensors")
