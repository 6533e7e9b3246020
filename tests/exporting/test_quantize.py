"""int8 stops where the codes of boxes begin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch.export import ExportedProgram

from gfocal.exporting.onnx import convert_onnx
from gfocal.exporting.quantize import FIRST, Inputs, quantize_onnx, quantize_openvino
from gfocal.model import Model
from gfocal.programs.openvino import openvino_core


def inputs(index: int) -> Inputs:
    images = np.random.default_rng(index).standard_normal((1, 3, 64, 96), dtype=np.float32)
    return {"images": images, "sizes": np.array([[60, 96]])}


@pytest.mark.slow
def test_in_onnx(lively_model: Model, program: ExportedProgram) -> None:
    model = quantize_onnx(convert_onnx(program, optimize=True), lively_model.detector, inputs, count=2)
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    weights = [node.input[1] for node in convolutions[FIRST:]]
    assert not any(makers.get(node.input[1]) == "DequantizeLinear" for node in convolutions[:FIRST])
    float_weights = {name for name in weights if makers.get(name) != "DequantizeLinear"}
    assert {name for name in float_weights if "box_conv" in name}
    # of what follows the codes of boxes there are convolutions in the predictor of V2, too
    assert all("box_conv" in name or "quality.predictor" in name for name in float_weights)
    assert not any("box_conv" in name for name in weights if name not in float_weights)


def test_in_openvino(lively_model: Model, files: dict[str, Path]) -> None:
    read = openvino_core().read_model(files[".xml"])
    codes = lively_model.detector.box_width * 4
    model = quantize_openvino(read, lively_model.detector, inputs, count=2)
    quantised = {True: 0, False: 0}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution" and node.input_value(1).get_partial_shape()[0] == codes:
            assert node.input_value(0).get_node().get_type_name() != "FakeQuantize"
            quantised[False] += 1
        elif node.get_type_name() == "FakeQuantize":
            quantised[True] += 1
    assert quantised[False] == len(lively_model.detector.scales)
    assert quantised[True] > 10
