"""A program as a model of OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


def compile_openvino(model: Any, dtype: torch.dtype) -> Any:
    """Return an `openvino.Model` ready to run on the CPU, all but what is quantised in `dtype`."""
    import openvino  # pyright: ignore[reportMissingImports]

    return openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": HINTS[dtype]})


def run_openvino(compiled: Any, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, torch.Tensor]:
    """Return the outputs by name of what `compile_openvino` made, in memory of their own."""
    found = compiled(dict(inputs))
    return {output.any_name: torch.from_numpy(np.array(value)) for output, value in found.items()}


HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}
