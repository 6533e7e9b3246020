"""A detector compiled by PyTorch: minutes before the first picture, for runs that are long enough to pay for them."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import final

import torch
from torch import Tensor

from gfocal.detector import Detector
from gfocal.errors import first_line
from gfocal.runtime.eager import accelerated, cast, folded
from gfocal.structures import Raw

logger = logging.getLogger(__name__)


@final
class Compiled:
    """Compiles a detector for the sizes of the pictures it meets; does without where there is no compiler."""

    def __init__(self, detector: Detector, dtype: torch.dtype) -> None:
        self._plain = accelerated(detector, dtype)
        twin, _ = folded(detector)
        cast(twin, dtype)
        self._network = torch.compile(twin)
        # with PyTorch's compilers come seconds of imports, which only those wait for who use them
        self._dynamo, self._inductor = (import_module(f"torch.{name}.config") for name in ("_dynamo", "_inductor"))

    def __call__(self, images: Tensor) -> Raw:
        """Return the raw output for images (b, 3, h, w)."""
        if self._network is self._plain:
            return self._plain(images)
        try:
            # frozen, weights are constants of what is compiled, laid out once as its convolutions like them
            with self._inductor.patch(freezing=True), self._dynamo.patch(fail_on_recompile_limit_hit=True):
                return self._network(images)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # what PyTorch raises for all that its compilers complain of
            logger.warning("PyTorch cannot compile here (%s): going on without", first_line(error))
            self._network = self._plain
            return self._plain(images)
