"""A detector computed by OpenVINO, for runs on a CPU that are long enough to pay for the conversion."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from gfocal.detector import Detector
from gfocal.errors import UserError, first_line
from gfocal.programs.graph import raw_of
from gfocal.programs.openvino import OpenVinoProgram, convert_openvino
from gfocal.programs.tracing import trace
from gfocal.structures import Raw


@final
class OpenVino:
    """Converts a detector for pictures of any size. The raw output lacks class logits, which only training reads.

    UserError where OpenVINO is not installed, or the detector is on another device than the CPU.
    """

    def __init__(self, detector: Detector, dtype: torch.dtype) -> None:
        if next(detector.parameters()).device.type != "cpu":
            raise UserError("backend 'openvino' computes on the CPU: take device 'cpu', or another backend")
        # it is converted in float32, whatever the caller computes in; OpenVINO chooses what to do in `dtype`
        with torch.inference_mode(False), torch.autocast("cpu", enabled=False):
            try:
                self._run = OpenVinoProgram(convert_openvino(trace(detector)), dtype)
            except UserError:
                raise
            except Exception as error:  # neither PyTorch's tracing nor OpenVINO has a class for what it cannot do
                raise UserError(
                    f"OpenVINO cannot compute this model ({first_line(error)}): take backend 'torch'"
                ) from error

    def __call__(self, images: Tensor) -> Raw:
        """Return the raw output for images (b, 3, h, w)."""
        return raw_of(self._run({"images": images.contiguous().numpy()}))
