"""What runs an exported file: ONNX Runtime for .onnx, OpenVINO for .xml, with as many threads as PyTorch has."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any, final

import numpy.typing as npt
import torch
from torch import Tensor

from gfocal.devices import choose_precision, described, precision_name
from gfocal.errors import UserError, first_line, unknown
from gfocal.exported.header import Header
from gfocal.programs.openvino import OpenVinoProgram, openvino_core

Inputs = Mapping[str, npt.NDArray[Any]]


class Engine(ABC):
    """A runtime that holds one file.

    name: of the runtime, with its version. header: of the file. closest: the precision in which it computes the file
    as it was written, None where it has no choice.
    """

    name: str
    header: Header
    closest: str | None

    @abstractmethod
    def computing(self, precision: str | None) -> str:
        """Return what computes, where, and in which precision, for people. UserError for one that it has not."""

    @abstractmethod
    def run(self, inputs: Inputs, *, precision: str | None) -> dict[str, Tensor]:
        """Return the outputs by name, in the host's memory. precision: as in `Predictor.predict`."""


@final
class OnnxRuntime(Engine):
    """Runs an .onnx file, on the GPU where the installed ONNX Runtime has one."""

    closest = None

    def __init__(self, path: Path, *, device: str | torch.device | None) -> None:
        try:
            import onnxruntime  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UserError(f"{path} runs in ONNX Runtime: pip install 'gfocal[onnx]'") from error
        available = onnxruntime.get_available_providers()
        asked = device not in (None, "auto")
        if not asked:
            device = "cuda" if CUDA in available else "cpu"
        device = _device(device)
        if device.type == "cuda" and CUDA not in available:
            raise UserError("device 'cuda' was asked for, but the installed ONNX Runtime has none: take device 'cpu'")
        providers: list[Any] = [(CUDA, {"device_id": device.index or 0})] if device.type == "cuda" else []
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone: it warns of what it may do to a graph for speed
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            with redirect_stdout(sys.stderr):  # where it prints that a GPU does not start
                self._session = onnxruntime.InferenceSession(str(path), options, providers=[*providers, CPU])
        except Exception as error:  # each mistake in a file has a class of its own, and they have no common base
            raise UserError(f"{path}: ONNX Runtime cannot read it ({first_line(error)})") from error
        if asked and providers and CUDA not in self._session.get_providers():
            raise UserError("device 'cuda' was asked for, but ONNX Runtime cannot start it: take device 'cpu'")
        self.name = f"onnxruntime {onnxruntime.__version__}"
        self.header = Header.from_texts(self._session.get_modelmeta().custom_metadata_map, where=str(path))
        self._outputs = [output.name for output in self._session.get_outputs()]

    def computing(self, precision: str | None) -> str:
        """Return what computes, where, and in which precision, for people."""
        self._refuse_other(precision)
        device = "cuda" if CUDA in self._session.get_providers() else "cpu"
        return described(self.name, device, self.header.precision)

    def run(self, inputs: Inputs, *, precision: str | None) -> dict[str, Tensor]:
        """Return the outputs by name. UserError for a precision other than the file's."""
        self._refuse_other(precision)
        found = self._session.run(self._outputs, dict(inputs))
        return {name: torch.from_numpy(value) for name, value in zip(self._outputs, found, strict=True)}

    def _refuse_other(self, precision: str | None) -> None:
        own = self.header.precision
        if precision not in (None, "auto", own):
            raise UserError(f"the file computes in {own}: leave precision out, or export it in {precision}")


@final
class OpenVino(Engine):
    """Runs an .xml or .onnx file on the CPU, compiled for each precision when it is first asked for."""

    closest = "float32"

    def __init__(self, path: Path, *, device: str | torch.device | None) -> None:
        try:
            import openvino  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UserError(f"{path} runs in OpenVINO: pip install 'gfocal[openvino]'") from error
        if device not in (None, "auto") and _device(device).type != "cpu":
            raise UserError(f"{path}: files of OpenVINO run on the CPU here: take device 'cpu'")
        try:
            self._model = openvino_core().read_model(path)
        except RuntimeError as error:
            raise UserError(f"{path}: OpenVINO cannot read it ({first_line(error)})") from error
        texts: dict[str, str] = {}
        if self._model.has_rt_info(SECTION):
            texts = dict(self._model.get_rt_info(SECTION).value)
        self.name = f"openvino {openvino.__version__}"
        self.header = Header.from_texts(texts, where=str(path))
        self._where = str(path)
        self._programs: dict[torch.dtype, OpenVinoProgram] = {}

    def computing(self, precision: str | None) -> str:
        """Return what computes, where, and in which precision, for people."""
        dtype = precision_name(choose_precision(precision, CPU_DEVICE))
        return described(self.name, "cpu", f"int8 and {dtype}" if self.header.precision == "int8" else dtype)

    def run(self, inputs: Inputs, *, precision: str | None) -> dict[str, Tensor]:
        """Return the outputs by name, all but what is quantised computed in `precision`."""
        return self.ready(precision)(inputs)

    def ready(self, precision: str | None) -> OpenVinoProgram:
        """Return the program compiled for a precision; UserError where OpenVINO cannot compile it."""
        dtype = choose_precision(precision, CPU_DEVICE)
        if dtype not in self._programs:
            try:
                self._programs[dtype] = OpenVinoProgram(self._model, dtype)
            except RuntimeError as error:
                raise UserError(f"OpenVINO cannot compile {self._where} ({first_line(error)})") from error
        return self._programs[dtype]


def _device(named: str | torch.device | None) -> torch.device:
    """Return a CPU or GPU by its name, whether or not PyTorch can use it; UserError for anything else."""
    with suppress(RuntimeError):
        device = torch.device(str(named))
        if device.type in ("cpu", "cuda"):
            return device
    raise unknown("device", str(named), ("auto", "cpu", "cuda"))


CPU_DEVICE = torch.device("cpu")
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
SECTION = "framework"
"""Of what a model of OpenVINO tells of itself: where its reader of ONNX puts the metadata of a file."""

ENGINES: Mapping[str, type[OnnxRuntime] | type[OpenVino]] = {".onnx": OnnxRuntime, ".xml": OpenVino}
