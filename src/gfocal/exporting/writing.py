"""From a model to a file that another runtime reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gfocal.data.collate import pad
from gfocal.data.dataset import Dataset
from gfocal.exported.header import Header
from gfocal.exporting.onnx import convert_onnx, write_onnx
from gfocal.exporting.openvino import write_openvino
from gfocal.exporting.quantize import Inputs, quantize_onnx, quantize_openvino
from gfocal.families import family_of
from gfocal.model import Model
from gfocal.programs.openvino import convert_openvino
from gfocal.programs.tracing import trace

MEASURED_ON = 100
"""Pictures at most that the ranges of values are measured on for int8."""


def measured_on(num_pictures: int) -> list[int]:
    """Return which pictures of a data set the ranges of values are measured on, evenly spread over it.

    >>> measured_on(3), measured_on(250)[:4], len(measured_on(250))
    ([0, 1, 2], [0, 2, 5, 7], 100)
    """
    count = min(MEASURED_ON, num_pictures)
    return [place * num_pictures // count for place in range(count)]


def write(model: Model, path: Path, *, header: Header, dataset: Dataset, size: tuple[int, int] | None) -> None:
    """Write a model as an .onnx or .xml file, which carries `header`.

    dataset: on whose `measured_on` pictures the ranges of values are measured for int8. size: as in
    `Predictor.predict`, for these. UserError where the recipe's post-processing cannot be exported.
    """
    prepare = model.prepare(size)
    chosen = measured_on(len(dataset))

    def inputs(place: int) -> Inputs:
        prepared = prepare(dataset.picture(chosen[place]))
        images = {"images": pad(prepared.image).numpy()}
        return images if header.content == "raw" else images | {"sizes": np.array([prepared.size])}

    least_side = family_of(model.recipe.family).least_side
    # OpenVINO stores weights in float16 itself
    half = header.precision == "float16" and path.suffix == ".onnx"
    int8 = header.precision == "int8"
    postprocess = None if header.content == "raw" else model.postprocess
    program = trace(model.detector, postprocess, least_side=least_side, half=half)
    count = len(chosen)
    if path.suffix == ".onnx":
        made = convert_onnx(program, optimize=int8)
        made = quantize_onnx(made, model.detector, inputs, count=count) if int8 else made
        write_onnx(made, path, texts=header.to_texts())
    else:
        made = convert_openvino(program)
        made = quantize_openvino(made, model.detector, inputs, count=count) if int8 else made
        write_openvino(made, path, texts=header.to_texts(), half=header.precision == "float16")
