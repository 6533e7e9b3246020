"""A model of OpenVINO as an .xml file with its .bin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gfocal.exported.engines import SECTION


def write_openvino(model: Any, path: Path, *, texts: Mapping[str, str], half: bool = False) -> None:
    """Write a model as .xml and .bin, with `texts` inside. half: store the weights in float16."""
    import openvino  # pyright: ignore[reportMissingImports]

    for key, text in texts.items():
        model.set_rt_info(text, [SECTION, key])
    openvino.save_model(model, path, compress_to_fp16=half)
