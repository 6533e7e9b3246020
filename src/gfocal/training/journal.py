"""What a run tells while it lasts: curves in files, a bar on the screen."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

import torch
from lightning.fabric.loggers.logger import Logger
from torch import Tensor

from gfocal.distributed import mean_over_ranks
from gfocal.errors import UserError
from gfocal.files import whole_or_absent
from gfocal.progress import ProgressBar

EVERY = 10
"""Steps that a row of the curves stands for; reading the losses makes the device wait, so not each step."""
VALIDATED = ("val/ap", "val/ap50", "val/ap75")


@final
class Journal:
    """Writes metrics.csv, hands the same numbers to loggers and shows progress; only in the first process.

    A row: step, train/loss and each of its terms, as means over `EVERY` steps; lr; step_seconds; data_wait, the share
    of the time (0..1) in which the step waited for its pictures; after a validation its AP, 0..1.
    start: steps done before; rows beyond it, of a run that was interrupted later, are dropped.
    """

    def __init__(self, out: Path, loggers: Sequence[Logger], *, total_steps: int, start: int, writes: bool) -> None:
        self.path = out / "metrics.csv"
        self.loggers = loggers
        self.total_steps = total_steps
        self.writes = writes
        self._bar = ProgressBar(total_steps, "training", start=start)
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._waited = self._worked = 0.0
        self._loss = self._ap = ""
        self._rows = _rows_until(self.path, start) if writes and start else []
        if self._rows:
            self._rewrite()

    def __enter__(self) -> Journal:
        if self.writes:
            self._bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self.writes:
            self._bar.__exit__(None, None, None)
            for logger in self.loggers:
                logger.finalize("success" if error[0] is None else "failed")

    def step(self, step: int, losses: Mapping[str, Tensor], *, lr: float, waited: float, worked: float) -> None:
        """Take in a finished step, counted from 1, and the seconds that it waited for its pictures and worked."""
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss
        self._steps += 1
        self._waited += waited
        self._worked += worked
        if step % EVERY == 0 or step == self.total_steps:
            values = self._means() | {"lr": lr} | self._times()
            self._sums, self._steps, self._waited, self._worked = {}, 0, 0.0, 0.0
            if self.writes:
                self._write(step, values)
        if self.writes:
            self._bar.update(step, f"{self._loss}  {self._ap}".strip())

    def validation(self, step: int, figures: Mapping[str, float]) -> None:
        """Take in AP, AP50 and AP75 under the names of `VALIDATED`."""
        self._ap = f"AP {100 * figures['val/ap']:.1f}"
        if self.writes:
            self._write(step, figures)

    def _means(self) -> dict[str, float]:
        names = list(self._sums)
        values = mean_over_ranks(torch.stack([self._sums[name] for name in names]) / self._steps).tolist()
        self._loss = f"loss {sum(values):.3f}"
        return {"train/loss": sum(values), **{f"train/{n}": v for n, v in zip(names, values, strict=True)}}

    def _times(self) -> dict[str, float]:
        seconds = max(self._waited + self._worked, 1e-9)
        return {"step_seconds": seconds / self._steps, "data_wait": self._waited / seconds}

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        for logger in self.loggers:
            logger.log_metrics(dict(values), step)
        row = {"step": str(step), **{name: f"{value:.6g}" for name, value in values.items()}}
        known = list(self._rows[0]) if self._rows else []
        self._rows.append(row)
        fresh = [name for name in row if name not in known]
        try:
            if fresh:  # the first row, and the first validation, bring columns
                header = dict.fromkeys([*known, *fresh, *VALIDATED], "")
                self._rows[0] = header | self._rows[0]
                self._rewrite()
            else:
                with self.path.open("a", newline="", encoding="utf-8") as file:
                    csv.DictWriter(file, known, lineterminator="\n").writerow(row)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror})") from error

    def _rewrite(self) -> None:
        with whole_or_absent(self.path) as scratch, scratch.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(self._rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows)


def _rows_until(path: Path, step: int) -> list[dict[str, str]]:
    """Return the rows of a former part of the run, up to a step."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values()]  # the last may be cut short
        return [row for row in rows if int(row["step"]) <= step]
