"""Loggers beside metrics.csv: TensorBoard always, others by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lightning.fabric.loggers.logger import Logger
from lightning.fabric.loggers.tensorboard import TensorBoardLogger

from gfocal.errors import UserError, unknown


def tensorboard(out: Path) -> TensorBoardLogger:
    """Return TensorBoard's logger, which writes to `out`/tensorboard."""
    return TensorBoardLogger(out, name="", version="tensorboard")


def make_loggers(names: Sequence[str], out: Path) -> list[Logger]:
    """Return the loggers that are named; UserError for one whose package is missing."""
    return [_make(name, out) for name in names]


def check_loggers(names: Sequence[str]) -> None:
    """Raise UserError for an unknown logger."""
    for name in names:
        if name not in LOGGERS:
            raise unknown("logger", name, LOGGERS)


def _make(name: str, out: Path) -> Logger:
    try:
        return LOGGERS[name](out)
    except ModuleNotFoundError as error:
        raise UserError(f"--logger {name}: its package is not installed: pip install {name}") from error


def _wandb(out: Path) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    return WandbLogger(name=out.name, save_dir=str(out), project="gfocal")


def _mlflow(out: Path) -> Logger:
    from lightning.pytorch.loggers import MLFlowLogger

    return MLFlowLogger(experiment_name="gfocal", run_name=out.name, save_dir=str(out / "mlruns"))


LOGGERS: Mapping[str, Callable[[Path], Logger]] = {"wandb": _wandb, "mlflow": _mlflow}
