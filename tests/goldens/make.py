"""Make the goldens of ResNet-50 V1 and V2: run once, after the outputs were held against the authors' code.

Provenance: at the commit that added them, this package agreed with outputs of github.com/implus/GFocalV2 at bfcc2b9
(scores and boxes to 5e-6, losses to 5e-7, three SGD steps to 4e-6, relative) on weights filled in the same manner.
The goldens keep that state without those files. Usage: python tests/goldens/make.py
"""

import json
from pathlib import Path

import numpy as np
from weights import official_state

from gfocal.builder import build_parts
from gfocal.recipes import get_recipe

HERE = Path(__file__).parent
RECIPES = ("gfl_r50_fpn_1x", "gflv2_r50_fpn_1x")


def official_keys(detector):
    """Return the official names and shapes of a detector's weights: the inverse of the converter, written apart."""
    keys = {}
    for key, value in detector.state_dict().items():
        shape = list(value.shape)
        part, _, rest = key.partition(".")
        if part == "backbone":
            name = key
        elif part == "fpn":
            kind, index, kept = rest.split(".")
            index = int(index) + (3 if kind == "extra" else 0)
            name = f"neck.{'lateral' if kind == 'lateral' else 'fpn'}_convs.{index}.conv.{kept}"
        elif part == "trunk":
            tower, index, layer, kept = rest.split(".")
            name = f"bbox_head.{'reg' if tower == 'box' else tower}_convs.{index}.{layer.replace('norm', 'gn')}.{kept}"
        elif part == "box_conv":
            name = f"bbox_head.gfl_reg.{rest}"
        elif part == "scales":
            name = f"bbox_head.scales.{rest}.scale"
        elif rest.startswith("cls."):
            name = f"bbox_head.gfl_cls.{rest.removeprefix('cls.')}"
        else:
            name = f"bbox_head.reg_conf.{rest.removeprefix('predictor.')}"
        keys[name] = shape
    if "bbox_head.reg_conf.0.weight" in keys:
        for kind in ("weight", "bias"):
            keys[f"bbox_head.gfl_cls.{kind}"][0] = 81
    keys["bbox_head.integral.project"] = [17]
    return keys


if __name__ == "__main__":
    from outputs import measure

    for recipe in RECIPES:
        keys = official_keys(build_parts(get_recipe(recipe)).detector)
        (HERE / f"{recipe}.json").write_text(json.dumps(keys, indent=0))
        np.savez_compressed(HERE / f"{recipe}.npz", **measure(recipe, official_state(keys)))
