"""The moving average of the weights, which is often better than the weights themselves."""

from __future__ import annotations

import copy
from typing import Any, final

import torch
from torch import Tensor

from gfocal.detector import Detector


@final
class Average:
    """A copy of a detector that follows it: each step it moves by 1 - decay towards it.

    decay: below 1; lower in the first steps, min(decay, (1 + n) / (10 + n)), so that the start is soon forgotten.
    """

    def __init__(self, detector: Detector, decay: float) -> None:
        self.detector = copy.deepcopy(detector).requires_grad_(False)
        self.decay = decay
        self.count = 0

    @torch.no_grad()
    def update(self, detector: Detector) -> None:
        """Move towards the detector as it is after a step."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        pairs = list(zip(self.detector.state_dict().values(), detector.state_dict().values(), strict=True))
        numbers: list[tuple[Tensor, Tensor]] = [(own, new) for own, new in pairs if own.is_floating_point()]
        torch._foreach_lerp_([own for own, _ in numbers], [new for _, new in numbers], 1 - decay)  # pyright: ignore  what torch.optim itself uses
        for own, new in pairs:
            if not own.is_floating_point():
                own.copy_(new)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        return {"count": self.count, "detector": self.detector.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a former state."""
        self.count = state["count"]
        self.detector.load_state_dict(state["detector"])
