"""Loggers beside metrics.csv: TensorBoard always, others by name."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lightning.fabric.loggers.logger import Logger
from lightning.fabric.loggers.tensorboard import TensorBoardLogger

from gfocal.errors import UserError, unknown


def tensorboard(out: Path) -> TensorBoardLogger:
    """Return TensorBoard's logger, which writes to `out`/tensorboard."""
    return TensorBoardLogger(out, name="", version="tensorboard")


def make_loggers(names: Sequence[str], out: Path, settings: Mapping[str, object]) -> list[Logger]:
    """Return the loggers that are named, which `check_loggers` has let pass; they are told how the run is done."""
    loggers = [LOGGERS[name](out) for name in names]
    for logger in loggers:
        logger.log_hyperparams(dict(settings))
    return loggers


def check_loggers(names: Sequence[str]) -> None:
    """Raise UserError for an unknown logger, or one whose package is not installed."""
    for name in names:
        if name not in LOGGERS:
            raise unknown("logger", name, LOGGERS)
        if importlib.util.find_spec(name) is None:
            raise UserError(f"logger {name!r}: its package is not installed: pip install {name}")


def _wandb(out: Path) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    return WandbLogger(name=out.name, save_dir=str(out), project="gfocal")


def _mlflow(out: Path) -> Logger:
    from lightning.pytorch.loggers import MLFlowLogger

    # plain folders, Lightning's default, are refused by MLflow 3
    database = f"sqlite:///{(out / 'mlflow.db').resolve()}"
    return MLFlowLogger(
        experiment_name="gfocal", run_name=out.name, tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", database)
    )


LOGGERS: Mapping[str, Callable[[Path], Logger]] = {"wandb": _wandb, "mlflow": _mlflow}
