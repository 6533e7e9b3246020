"""A detector compiled by PyTorch: minutes before the first picture, for runs that are long enough to pay for them."""

from __future__ import annotations

import logging
from typing import final

import torch
from torch import Tensor

from gfocal.detector import Detector
from gfocal.errors import first_line
from gfocal.runtime.eager import accelerated, folded
from gfocal.structures import Raw

logger = logging.getLogger(__name__)


@final
class Compiled:
    """Compiles a detector for the sizes of the pictures it meets; does without where there is no compiler."""

    def __init__(self, detector: Detector, dtype: torch.dtype) -> None:
        self._plain = accelerated(detector, dtype)
        self._network = torch.compile(folded(detector)[0], options={"freezing": True})

    def __call__(self, images: Tensor) -> Raw:
        """Return the raw output for images (b, 3, h, w)."""
        try:
            return self._network(images)
        except RuntimeError as error:  # what PyTorch raises for all that its compilers complain of
            logger.warning("PyTorch cannot compile here (%s): going on without", first_line(error))
            self._network = self._plain
            return self._plain(images)
