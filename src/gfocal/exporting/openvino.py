"""A program as an .xml file of OpenVINO with its .bin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from gfocal.errors import UserError
from gfocal.exported.engines import SECTION
from gfocal.exporting.suppression import to_openvino
from gfocal.exporting.tracing import output_names


def convert_openvino(program: ExportedProgram) -> Any:
    """Return the program as an `openvino.Model`. UserError where OpenVINO is missing.

    From PyTorch itself rather than by way of ONNX, whose deformable convolutions OpenVINO does not read.
    """
    try:
        import openvino  # pyright: ignore[reportMissingImports]
        from openvino.frontend.pytorch import ConversionExtension  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError("writing .xml files needs OpenVINO: pip install 'gfocal[openvino]'") from error
    model = openvino.convert_model(program, extension=[ConversionExtension("gfocal.kept_scores.default", to_openvino)])
    for output, name in zip(model.outputs, output_names(program), strict=True):
        output.get_tensor().set_names({name})
    return model


def write_openvino(model: Any, path: Path, *, texts: Mapping[str, str], half: bool = False) -> None:
    """Write a model as .xml and .bin, with `texts` inside. half: store the weights in float16."""
    import openvino  # pyright: ignore[reportMissingImports]

    for key, text in texts.items():
        model.set_rt_info(text, [SECTION, key])
    openvino.save_model(model, path, compress_to_fp16=half)
