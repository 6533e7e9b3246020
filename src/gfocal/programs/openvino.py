"""A program as a model of OpenVINO."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch.export import ExportedProgram

from gfocal.errors import UserError
from gfocal.programs.suppression import to_openvino
from gfocal.programs.tracing import output_names


def convert_openvino(program: ExportedProgram) -> Any:
    """Return the program as an `openvino.Model`. UserError where OpenVINO is missing.

    From PyTorch itself rather than by way of ONNX, whose deformable convolutions OpenVINO does not read.
    """
    try:
        import openvino  # pyright: ignore[reportMissingImports]
        from openvino.frontend.pytorch import ConversionExtension  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError("OpenVINO is not installed: pip install 'gfocal[openvino]'") from error
    model = openvino.convert_model(program, extension=[ConversionExtension("gfocal.kept_scores.default", to_openvino)])
    for output, name in zip(model.outputs, output_names(program), strict=True):
        output.get_tensor().set_names({name})
    return model


@cache
def openvino_core() -> Any:
    """Return the one `openvino.Core` of this process, which lives as long as it does.

    Each has the thread that made it handle signals on a stack of the core's own. Of two that are let go in the order in
    which they were made, the first frees the stack that the second then puts back: the next Ctrl-C is a segmentation
    fault.
    """
    import openvino  # pyright: ignore[reportMissingImports]

    return openvino.Core()


@final
class OpenVinoProgram:
    """An `openvino.Model` ready to run on the CPU, all but what is quantised in `dtype`; threads may share it."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        # by itself it takes all cores that it sees, whatever a container or the user gives
        options = {"INFERENCE_PRECISION_HINT": HINTS[dtype], "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        self._compiled = openvino_core().compile_model(model, "CPU", options)
        self._of_thread = threading.local()

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, torch.Tensor]:
        """Return the outputs by name, in memory of their own."""
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = self._compiled.create_infer_request()
        found = self._of_thread.request.infer(dict(inputs))
        return {output.any_name: torch.from_numpy(np.array(value)) for output, value in found.items()}


HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}
