"""`gfocal.export` leaves a file with its certificate, or nothing and a reason."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

import gfocal
from exports import Exported, lively, small
from gfocal.config import TestConfig
from gfocal.data.opening import open_dataset
from gfocal.data.scenes import CLASS_NAMES, Scenes
from gfocal.errors import UserError
from gfocal.exported import load_exported
from gfocal.exporting import Agreement, Certificate, Difference, Ranges, run
from gfocal.exporting.comparing import Side, _agreement, compare
from gfocal.exporting.run import _for_ranges
from gfocal.structures import Detections
from helpers import Edges


@pytest.fixture(autouse=True)
def _traced_as_outside_of_tests(unchecked_shapes: None) -> None:
    """Leave out checks of shapes, which would become a part of the graph."""


def scenes_model() -> gfocal.Model:
    return lively(small("gflv2_r18_mini", class_names=CLASS_NAMES))


def test_a_certificate_tells_what_was_compared(exported: Exported) -> None:
    assert "100.00 % matched" in exported.out
    assert "comparing 2/2" in exported.err
    folder = exported.file.parent
    assert sorted(file.name for file in folder.iterdir()) == ["model.certificate.json", "model.onnx"]
    written = json.loads((folder / "model.certificate.json").read_text())
    assert written["files"] == {"model.onnx": hashlib.sha256(exported.file.read_bytes()).hexdigest()}
    assert written["data"] == "scenes (val)"
    assert written["pictures"] == 2
    assert written["detections"] > 50
    assert written["ranges"] is None
    assert [one["runtime"].split()[0] for one in written["runtimes"]] == ["onnxruntime", "openvino"]
    for one in written["runtimes"]:
        assert one["matched"] == 1.0
        assert one["ap"] == pytest.approx(written["ap"], abs=1e-6)
        assert one["scores"]["max"] < 1e-4
        assert one["edge_std"]["max"] < 1e-2
        assert one["milliseconds"] > 0


def test_a_file_that_finds_something_else_is_not_left_behind(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(model: gfocal.Model, path: Path, **_: object) -> None:
        shutil.copy(exported.file, path)

    other = scenes_model()
    with torch.no_grad():
        other.detector.outputs_of(0).quality.cls.weight.neg_()
    monkeypatch.setattr(run, "write", write)
    out = tmp_path / "made" / "model.onnx"
    refusal = r"not written, because in .* only \d{1,2}\.\d\d % of the detections are those of the model"
    with pytest.raises(UserError, match=refusal):
        gfocal.export(other, out, pictures=1, size=(64, 64))
    assert list(out.parent.iterdir()) == []


@pytest.mark.slow
def test_int8_is_measured_on_the_data_and_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model.xml"
    certificate = gfocal.export(scenes_model(), out, precision="int8", data="scenes", pictures=1, size=(64, 64))
    assert capfd.readouterr() == ("", "")
    assert certificate.precision == "int8"
    assert certificate.ranges == Ranges("train", 100)
    assert certificate.text().endswith("ranges for int8: measured on 100 pictures of train")
    assert certificate.matched is not None
    assert certificate.matched < 1.0
    assert set(certificate.files) == {"model.xml", "model.bin"}
    assert out.with_suffix(".bin").stat().st_size < 0.6 * in_float32(scenes_model())
    assert gfocal.load(out).recipe == scenes_model().recipe


@pytest.mark.slow
def test_float16_halves_the_file(tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    certificate = gfocal.export(scenes_model(), out, precision="float16", pictures=1, size=(64, 64))
    assert certificate.matched is not None
    assert certificate.matched > 0.8
    assert out.stat().st_size < 0.8 * in_float32(scenes_model())


def test_ranges_are_measured_on_train_or_where_it_does_not_open_on_what_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = scenes_model()
    data = Scenes(150)
    assert _for_ranges(model, "scenes", data, split="val")[1] == Ranges("train", 100)
    assert _for_ranges(model, data, data, split="val") == (data, Ranges("val", 100))
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    content = {"images": [{"id": 1, "file_name": "0.png", "height": 8, "width": 8}], "annotations": []}
    content |= {"categories": [{"id": index, "name": name} for index, name in enumerate(CLASS_NAMES)]}
    for split in ("train", "val"):
        (tmp_path / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
    with caplog.at_level("INFO", "gfocal"):
        val = open_dataset(tmp_path, "val")
        assert _for_ranges(model, tmp_path, val, split="val") == (val, Ranges("val", 1))
    assert "measured on split val, as train does not open" in caplog.text
    assert "train2017: no such folder" in caplog.text


def in_float32(model: gfocal.Model) -> int:
    """Return how many bytes the weights take."""
    return sum(4 * weight.numel() for weight in model.detector.parameters())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"out": "model.pt"}, "exported models are .onnx or .xml files"),
        ({"precision": "int4"}, "unknown precision 'int4': did you mean 'int8'"),
        ({"precision": "int8"}, "give data"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_made(
    tmp_path: Path, options: dict[str, str], reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        gfocal.export(scenes_model(), **{"out": tmp_path / "model.onnx", **options})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "precision", "missing"),
    [
        ("model.onnx", "float32", "onnxscript"),
        ("model.onnx", "float16", "onnxruntime"),
        ("model.xml", "float32", "openvino"),
        ("model.xml", "int8", "nncf"),
    ],
)
def test_a_missing_package_is_told_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, precision: str, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)  # as Python marks what cannot be imported
    with pytest.raises(UserError, match=rf"needs {missing}: pip install 'gfocal\["):
        gfocal.export("nowhere", tmp_path / name, precision=precision, data="scenes")
    assert list(tmp_path.iterdir()) == []


def agreement(runtime: str, matched: float | None, *, as_written: bool = True) -> Agreement:
    none = Difference(0.0, 0.0)
    return Agreement(runtime, as_written, matched, none, none, None, None, 1.0)


def certificate_of(*runtimes: Agreement) -> Certificate:
    return Certificate("m", "r", "detections", "float32", {}, "0", {}, "cpu", "scenes (val)", 1, 0, None, 1.0, runtimes)


def test_each_precision_of_a_file_is_compared(files: dict[str, Path], lively_model: gfocal.Model) -> None:
    file = load_exported(files[".xml"])
    sides = [Side(file, "float32"), Side(file, "bfloat16")]
    found = compare(lively_model, sides, Scenes(1, size=(96, 128)), pictures=1)
    assert [one.as_written for one in found.runtimes] == [True, False]
    assert found.runtimes[0].matched == 1.0
    assert found.runtimes[1].runtime == f"{found.runtimes[0].runtime} in bfloat16"


def test_nothing_found_on_either_side_proves_nothing(files: dict[str, Path]) -> None:
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), ("cat",))
    one = _agreement(Side(load_exported(files[".onnx"]), None), [nothing], [nothing], None, 1.0)
    assert one.matched is None
    certificate = certificate_of(one)
    assert certificate.matched is None
    assert f"{one.runtime}: nothing to compare, 1.0 ms a picture" in certificate.text()


def test_what_a_file_is_refused_for_is_how_it_was_written() -> None:
    faster = agreement("openvino 1 in bfloat16", 0.9, as_written=False)
    certificate = certificate_of(agreement("openvino 1", 0.999), faster)
    assert certificate.matched == 0.999
    assert "openvino 1 in bfloat16: 90.00 % matched" in certificate.text()


def test_parts_from_outside_and_suppression_without_operator_are_refused(tmp_path: Path) -> None:
    outside = gfocal.build(small("atss_r50_fpn_1x"), box=Edges(), device="cpu")
    with pytest.raises(UserError, match=r"box is from outside gfocal, .*:Edges': export without raw"):
        gfocal.export(outside, tmp_path / "model.onnx", raw=True)
    soft = gfocal.build(small("gfl_r18_mini", test=TestConfig(nms="soft_linear")), device="cpu")
    with pytest.raises(UserError, match="export with raw"):
        gfocal.export(soft, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_certificate_of_another_file_is_not_replaced(tmp_path: Path) -> None:
    proof = tmp_path / "model.certificate.json"
    proof.write_text(json.dumps({"files": {"model.onnx": "0"}}))
    with pytest.raises(UserError, match=r"is the certificate of model\.onnx: give model\.xml another name"):
        gfocal.export("nowhere", tmp_path / "model.xml")
    assert [path.name for path in tmp_path.iterdir()] == [proof.name]
