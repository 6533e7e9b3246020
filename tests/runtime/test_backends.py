"""All ways to compute a model give the same detections."""

from __future__ import annotations

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

import gfocal
from common import unchecked
from gfocal.detector import Detector
from gfocal.errors import UserError
from gfocal.loading import LONG_RUN, load_for
from gfocal.model import Model
from gfocal.structures import Raw
from helpers import save_eager_model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with a small model that finds something."""
    folder = tmp_path_factory.mktemp("run")
    save_eager_model(folder)
    return folder


def picture(height: int, width: int) -> object:
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8).numpy()


def test_openvino_finds_the_same_in_pictures_of_any_size(run) -> None:
    pytest.importorskip("openvino")
    plain = gfocal.load(run, device="cpu")
    assert isinstance(plain, Model)
    other = plain.with_backend("openvino")
    for size in ((64, 64), (96, 70), (50, 130)):
        with unchecked(), torch.autocast("cpu", torch.bfloat16):  # which the conversion must not follow
            ours = other.predict(picture(*size))
        theirs = plain.predict(picture(*size))
        assert len(theirs)
        assert ours.labels.tolist() == theirs.labels.tolist()
        torch.testing.assert_close(ours.scores, theirs.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.boxes, theirs.boxes, rtol=1e-4, atol=1e-2)
        assert ours.edges is not None
        assert theirs.edges is not None
        torch.testing.assert_close(ours.edges.std, theirs.edges.std, rtol=1e-3, atol=1e-2)
    with ThreadPoolExecutor(3) as threads:
        again = list(threads.map(lambda _: other.predict(picture(50, 130)).scores, range(12)))
    assert all(torch.equal(scores, ours.scores) for scores in again)


LET_GO = """
import gc, signal, openvino, torch
from openvino import opset15
from gfocal.programs.openvino import OpenVinoProgram
def program():
    given = opset15.parameter([1], openvino.Type.f32)
    return OpenVinoProgram(openvino.Model([opset15.relu(given)], [given]), torch.float32)
first, second = program(), program()
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGINT, lambda number, frame: print("heard"))
signal.raise_signal(signal.SIGINT)
"""


def test_a_process_that_has_let_programs_of_openvino_go_hears_signals() -> None:
    pytest.importorskip("openvino")
    done = subprocess.run([sys.executable, "-c", LET_GO], capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


def test_without_a_compiler_prediction_goes_on(run, monkeypatch, caplog) -> None:
    def no_compiler(network: Detector, **options: object) -> object:
        def call(images: Tensor) -> Raw:
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found")

        return call

    monkeypatch.setattr(torch, "compile", no_compiler)
    plain = gfocal.load(run, device="cpu")
    assert isinstance(plain, Model)
    with caplog.at_level(logging.WARNING, "gfocal.runtime"):
        found = plain.with_backend("compile").predict([picture(64, 64), picture(64, 96)])
    assert [record.message for record in caplog.records] == [
        "PyTorch cannot compile here (InvalidCxxCompiler: No working C++ compiler found): going on without"
    ]
    assert torch.equal(found[0].boxes, plain.predict(picture(64, 64)).boxes)


@pytest.mark.slow
def test_compiled_models_find_the_same(run) -> None:
    plain = gfocal.load(run, device="cpu")
    assert isinstance(plain, Model)
    other = plain.with_backend("compile")
    for size in ((64, 64), (96, 70)):
        ours, theirs = other.predict(picture(*size)), plain.predict(picture(*size))
        assert ours.labels.tolist() == theirs.labels.tolist()
        torch.testing.assert_close(ours.boxes, theirs.boxes, rtol=1e-4, atol=1e-2)


@pytest.mark.slow  # a trace of its own takes half a minute
def test_a_long_run_on_a_cpu_tries_openvino(run, caplog) -> None:
    pytest.importorskip("openvino")
    with caplog.at_level(logging.INFO, "gfocal.loading"):
        few = load_for(run, pictures=LONG_RUN - 1, device="cpu")
        unknown = load_for(run, pictures=None, device="cpu")
        assert not caplog.records
        with unchecked():
            many = load_for(run, pictures=LONG_RUN, device="cpu")
    assert isinstance(few, Model)
    assert isinstance(unknown, Model)
    assert isinstance(many, Model)
    assert few.backend == unknown.backend == "torch"
    assert f": {many.backend} it is" in caplog.records[-1].message
    named = load_for(run, pictures=LONG_RUN, device="cpu", backend="torch")
    assert isinstance(named, Model)
    assert named.backend == "torch"


def test_an_unknown_backend_is_refused(run) -> None:
    with pytest.raises(UserError, match=r"backend.*tensorflow.*torch.*compile.*openvino"):
        gfocal.load(run, device="cpu", backend="tensorflow")


def test_backends_share_detector_and_calibration(run) -> None:
    plain = gfocal.load(run, device="cpu")
    assert isinstance(plain, Model)
    other = plain.with_backend("compile")
    assert other.detector is plain.detector
    assert other.with_calibration(None).backend == "compile"
