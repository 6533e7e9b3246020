"""What is exported of every family finds what its model finds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from exports import assert_agree, lively, small
from gfocal.config import BackboneConfig, Recipe
from gfocal.exported import load_exported
from gfocal.exported.header import Header
from gfocal.exported.model import detections_of
from gfocal.exporting.onnx import convert_onnx, write_onnx
from gfocal.programs.graph import DetectionGraph
from gfocal.programs.tracing import trace
from gfocal.structures import Detections

VGG = BackboneConfig(name="ssd_vgg16", weights="none", width=0.25)
RECIPES = [
    *(small(name) for name in ("gfl_r50_fpn_1x", "atss_r50_fpn_1x", "fcos_r50_fpn_1x", "foveabox_r50_fpn_1x")),
    small("retinanet_r50_fpn_1x"),
    small("ssd512_vgg16", backbone=VGG),
]


def side_of(recipe: Recipe) -> int:
    """Return the side in pixels of a picture on which much is found, a multiple of 32."""
    return 512 if recipe.name.startswith("ssd") else 128


def batch_of(recipe: Recipe) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """Return two pictures, one of them smaller than the batch."""
    side = side_of(recipe)
    return torch.randn(2, 3, side, side + 32), [(side, side + 32), (side - 20, side)]


def assert_all_agree(found: list[Detections], expected: list[Detections]) -> None:
    assert sum(map(len, expected)) > 50
    for one, other in zip(found, expected, strict=True):
        assert_agree(one, other)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_the_graph_agrees(recipe: Recipe) -> None:
    model = lively(recipe)
    images, sizes = batch_of(recipe)
    with torch.inference_mode():
        outputs = DetectionGraph(model.detector, model.postprocess).eval()(images, torch.tensor(sizes))
    threshold = recipe.test.score_threshold
    found = [
        detections_of(outputs, index, scale=(1.0, 1.0), threshold=threshold, class_names=recipe.class_names)
        for index in range(2)
    ]
    assert_all_agree(found, model.find(images, sizes, precision="float32"))


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_the_file_agrees(recipe: Recipe, tmp_path: Path) -> None:
    model = lively(recipe)
    program = trace(model.detector, model.postprocess, least_side=side_of(recipe))
    texts = Header(recipe, "detections", "float32").to_texts()
    write_onnx(convert_onnx(program), tmp_path / "model.onnx", texts=texts)
    images, sizes = batch_of(recipe)
    found = load_exported(tmp_path / "model.onnx").find(images, sizes)
    assert_all_agree(found, model.find(images, sizes, precision="float32"))
