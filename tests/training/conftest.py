"""A data set and a recipe that train in a second."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from gfocal.config import ScheduleConfig


@pytest.fixture
def data(tmp_path):
    """Eight pictures of one bright square each, in a data.yaml with train and val."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    (tmp_path / "images").mkdir()
    for index in range(8):
        picture = np.full((64, 96, 3), rng.integers(0, 60), dtype=np.uint8)
        x, y, side = rng.integers(0, 60), rng.integers(0, 30), rng.integers(16, 32)
        picture[y : y + side, x : x + side] = 220
        Image.fromarray(picture).save(tmp_path / "images" / f"{index}.png")
        images.append({"id": index, "file_name": f"{index}.png", "height": 64, "width": 96})
        box = [int(x), int(y), int(side), int(side)]
        annotations.append({"id": index, "image_id": index, "category_id": 1 + index % 2, "bbox": box})
    categories = [{"id": 1, "name": "left"}, {"id": 2, "name": "right"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "labels.json").write_text(json.dumps(content))
    split = {"images": "images", "annotations": "labels.json"}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"train": split, "val": split}))
    return tmp_path / "data.yaml"


@pytest.fixture
def recipe(tiny_recipe):
    schedule = ScheduleConfig(optimizer="adamw", lr=2e-3, batch=4, steps=3, validations=1, warmup=1, decay="cosine")
    return tiny_recipe.model_copy(update={"schedule": schedule})
