"""Files that many tests look at: tracing one takes a good part of a minute."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.export import ExportedProgram

from exports import lively, traced
from gfocal.calibration import Calibration
from gfocal.config import Recipe
from gfocal.exported.header import Header
from gfocal.exporting.onnx import convert_onnx, write_onnx
from gfocal.exporting.openvino import write_openvino
from gfocal.model import Model
from gfocal.programs.openvino import convert_openvino


@pytest.fixture(scope="session")
def lively_model(tiny_recipe: Recipe) -> Model:
    """GFL V2, calibrated."""
    model = lively(tiny_recipe)
    calibration = Calibration(
        temperatures=((2.0,) * 4,) * 6,
        masses=(0.9,),
        spread="predicted",
        groups=(0, 0, 0),
        intervals=((1.5,) * 4,),
        outward=((2.0,),),
        inward=((1.0,),),
        class_names=tiny_recipe.class_names,
        boxes=100,
        iou=0.5,
    )
    return model.with_calibration(calibration)


@pytest.fixture(scope="session")
def program(lively_model: Model) -> ExportedProgram:
    """That model, traced."""
    return traced(lively_model)


@pytest.fixture(scope="session")
def files(lively_model: Model, program: ExportedProgram, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """That model as one file of each kind, by its ending."""
    folder = tmp_path_factory.mktemp("files")
    texts = Header(lively_model.recipe, "detections", "float32", lively_model.calibration).to_texts()
    write_onnx(convert_onnx(program), folder / "model.onnx", texts=texts)
    write_openvino(convert_openvino(program), folder / "model.xml", texts=texts)
    return {suffix: folder / f"model{suffix}" for suffix in (".onnx", ".xml")}
