"""Which weights of a run are kept as files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, final

from gfocal.evaluation import Metrics
from gfocal.model import Model


@final
class Keeper:
    """Writes best.safetensors after each validation that brought the highest AP yet, and last.safetensors.

    model: whose weights are kept. patience: validations without a better AP after which the run has had enough, or
    None. writes: whether this process does; the others only count along.
    """

    def __init__(self, model: Model, out: Path, *, patience: int | None, writes: bool) -> None:
        self.model = model
        self.out = out
        self.patience = patience
        self.writes = writes
        self.best = -math.inf
        self.since = 0

    @property
    def has_enough(self) -> bool:
        """Whether the last `patience` validations brought nothing."""
        return self.patience is not None and self.since >= self.patience

    def validated(self, metrics: Metrics) -> None:
        """Take in the figures of the weights as they are."""
        ap = 0.0 if math.isnan(metrics.ap) else float(metrics.ap)
        self.since += 1
        self.save("last")
        if ap > self.best:
            self.best, self.since = ap, 0
            self.save("best")

    def save(self, name: str) -> None:
        """Write NAME.safetensors."""
        if self.writes:
            self.model.save(self.out / f"{name}.safetensors")

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        return {"best": self.best, "since": self.since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a former state."""
        self.best, self.since = state["best"], state["since"]
