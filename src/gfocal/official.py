"""Weight files of the authors and of mmdetection 2.x and 3.x: read without running code, recognised, renamed."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast, final

import torch
from torch import Tensor
from torch.serialization import safe_globals

from gfocal.config import BackboneConfig, Recipe
from gfocal.errors import UserError
from gfocal.recipes import RECIPES
from gfocal.recipes.shared import COCO_CLASSES

State: TypeAlias = "dict[str, Tensor]"
KeyMap: TypeAlias = "Mapping[str, str]"

NAME_IT = "name its recipe: gfocal.load(FILE, recipe=NAME), or gfocal convert FILE OUT.safetensors --recipe NAME"


@dataclass(frozen=True)
class OfficialFile:
    """What such a file holds: weights under their official keys, and the names of the classes where it tells them."""

    path: Path
    state: State
    class_names: tuple[str, ...] | None


def read_official(path: Path) -> OfficialFile:
    """Read a GFocalV2 or mmdetection .pth file; no code in it is run, and weights stay on disk until they are used.

    Copies for averaging (`ema_…`) are left out: the plain keys hold the average. UserError where the file is missing,
    cut short, holds code, or no state dict.
    """
    try:
        # memory mapping is for the format that PyTorch writes since 1.6
        mapped = zipfile.is_zipfile(path)
        with warnings.catch_warnings(), safe_globals([(_Inert, name) for name in INERT]):
            warnings.simplefilter("ignore")  # PyTorch's remarks on odd pickles, which are refused below or fine
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    except Exception as error:  # a damaged pickle fails in any way: EOFError, IndexError, struct.error, ...
        raise _refusal(path, error) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(f"{path}: holds no state dict of tensors")
    plain = {key.removeprefix("module."): value for key, value in cast("State", state).items()}
    kept = {key: value for key, value in plain.items() if not re.match(IGNORED, key)}
    return OfficialFile(path, kept, _class_names(content))


def _refusal(path: Path, error: Exception) -> UserError:
    """Return what to tell the user of a file that PyTorch's safe reader does not take."""
    with path.open("rb") as file:
        if file.read(64).lstrip().lower().startswith((b"<!doctype", b"<html")):
            return UserError(f"{path}: a web page, not weights: the download went wrong")
    if not isinstance(error, pickle.UnpicklingError):
        return UserError(f"{path}: not a PyTorch checkpoint, or cut short ({type(error).__name__})")
    unknown = re.search(r"GLOBAL ([\w.]+)", str(error))
    what = f"holds {unknown[1]}, which is no plain data" if unknown else "not a plain PyTorch checkpoint"
    return UserError(
        f"{path}: {what}, refused for safety: save the state dict alone where it was trained, and load that"
    )


@final
class _Inert:
    """Stands for what training leaves in a checkpoint beside the weights: takes anything and does nothing."""

    def __init__(self, *arguments: object) -> None:
        """Ignore what the file calls this with."""

    def __setstate__(self, state: object) -> None:
        """Ignore what the file wants this to hold."""


def _class_names(content: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the classes that the file's description names: mmdetection 2.x as CLASSES, 3.x within dataset_meta."""
    meta = content.get("meta")
    places = (meta, meta.get("dataset_meta")) if isinstance(meta, dict) else ()
    for place in places:
        for key in ("CLASSES", "classes"):
            names = place.get(key) if isinstance(place, dict) else None
            if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
                return tuple(names)
    return None


def convert_official(file: OfficialFile, recipe: Recipe) -> State:
    """Return the weights under this package's keys; keys that nothing is known of stay as they are."""
    num_classes = len(recipe.class_names)
    tables = (*SHARED_KEYS, HEAD_KEYS.get(str(recipe.family["name"]), {}))
    converted: State = {}
    for key, value in file.state.items():
        name = _renamed(key, tables)
        # V2's file has one score more than classes, which no class uses
        dead = V2_MARK in file.state and name.startswith("outputs.0.quality.cls.") and value.shape[0] == num_classes + 1
        converted[name] = value[:num_classes] if dead else value
    return converted


def _renamed(key: str, tables: tuple[KeyMap, ...]) -> str:
    for table in tables:
        for pattern, name in table.items():
            found = re.fullmatch(pattern, key)
            if found:
                return found.expand(name)
    return key


def recipe_of_official(file: OfficialFile) -> Recipe:
    """Return the recipe that fits a GFL V1 or V2 file, found from its keys and shapes.

    A backbone of the published models gives their recipe (ResNet-50 that of 12 epochs, which no key tells from 24);
    any other one, or other widths, a recipe made for the file. UserError for other families, and backbones that are
    neither ResNet, ResNeXt nor Res2Net.
    """
    state = file.state
    if any(state.get(key, torch.zeros(())).ndim != 4 for key in (V1_MARK, CLASS_KEY)):
        raise UserError(f"{file.path}: not a GFL V1 or V2 file: {NAME_IT}")
    version = "gflv2" if V2_MARK in state else "gfl"
    backbone = _backbone(file)
    base = next(
        (
            recipe
            for recipe in (make() for name, make in RECIPES.items() if name.startswith(f"{version}_"))
            if recipe.backbone == backbone
        ),
        RECIPES[f"{version}_r50_fpn_ms2x"]().model_copy(update={"name": file.path.stem, "expected": ()}),
    )
    quality = {"name": "joint"}
    if version == "gflv2":
        hidden, statistics = state[V2_MARK].shape[:2]
        quality = {"name": "dgqp"} | _unless(
            {"top_k": statistics // 4 - 1, "hidden": hidden}, {"top_k": 4, "hidden": 64}
        )
    n = state[V1_MARK].shape[0] // 4 - 1
    depth = len({key for key in state if re.fullmatch(r"bbox_head\.cls_convs\.\d+\.conv\.weight", key)})
    values = base.model_dump(mode="json") | {
        "backbone": backbone.model_dump(mode="json"),
        "quality": quality,
        "box": {"name": "general"} | _unless({"n": n}, {"n": 16}),
        "head": {"channels": state[V1_MARK].shape[1], "depth": depth},
        "class_names": _names(file, state[CLASS_KEY].shape[0], version=version),
    }
    return Recipe.from_values(values, where=str(file.path))


def fitted(recipe: Recipe, file: OfficialFile) -> Recipe:
    """Return the recipe with the version of deformable convolutions that the file's weights are of."""
    version = _deformable_version(file.state) or recipe.backbone.deformable_version
    return recipe.model_copy(update={"backbone": recipe.backbone.model_copy(update={"deformable_version": version})})


def _unless(values: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """Return the values, or nothing where they are the usual ones, which a recipe does not spell out."""
    return {} if values == usual else values


def _names(file: OfficialFile, outputs: int, *, version: str) -> tuple[str, ...]:
    """Return the class names of a file with some number of class outputs, one of V2's being dead."""
    possible = (outputs,) if version == "gfl" else (outputs - 1, outputs)
    if file.class_names is not None and len(file.class_names) in possible:
        return file.class_names
    return COCO_CLASSES if len(COCO_CLASSES) in possible else tuple(f"class {label}" for label in range(possible[0]))


def _backbone(file: OfficialFile) -> BackboneConfig:
    """Return the backbone whose graph fits the keys of a file."""
    state = file.state
    blocks = tuple(
        len({found[1] for key in state if (found := re.match(rf"backbone\.layer{stage}\.(\d+)\.", key))})
        for stage in (1, 2, 3, 4)
    )
    # channels of a group in the 3x3 convolution of the first block tell ResNeXt's width; Res2Net splits it
    second = state.get("backbone.layer1.0.conv2.weight")
    kind = "res2net" if "backbone.layer1.0.convs.0.weight" in state else "basic"
    if "backbone.layer1.0.conv3.weight" in state and second is not None:
        groups, width = second.shape[0] // second.shape[1], second.shape[1]
        kind = "resnet" if groups == 1 else f"{groups}x{width}d"
    name = BACKBONES.get((kind, blocks))
    if name is None:
        raise UserError(f"{file.path}: its backbone is no ResNet, ResNeXt or Res2Net that is known: {NAME_IT}")
    deformable = sorted(
        {int(found[1]) for key in state if (found := re.match(r"backbone\.layer(\d)\..*conv_offset\.weight", key))}
    )
    return BackboneConfig(name=name, deformable=tuple(deformable), deformable_version=_deformable_version(state) or 1)


def _deformable_version(state: State) -> Any:
    """Return 1 or 2 by the channels of the offsets (18, or 27 with masks), or None where there are none."""
    channels = {value.shape[0] for key, value in state.items() if key.endswith("conv_offset.weight")}
    return {frozenset({18}): 1, frozenset({27}): 2}.get(frozenset(channels))


CLASS_KEY = "bbox_head.gfl_cls.weight"
V1_MARK = "bbox_head.gfl_reg.weight"
V2_MARK = "bbox_head.reg_conf.0.weight"
"""Keys that tell GFL files from others, and V2 from V1."""

INERT = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    "numpy.ndarray",
    "numpy.dtype",
)
"""What checkpoints hold of a run's history; it is not built, so it need not be trusted."""

IGNORED = r".*\.num_batches_tracked|ema_.*|data_preprocessor\..*|bbox_head\.integral\.project"
"""Keys of no weight of a detector: counters, copies for averaging, the normalisation of pictures, constants."""

SHARED_KEYS: tuple[KeyMap, ...] = (
    {  # the deep stem of Res2Net, timm's conv1 and bn1
        r"backbone\.stem\.([01346])\.(\w+)": r"backbone.conv1.\1.\2",
        r"backbone\.stem\.7\.(\w+)": r"backbone.bn1.\1",
    },
    {  # FPN, and the levels added to it
        r"neck\.lateral_convs\.(\d)\.conv\.(\w+)": r"neck.lateral.\1.\2",
        r"neck\.fpn_convs\.([0-2])\.conv\.(\w+)": r"neck.output.\1.\2",
        r"neck\.fpn_convs\.3\.conv\.(\w+)": r"neck.extra.0.\1",
        r"neck\.fpn_convs\.4\.conv\.(\w+)": r"neck.extra.1.\1",
    },
    {  # towers, with and without group norm
        r"bbox_head\.cls_convs\.(\d)\.conv\.(\w+)": r"trunk.cls.\1.conv.\2",
        r"bbox_head\.cls_convs\.(\d)\.gn\.(\w+)": r"trunk.cls.\1.norm.\2",
        r"bbox_head\.reg_convs\.(\d)\.conv\.(\w+)": r"trunk.box.\1.conv.\2",
        r"bbox_head\.reg_convs\.(\d)\.gn\.(\w+)": r"trunk.box.\1.norm.\2",
        r"bbox_head\.scales\.(\d)\.scale": r"scales.\1.scale",
    },
)
"""Official keys as patterns, and ours, that files of several families share."""

HEAD_KEYS: Mapping[str, KeyMap] = {
    "atss": {
        r"bbox_head\.gfl_cls\.(\w+)": r"outputs.0.quality.cls.\1",
        r"bbox_head\.gfl_reg\.(\w+)": r"outputs.0.box_conv.\1",
        r"bbox_head\.reg_conf\.(\d)\.(\w+)": r"outputs.0.quality.predictor.\1.\2",
        r"bbox_head\.atss_cls\.(\w+)": r"outputs.0.quality.cls.\1",
        r"bbox_head\.atss_reg\.(\w+)": r"outputs.0.box_conv.\1",
        r"bbox_head\.atss_centerness\.(\w+)": r"outputs.0.quality.branch.\1",
    },
    "fcos": {
        r"bbox_head\.(?:conv|fcos)_cls\.(\w+)": r"outputs.0.quality.cls.\1",
        r"bbox_head\.(?:conv|fcos)_reg\.(\w+)": r"outputs.0.box_conv.\1",
        r"bbox_head\.(?:conv|fcos)_centerness\.(\w+)": r"outputs.0.quality.branch.\1",
    },
    "retinanet": {
        r"bbox_head\.retina_cls\.(\w+)": r"outputs.0.quality.cls.\1",
        r"bbox_head\.retina_reg\.(\w+)": r"outputs.0.box_conv.\1",
    },
    "foveabox": {
        r"bbox_head\.(?:conv|fovea)_cls\.(\w+)": r"outputs.0.quality.cls.\1",
        r"bbox_head\.(?:conv|fovea)_reg\.(\w+)": r"outputs.0.box_conv.\1",
    },
    "ssd": {
        # the levels added and the norm moved from backbone to neck, and the levels into pairs
        **{
            pattern: rf"neck.extra.{level}.{name}.\1"
            for level in range(5)
            for part, name in enumerate(("squeeze", "shrink"))
            for pattern in (
                rf"backbone\.extra\.{2 * level + part}\.(\w+)",
                rf"neck\.extra_layers\.{level}\.{part}\.conv\.(\w+)",
            )
        },
        r"(?:backbone|neck)\.l2_norm\.(\w+)": r"neck.l2_norm.\1",
        r"bbox_head\.cls_convs\.(\d)(?:\.0)?\.(weight|bias)": r"outputs.\1.quality.cls.\2",
        r"bbox_head\.reg_convs\.(\d)(?:\.0)?\.(weight|bias)": r"outputs.\1.box_conv.\2",
    },
}
"""Official keys of each family's output layers, and ours."""

BACKBONES: Mapping[tuple[str, tuple[int, ...]], str] = {
    ("basic", (2, 2, 2, 2)): "resnet18.tv_in1k",
    ("basic", (3, 4, 6, 3)): "resnet34.tv_in1k",
    ("resnet", (3, 4, 6, 3)): "resnet50.tv_in1k",
    ("resnet", (3, 4, 23, 3)): "resnet101.tv_in1k",
    ("resnet", (3, 8, 36, 3)): "resnet152.tv_in1k",
    ("32x4d", (3, 4, 6, 3)): "resnext50_32x4d.tv_in1k",
    ("32x4d", (3, 4, 23, 3)): "resnext101_32x4d.gluon_in1k",
    ("64x4d", (3, 4, 23, 3)): "resnext101_64x4d.gluon_in1k",
    ("32x8d", (3, 4, 23, 3)): "resnext101_32x8d.tv_in1k",
    ("res2net", (3, 4, 6, 3)): "res2net50d.in1k",
    ("res2net", (3, 4, 23, 3)): "res2net101d.in1k",
}
"""timm's name of each backbone: kind of its blocks, and how many a stage has."""
