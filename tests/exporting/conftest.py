"""Files that many tests look at: tracing one takes a good part of a minute."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from torch.export import ExportedProgram

from common import unchecked
from exports import Exported, lively, small, traced
from gfocal.calibration import Calibration
from gfocal.cli.__main__ import main
from gfocal.data.scenes import CLASS_NAMES
from gfocal.exported.header import Header
from gfocal.exporting.openvino import write_openvino
from gfocal.model import Model
from gfocal.programs.openvino import convert_openvino


@pytest.fixture(scope="session")
def lively_model() -> Model:
    """GFL V2 of scenes, calibrated."""
    model = lively(small("gflv2_r18_mini", class_names=CLASS_NAMES))
    calibration = Calibration(
        temperatures=((2.0,) * 4,) * 6,
        masses=(0.9,),
        spread="predicted",
        groups=(0,) * len(CLASS_NAMES),
        intervals=((1.5,) * 4,),
        outward=((2.0,),),
        inward=((1.0,),),
        class_names=CLASS_NAMES,
        boxes=100,
        iou=0.5,
    )
    return model.with_calibration(calibration)


@pytest.fixture(scope="session")
def program(lively_model: Model) -> ExportedProgram:
    """That model, traced."""
    return traced(lively_model)


@pytest.fixture(scope="session")
def exported(lively_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """That model as the command exports it to ONNX, compared on two scenes."""
    folder = tmp_path_factory.mktemp("exported")
    lively_model.save(folder / "model.safetensors")
    file, out, err = folder / "made" / "model.onnx", io.StringIO(), io.StringIO()
    options = ["--data", "scenes", "--pictures", "2", "--size", "96", "128"]
    with unchecked(), redirect_stdout(out), redirect_stderr(err):
        main(["export", str(folder / "model.safetensors"), str(file), *options])
    return Exported(file, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def files(
    lively_model: Model, exported: Exported, program: ExportedProgram, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """That model as one file of each kind, by its ending."""
    path = tmp_path_factory.mktemp("files") / "model.xml"
    texts = Header(lively_model.recipe, "detections", "float32", lively_model.calibration).to_texts()
    write_openvino(convert_openvino(program), path, texts=texts)
    return {".onnx": exported.file, ".xml": path}
