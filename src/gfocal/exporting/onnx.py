"""A program as an .onnx file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from gfocal.programs.suppression import to_onnx
from gfocal.programs.tracing import output_names

OPSET = 19
"""The first that has DeformConv, which deformable convolutions become."""


def convert_onnx(program: ExportedProgram, *, optimize: bool = False) -> Any:
    """Return the program as an `onnx.ModelProto`.

    optimize: fold what is constant, which the runtimes do as well, as they read a file, but quantisation does not.
    """
    made = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        output_names=output_names(program),
        optimize=optimize,
        verbose=False,
        custom_translation_table={torch.ops.gfocal.kept_scores.default: to_onnx},
    )
    assert made is not None
    for node in made.model.graph.all_nodes():
        node.metadata_props.clear()  # where in whose folders the lines of code lie that made it
    return made.model_proto


def write_onnx(model: Any, path: Path, *, texts: Mapping[str, str]) -> None:
    """Write a model as one file, with `texts` in its metadata."""
    import onnx  # pyright: ignore[reportMissingImports]

    onnx.helper.set_model_props(model, dict(texts))
    onnx.save(model, path)
