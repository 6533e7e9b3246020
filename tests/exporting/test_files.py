"""Exported files find what their model finds, whatever the batch and the size of its pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gfocal
from exports import assert_agree, lively, small, traced
from gfocal.cli.__main__ import main
from gfocal.config import BackboneConfig, TestConfig
from gfocal.data.scenes import Scenes
from gfocal.errors import UserError
from gfocal.exported import ExportedModel, load_exported
from gfocal.exported.header import Header
from gfocal.exporting.onnx import convert_onnx, write_onnx
from gfocal.exporting.openvino import write_openvino
from gfocal.model import Model
from gfocal.programs.openvino import convert_openvino

SUFFIXES = (".onnx", ".xml")
BATCHES = {(1, 32, 32): [(20, 32)], (1, 96, 64): [(96, 64)], (3, 128, 160): [(128, 160), (100, 37), (128, 130)]}
"""Pictures, height and width of a batch, and the sizes of its pictures before padding."""


def assert_agrees(file: ExportedModel, model: Model, **options: Any) -> None:
    """Check that a file finds what its model finds in batches of several sizes, in sum not a little."""
    torch.manual_seed(1)
    total = 0
    for shape, sizes in BATCHES.items():
        images = torch.randn(shape[0], 3, *shape[1:])
        scales = [(2.0, 0.5)] * len(sizes)
        expected = model.find(images, sizes, scales=scales, precision="float32", **options)
        precision = file.engine.closest
        for one, other in zip(
            file.find(images, sizes, scales=scales, precision=precision, **options), expected, strict=True
        ):
            assert_agree(one, other)
            total += len(one)
    assert total > 50


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_agrees_with_its_model(files: dict[str, Path], lively_model: Model, suffix: str) -> None:
    assert_agrees(load_exported(files[suffix]), lively_model)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_higher_threshold_is_that_of_the_model(files: dict[str, Path], lively_model: Model, suffix: str) -> None:
    file = load_exported(files[suffix])
    scores = torch.cat([found.scores for found in file.find(torch.ones(2, 3, 64, 64), [(64, 64)] * 2)])
    assert_agrees(file, lively_model, threshold=scores.median().item())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_load_takes_files_and_predict_takes_pictures(files: dict[str, Path], lively_model: Model, suffix: str) -> None:
    file = gfocal.load(files[suffix], device="cpu")
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    precision = None if suffix == ".onnx" else "float32"
    for size in (None, (96, 128)):
        expected = lively_model.predict(picture, size=size, precision="float32")
        assert_agree(file.predict(picture, size=size, precision=precision), expected)


def test_what_computes_a_file_is_told(
    files: dict[str, Path], lively_model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.match(r"by onnxruntime .+ on cpu in float32, \d", load_exported(files[".onnx"], device="cpu").computing())
    assert re.match(r"by openvino .+ on cpu in bfloat16, \d", load_exported(files[".xml"]).computing("bfloat16"))
    with pytest.raises(UserError, match="the file computes in float32"):
        load_exported(files[".onnx"]).computing("bfloat16")
    assert lively_model.computing("bfloat16").startswith("by PyTorch on cpu (")
    assert lively_model.with_backend("openvino").computing().startswith("by OpenVINO on cpu (")
    Image.new("RGB", (32, 32)).save(tmp_path / "0.png")
    main(
        [
            "predict",
            str(files[".onnx"]),
            str(tmp_path / "0.png"),
            "--out",
            str(tmp_path / "out"),
            "--no-draw",
            "--size",
            "64",
            "64",
        ]
    )
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("computing")]
    assert len(told) == 1
    assert told[0].startswith("computing by onnxruntime")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_device_is_that_of_the_runtime(files: dict[str, Path], suffix: str) -> None:
    import onnxruntime

    with pytest.raises(UserError, match="unknown device 'mps'"):
        load_exported(files[suffix], device="mps")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        # whatever PyTorch sees
        with pytest.raises(UserError, match=r"installed ONNX Runtime has none|run on the CPU here"):
            load_exported(files[suffix], device="cuda")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_brings_recipe_and_calibration(files: dict[str, Path], lively_model: Model, suffix: str) -> None:
    header = load_exported(files[suffix]).engine.header
    assert header == Header(lively_model.recipe, "detections", "float32", lively_model.calibration)


def test_what_the_file_leaves_out_cannot_be_asked_for(files: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"threshold 0\.01 is under 0\.05.*export it with raw"):
        gfocal.load(files[".onnx"]).predict(np.zeros((32, 32, 3), np.uint8), threshold=0.01)
    for suffix in SUFFIXES:
        with pytest.raises(UserError, match="threshold must be between 0 and 1, got 50"):
            gfocal.load(files[suffix]).predict(np.zeros((32, 32, 3), np.uint8), threshold=50)
    with pytest.raises(UserError, match="the file computes in float32"):
        gfocal.load(files[".onnx"]).predict(np.zeros((32, 32, 3), np.uint8), precision="bfloat16")
    with pytest.raises(UserError, match="brings its recipe"):
        gfocal.load(files[".onnx"], recipe="gfl_r18_mini")


def test_evaluate_takes_a_file(files: dict[str, Path], lively_model: Model, tmp_path: Path) -> None:
    scores = []
    for model in (files[".onnx"], lively_model):
        gfocal.evaluate(model, Scenes(2, size=(96, 128)), precision="float32", save=tmp_path / "results.json")
        scores.append(sorted(one["score"] for one in json.loads((tmp_path / "results.json").read_text())))
    assert len(scores[0]) > 50
    assert scores[0] == pytest.approx(scores[1], abs=3e-5)


def test_audit_takes_a_file(files: dict[str, Path], lively_model: Model) -> None:
    data = Scenes(2, size=(96, 128))
    of_file, of_model = (
        gfocal.audit(source, data, least=0.0, precision="float32")
        for source in (gfocal.load(files[".onnx"]), lively_model)
    )
    assert of_file.suspicions
    assert [(one.kind, one.index, one.box) for one in of_file.suspicions] == [
        (one.kind, one.index, one.box) for one in of_model.suspicions
    ]
    assert gfocal.audit(files[".onnx"], data).boxes == of_model.boxes


def test_what_looks_inside_a_model_refuses_a_file(files: dict[str, Path], tmp_path: Path) -> None:
    data = Scenes(8, size=(96, 128))
    refusal = "an exported file does not tell .* before suppression, .*: give the weights"
    for source in (files[".onnx"], files[".xml"], gfocal.load(files[".onnx"])):
        with pytest.raises(UserError, match=refusal):
            gfocal.calibrate(source, data)
        with pytest.raises(UserError, match=refusal):
            gfocal.rescore(source, data)
        with pytest.raises(UserError, match=refusal):
            gfocal.explain(source, out=tmp_path / "page.html", data=data)
        with pytest.raises(UserError, match=refusal):
            gfocal.export(source, tmp_path / "again.onnx")
    assert list(tmp_path.iterdir()) == []


def test_evaluate_refuses_data_of_other_classes(files: dict[str, Path], tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "0.png")
    content = {"images": [{"id": 0, "file_name": "0.png", "height": 32, "width": 32}]}
    content |= {"annotations": [], "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "labels.json").write_text(json.dumps(content))
    (tmp_path / "data.yaml").write_text("val: {images: ., annotations: labels.json}\n")
    with pytest.raises(UserError, match=r"1 class.*, the model 11"):
        gfocal.evaluate(files[".onnx"], tmp_path / "data.yaml")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_of_others_and_broken_ones_are_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(UserError, match="no such file"):
        gfocal.load(tmp_path / f"absent{suffix}")
    (tmp_path / f"text{suffix}").write_text("no graph")
    with pytest.raises(UserError, match="cannot read it"):
        gfocal.load(tmp_path / f"text{suffix}")


def test_a_graph_without_a_header_is_refused(tmp_path: Path) -> None:
    import onnx

    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "other", [value], [other])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=10)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(UserError, match="no file of `gfocal export`"):
        gfocal.load(tmp_path / "other.onnx")


def test_raw_output_goes_through_post_processing(tmp_path: Path) -> None:
    recipe = small("gfl_r18_mini", test=TestConfig(nms="soft_linear", score_threshold=0.2))
    model = lively(recipe)
    program = traced(model, raw=True)
    write_onnx(convert_onnx(program), tmp_path / "raw.onnx", texts=Header(recipe, "raw", "float32").to_texts())
    file = load_exported(tmp_path / "raw.onnx")
    assert_agrees(file, model)
    assert_agrees(file, model, threshold=0.1)


@pytest.mark.slow  # a trace of its own takes half a minute
def test_deformable_convolutions_are_exported(tmp_path: Path) -> None:
    backbone = BackboneConfig(name="resnet18", weights="none", width=0.25, deformable=(4,))
    model = lively(small("gflv2_r18_mini", backbone=backbone))
    program = traced(model)
    texts = Header(model.recipe, "detections", "float32").to_texts()
    write_onnx(convert_onnx(program), tmp_path / "model.onnx", texts=texts)
    write_openvino(convert_openvino(program), tmp_path / "model.xml", texts=texts)
    for suffix in SUFFIXES:
        assert_agrees(load_exported(tmp_path / f"model{suffix}"), model)
