"""Weights on disk: our safetensors with the recipe inside, and the authors' and mmdetection's files."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from gfocal.config import Recipe
from gfocal.errors import UserError
from gfocal.files import whole_or_absent

FORMAT = "gfocal-1"


def save_weights(path: Path, detector: nn.Module, recipe: Recipe) -> None:
    """Write the detector's weights and its recipe as safetensors; the file is whole or absent."""
    state = {key: value.contiguous() for key, value in detector.state_dict().items() if _is_weight(key)}
    metadata = {"format": FORMAT, "recipe": json.dumps(recipe.model_dump(mode="json"))}
    with whole_or_absent(path) as scratch:
        safetensors.torch.save_file(state, scratch, metadata)


def read_weights(path: Path) -> tuple[Recipe, dict[str, Tensor]]:
    """Read a file of `save_weights`; UserError where it is missing, broken or of another kind."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  a file, not a dict
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file, or cut short ({error})") from error
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path}: holds no gfocal model (format {metadata.get('format')!r}, expected {FORMAT!r})")
    try:
        values = json.loads(metadata["recipe"])
    except (KeyError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: holds no readable recipe") from error
    return Recipe.from_values(values, where=f"{path}, recipe"), state


def read_official(path: Path) -> dict[str, Tensor]:
    """Read the state dict of a GFocalV2 or mmdetection .pth file, under its own keys.

    No code in the file is run. UserError where it is missing, cut short, holds code, or no state dict.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's remarks on odd pickles, which are refused below or fine
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    except pickle.UnpicklingError as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise UserError(f"{path}: not a plain PyTorch checkpoint, refused for safety ({reason})") from error
    except Exception as error:  # a damaged pickle fails in any way: EOFError, IndexError, struct.error, ...
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a PyTorch checkpoint, or cut short ({reason})") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(f"{path}: holds no state dict of tensors")
    return state


def convert_official(state: Mapping[str, Tensor], *, num_classes: int) -> dict[str, Tensor]:
    """Return an official state dict under this package's keys; keys that nothing is known of stay as they are."""
    converted: dict[str, Tensor] = {}
    has_dead_score = "bbox_head.reg_conf.0.weight" in state
    for key, value in state.items():
        if not _is_weight(key) or key in OFFICIAL_IGNORED:
            continue
        name = _rename(key)
        # V2's file has one score more than classes, which no class uses
        dead = has_dead_score and name.startswith("quality.cls.") and value.shape[0] == num_classes + 1
        converted[name] = value[:num_classes] if dead else value
    return converted


def recipe_of_official(state: Mapping[str, Tensor], *, where: str) -> str:
    """Return the name of the recipe whose graph fits an official GFL file, found from its keys; UserError if none."""
    if "bbox_head.gfl_reg.weight" not in state:
        raise UserError(f"{where}: not a GFL V1 or V2 file: name its recipe")
    version = "gflv2" if "bbox_head.reg_conf.0.weight" in state else "gfl"
    blocks = len({key.split(".")[2] for key in state if key.startswith("backbone.layer3.")})
    depth = {6: "r50", 23: "r101"}.get(blocks)
    if depth != "r50":
        raise UserError(f"{where}: its backbone is not ResNet-50: name its recipe")
    return f"{version}_r50_fpn_1x"


def load_state(detector: nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Load all weights or none; UserError names every missing, unexpected and misshapen key."""
    own = {key: value for key, value in detector.state_dict().items() if _is_weight(key)}
    problems = [
        *(f"missing {key}" for key in own if key not in state),
        *(f"unexpected {key}" for key in state if key not in own),
        *(
            f"{key} is {tuple(value.shape)}, the model's {tuple(own[key].shape)}"
            for key, value in state.items()
            if key in own and value.shape != own[key].shape
        ),
    ]
    if problems:
        raise UserError(f"{where}: does not fit the model: {'; '.join(problems)}")
    # the counters of batch norms are the only keys that own leaves out
    detector.load_state_dict(dict(state), strict=False)


def _is_weight(key: str) -> bool:
    return not key.endswith("num_batches_tracked")


def _rename(key: str) -> str:
    for pattern, name in OFFICIAL_KEYS.items():
        found = re.fullmatch(pattern, key)
        if found:
            return name(found) if callable(name) else found.expand(name)
    return key


def _pyramid(found: re.Match[str]) -> str:
    level = int(found[1])
    return f"fpn.output.{level}.{found[2]}" if level < 3 else f"fpn.extra.{level - 3}.{found[2]}"


OFFICIAL_IGNORED = frozenset({"bbox_head.integral.project"})
"""Keys of official files that hold constants: the bins of the integral."""

OFFICIAL_KEYS: Mapping[str, str | Callable[[re.Match[str]], str]] = {
    r"neck\.lateral_convs\.(\d)\.conv\.(\w+)": r"fpn.lateral.\1.\2",
    r"neck\.fpn_convs\.(\d)\.conv\.(\w+)": _pyramid,
    r"bbox_head\.cls_convs\.(\d)\.conv\.(\w+)": r"trunk.cls.\1.conv.\2",
    r"bbox_head\.cls_convs\.(\d)\.gn\.(\w+)": r"trunk.cls.\1.norm.\2",
    r"bbox_head\.reg_convs\.(\d)\.conv\.(\w+)": r"trunk.box.\1.conv.\2",
    r"bbox_head\.reg_convs\.(\d)\.gn\.(\w+)": r"trunk.box.\1.norm.\2",
    r"bbox_head\.gfl_cls\.(\w+)": r"quality.cls.\1",
    r"bbox_head\.gfl_reg\.(\w+)": r"box_conv.\1",
    r"bbox_head\.scales\.(\d)\.scale": r"scales.\1",
    r"bbox_head\.reg_conf\.(\d)\.(\w+)": r"quality.predictor.\1.\2",
}
"""Official keys of GFL V1 and V2, as patterns, and ours; backbone keys are the same in both."""
