"""Make the goldens of one recipe a family, and of V2: run once, after the outputs were held against the authors' code.

Provenance: at the commits that added them, this package agreed with outputs of github.com/implus/GFocalV2 at bfcc2b9
on weights filled in the same manner: V1 and V2 to 5e-6 in scores and boxes, 5e-7 in losses and 4e-6 in three SGD
steps, the others within 2e-4 in scores, 5e-4 in losses and 1e-3 in gradients and SGD steps, relative. The goldens
keep that state without those files; they were made by this package itself. SSD's is of a quarter of its channels,
which a test on a CPU can train.

Usage: python tests/goldens/make.py [RECIPE ...]
"""

import json
import sys
from pathlib import Path

import numpy as np
from outputs import RECIPES, measure, recipe_of
from weights import official_state

sys.path.insert(0, str(Path(__file__).parents[1]))
from gfocal.builder import build_parts
from helpers import official_name, official_ssd_name

HERE = Path(__file__).parent


def official_keys(recipe):
    """Return the official names and shapes of a recipe's weights: the inverse of the converter, written apart."""
    family, v2 = recipe.family["name"], recipe.quality["name"] == "dgqp"
    head = "gfl" if recipe.box["name"] == "general" else family
    keys = {}
    for key, value in build_parts(recipe).detector.state_dict().items():
        name = official_ssd_name(key, neck=False) if family == "ssd" else official_name(key, head=head)
        keys[name] = list(value.shape)
    if v2:
        for kind in ("weight", "bias"):
            keys[f"bbox_head.gfl_cls.{kind}"][0] = 81
    if head == "gfl":
        keys["bbox_head.integral.project"] = [17]
    return keys


if __name__ == "__main__":
    for name in sys.argv[1:] or RECIPES:
        keys = official_keys(recipe_of(name))
        (HERE / f"{name}.json").write_text(json.dumps(keys, indent=0))
        np.savez_compressed(HERE / f"{name}.npz", **measure(name, official_state(keys)))
