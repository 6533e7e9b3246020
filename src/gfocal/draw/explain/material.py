"""What is to be explained of one picture: its boxes before and after suppression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from gfocal.structures import Detections, Truth


@dataclass(frozen=True)
class Explained:
    """One picture, what a detector found in it, and what that was chosen from.

    picture: (h, w, 3) uint8 RGB; everything else is in its pixels. before: the n candidates of suppression. after: the
    k boxes that suppression left, best first. source: (k,) which candidate each of `after` was. class_scores:
    (n, classes) in 0..1 of each candidate's location, or None where not known. overlap: the IoU from where on a box
    takes out another of its class, by which the page says which box a candidate gave way to.
    """

    name: str
    picture: NDArray[np.uint8]
    before: Detections
    after: Detections
    source: Int[Tensor, " k"]
    class_scores: Float[Tensor, "n c"] | None = None
    truth: Truth | None = None
    overlap: float = 0.6

    def __post_init__(self) -> None:
        if len(self.source) != len(self.after):
            raise ValueError(f"source has {len(self.source)} rows, after has {len(self.after)}")
        if len(self.source) and not 0 <= int(self.source.min()) <= int(self.source.max()) < len(self.before):
            raise ValueError(f"source must lie in 0..{len(self.before) - 1}, one of the candidates each")
        if self.class_scores is not None and len(self.class_scores) != len(self.before):
            raise ValueError(f"class_scores has {len(self.class_scores)} rows, before has {len(self.before)}")
