"""Files of GFocalV2 and mmdetection, made here from our own weights by the inverse of their names."""

from __future__ import annotations

import contextlib
import pickle
import random
import re
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gfocal.builder import Parts, build_parts
from gfocal.checkpoint import load_state
from gfocal.config import Recipe
from gfocal.errors import UserError
from gfocal.model import load_model
from gfocal.official import (
    BACKBONES,
    IGNORED,
    OfficialFile,
    convert_official,
    read_official,
    recipe_of_official,
)
from gfocal.recipes import RECIPES
from gfocal.weights import open_weights
from helpers import assert_same_weights, official_state, randomised, without_weights

CLASSES = 3


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_official_files_become_our_weights(
    tiny_recipe: Recipe, tiny_recipe_v1: Recipe, tmp_path: Path, version: int, *, wrapped: bool, zipped: bool
) -> None:
    recipe = tiny_recipe if version == 2 else tiny_recipe_v1
    parts = randomised(build_parts(recipe))
    state = official_state(parts)
    if version == 2:
        for name in ("weight", "bias"):
            key = f"bbox_head.gfl_cls.{name}"
            state[key] = torch.cat([state[key], torch.full_like(state[key][:1], 7.0)])
    content: dict[str, Any] = {"meta": {"epoch": 12, "mmdet_version": "2.6.0"}, "state_dict": state}
    path = tmp_path / "official.pth"
    torch.save(content if wrapped else state, path, _use_new_zipfile_serialization=zipped)
    other = without_weights(recipe)
    load_state(other.detector, convert_official(read_official(path), recipe), where=str(path))
    assert_same_weights(parts, other)


def file_of(state: dict[str, Tensor], class_names: tuple[str, ...] | None = None) -> OfficialFile:
    return OfficialFile(Path("file.pth"), state, class_names)


def test_every_official_key_is_renamed_to_one_of_ours(tiny_parts: Parts, tiny_recipe: Recipe, tmp_path: Path) -> None:
    torch.save(official_state(tiny_parts), tmp_path / "official.pth")
    converted = convert_official(read_official(tmp_path / "official.pth"), tiny_recipe)
    own = {key for key in tiny_parts.detector.state_dict() if "num_batches_tracked" not in key}
    assert converted.keys() == own


def test_the_dead_score_of_v2_is_cut_and_the_others_stay(tiny_parts: Parts, tiny_recipe: Recipe) -> None:
    state = official_state(tiny_parts)
    weight = torch.randn(CLASSES + 1, 64, 3, 3)
    state["bbox_head.gfl_cls.weight"] = weight
    state["bbox_head.gfl_cls.bias"] = torch.arange(CLASSES + 1.0)
    converted = convert_official(file_of(state), tiny_recipe)
    assert torch.equal(converted["outputs.0.quality.cls.weight"], weight[:CLASSES])
    assert converted["outputs.0.quality.cls.bias"].tolist() == [0, 1, 2]
    # any other number of classes is left for the user to see
    fewer = tiny_recipe.model_copy(update={"class_names": ("circle", "square")})
    assert convert_official(file_of(state), fewer)["outputs.0.quality.cls.bias"].shape == (CLASSES + 1,)


def test_the_last_score_of_v1_is_a_class(tiny_recipe_v1: Recipe) -> None:
    state = official_state(build_parts(tiny_recipe_v1))
    fewer = tiny_recipe_v1.model_copy(update={"class_names": ("circle", "square")})
    assert convert_official(file_of(state), fewer)["outputs.0.quality.cls.bias"].shape == (CLASSES,)


def test_unknown_official_keys_are_named_by_loading(tiny_parts: Parts, tiny_recipe: Recipe) -> None:
    state = official_state(tiny_parts) | {"bbox_head.unheard_of.bias": torch.zeros(1)}
    del state["bbox_head.integral.project"]
    converted = convert_official(file_of(state), tiny_recipe)
    with pytest.raises(UserError, match=r"unexpected bbox_head\.unheard_of\.bias$"):
        load_state(tiny_parts.detector, converted, where="x")


# ---------------------------------------------------------------- what other versions write


@pytest.mark.parametrize("prefix", ["", "module."])
def test_copies_counters_and_normalisation_are_left_out(
    tiny_parts: Parts, tiny_recipe: Recipe, tmp_path: Path, prefix: str
) -> None:
    """mmdetection 2.x keeps copies for averaging beside the weights, 3.x the mean and std of pictures."""
    state = {prefix + key: value for key, value in official_state(randomised(tiny_parts)).items()}
    copies = {f"ema_{key.replace('.', '_')}": torch.zeros_like(value) for key, value in state.items()}
    further = {f"{prefix}data_preprocessor.mean": torch.zeros(3, 1, 1), f"{prefix}data_preprocessor.std": torch.ones(3)}
    torch.save({"meta": {}, "state_dict": state | copies | further}, tmp_path / "official.pth")
    other = without_weights(tiny_recipe)
    load_state(other.detector, convert_official(read_official(tmp_path / "official.pth"), tiny_recipe), where="x")
    assert_same_weights(tiny_parts, other)


def test_the_weights_of_a_whole_checkpoint_of_3x_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the weights it holds curves as objects of mmengine, which need not be there, and arrays of numpy."""

    class HistoryBuffer:
        def __init__(self) -> None:
            self.max_length = 1000000
            self._log_history = np.linspace(0, 1, 5)
            self._count_history = np.ones(5, dtype=np.int64)

    module = types.ModuleType("mmengine.logging.history_buffer")
    module.HistoryBuffer = HistoryBuffer
    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    content = {
        "meta": {"epoch": 12, "seed": np.float64(1.5), "dataset_meta": {"CLASSES": ("cat", "dog")}},
        "state_dict": {"weight": torch.arange(3.0)},
        "message_hub": {"log_scalars": {"train/loss": HistoryBuffer()}},
        "ema_state_dict": {"steps": torch.zeros(()), "module.weight": torch.zeros(3)},
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.01, "params": [0]}]},
    }
    with monkeypatch.context() as patch:
        for name in ("mmengine", "mmengine.logging"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        patch.setitem(sys.modules, module.__name__, module)
        torch.save(content, tmp_path / "epoch_12.pth")
    file = read_official(tmp_path / "epoch_12.pth")
    assert file.state["weight"].tolist() == [0, 1, 2]
    assert list(file.state) == ["weight"]
    assert file.class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("meta", "names"),
    [
        ({"CLASSES": ("cat", "dog")}, ("cat", "dog")),
        ({"CLASSES": None}, None),
        ({"dataset_meta": {"classes": ["cat"]}}, ("cat",)),
        ({"CLASSES": [1, 2]}, None),
        (None, None),
    ],
)
def test_class_names_are_found_where_a_file_tells_them(
    tmp_path: Path, meta: object, names: tuple[str, ...] | None
) -> None:
    torch.save({"meta": meta, "state_dict": {"weight": torch.zeros(1)}}, tmp_path / "file.pth")
    assert read_official(tmp_path / "file.pth").class_names == names


# ---------------------------------------------------------------- which recipe a file is of


def shapes_of(recipe: Recipe) -> dict[str, Tensor]:
    """Return the official state dict of a recipe, without memory; V2 with its dead score."""
    with torch.device("meta"):
        state = official_state(build_parts(recipe))
        if recipe.quality["name"] == "dgqp":
            for name in ("weight", "bias"):
                value = state[f"bbox_head.gfl_cls.{name}"]
                state[f"bbox_head.gfl_cls.{name}"] = torch.empty(value.shape[0] + 1, *value.shape[1:])
    return {key: value for key, value in state.items() if not re.fullmatch(IGNORED, key)}


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("gfl") and "mini" not in name])
def test_the_recipe_of_an_official_file_is_found(name: str) -> None:
    recipe = RECIPES[name]()
    found = recipe_of_official(file_of(shapes_of(recipe)))
    if "r50" in name:  # no key tells 12 epochs from 24
        recipe = RECIPES[name.replace("ms2x", "1x")]()
    assert found == recipe


@pytest.mark.parametrize("name", sorted(set(BACKBONES.values())))
def test_the_backbone_of_an_official_file_is_found(name: str) -> None:
    base = RECIPES["gfl_r101_fpn_ms2x"]()
    recipe = base.model_copy(update={"backbone": base.backbone.model_copy(update={"name": name})})
    state = shapes_of(recipe)
    found = recipe_of_official(file_of(state))
    assert found.backbone == recipe.backbone
    assert convert_official(file_of(state), found).keys() == {
        key for key in detector_keys(found) if "num_batches_tracked" not in key
    }


def detector_keys(recipe: Recipe) -> set[str]:
    with torch.device("meta"):
        return set(build_parts(recipe).detector.state_dict())


@pytest.mark.parametrize("base", ["gfl_r50_fpn_1x", "gflv2_r50_fpn_1x"])
def test_other_widths_and_classes_are_found_from_the_shapes(base: str) -> None:
    recipe = RECIPES[base]()
    quality = {"name": "dgqp", "top_k": 3, "hidden": 32} if "v2" in base else recipe.quality
    changed = recipe.model_copy(
        update={
            "class_names": ("cat", "dog"),
            "box": {"name": "general", "n": 12},
            "quality": quality,
            "head": recipe.head.model_copy(update={"channels": 128, "depth": 2}),
        }
    )
    found = recipe_of_official(file_of(shapes_of(changed), ("cat", "dog")))
    assert (found.box, found.quality, found.head) == (changed.box, changed.quality, changed.head)
    assert found.class_names == ("cat", "dog")
    unnamed = recipe_of_official(file_of(shapes_of(changed)))
    assert unnamed.class_names == ("class 0", "class 1")


def test_eighty_scores_without_names_are_those_of_coco() -> None:
    recipe = RECIPES["gflv2_r50_fpn_1x"]()
    for count in (79, 80):  # the file of V2 has one more, or with a later head as many as there are classes
        names = tuple(f"class {label}" for label in range(count))
        found = recipe_of_official(file_of(shapes_of(recipe.model_copy(update={"class_names": names}))))
        assert found.class_names == recipe.class_names


def test_the_version_of_deformable_convolutions_is_read_off_the_file(tmp_path: Path) -> None:
    base = RECIPES["gfl_r50_fpn_1x"]()
    second = {"deformable": (4,), "deformable_version": 2}
    recipe = base.model_copy(update={"backbone": base.backbone.model_copy(update=second)})
    state = {key: torch.zeros(value.shape) for key, value in shapes_of(recipe).items()}
    torch.save({"state_dict": state}, tmp_path / "file.pth")
    first = recipe.model_copy(update={"backbone": recipe.backbone.model_copy(update={"deformable_version": 1})})
    for given in (None, first):
        weights = open_weights(tmp_path / "file.pth", recipe=given)
        assert weights.recipe.backbone == recipe.backbone
        assert load_model(tmp_path / "file.pth", recipe=given, device="cpu").recipe == weights.recipe


def test_files_whose_recipe_cannot_be_found_ask_for_it() -> None:
    found = shapes_of(RECIPES["gfl_r50_fpn_1x"]())
    without = {key: value for key, value in found.items() if not key.startswith("backbone.layer3.2.")}
    for state in ({}, {"bbox_head.retina_cls.weight": torch.zeros(0)}, without, {**found, GFL[0]: torch.zeros(0)}):
        with pytest.raises(UserError, match=r"file\.pth: .*name its recipe"):
            recipe_of_official(file_of(state))
    for key in GFL:
        with pytest.raises(UserError, match=r"file\.pth: "):
            recipe_of_official(file_of({name: value for name, value in found.items() if name != key}))


GFL = ("bbox_head.gfl_cls.weight", "bbox_head.gfl_reg.weight")


class Touch:
    """Unpickled by an ordinary reader, this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "kind",
    [
        "zip",
        "legacy",
        "pickle 2",
        "pickle 4",
    ],
)
def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, kind: str) -> None:
    trace, path = tmp_path / "trace", tmp_path / "evil.pth"
    content = {"state_dict": {"weight": torch.zeros(2)}, "meta": Touch(trace)}
    if kind.startswith("pickle"):
        path.write_bytes(pickle.dumps(content, protocol=int(kind[-1])))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(UserError, match=r"evil\.pth: .*refused for safety") as caught:
        read_official(path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()
    # the file does what this test fears
    pickle.loads(pickle.dumps(Touch(trace)))
    assert trace.exists()


@pytest.mark.parametrize("zipped", [False, True])
def test_an_official_file_cut_anywhere_is_refused(tmp_path: Path, *, zipped: bool) -> None:
    path = tmp_path / "cut.pth"
    state = {f"layer.{i}.weight": torch.randn(20, 3) for i in range(8)}
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    rng = random.Random(1)
    for length in [0, 1, 2, 3, 10, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(60))]:
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.pth") as caught:
            read_official(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_damaged_official_file_is_read_or_refused(tmp_path: Path, *, zipped: bool) -> None:
    path = tmp_path / "damaged.pth"
    torch.save({f"layer.{i}.weight": torch.randn(2) for i in range(4)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    rng = random.Random(2)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] = rng.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(UserError):
            read_official(path)


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html>\n<html><head><title>Google Drive - Virus scan warning</title></head></html>\n",
        b"\n\n<html>",
        b"Not Found",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        b"\x00" * 1000,
        b"\xff" * 1000,
        bytes(range(256)) * 8,
        b"PK\x03\x04" + b"\x00" * 100,
    ],
)
def test_a_page_saved_under_the_name_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "page.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"page\.pth") as caught:
        read_official(path)
    assert "\n" not in str(caught.value)


def test_a_zip_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pictures.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", b"not a picture")
    with pytest.raises(UserError, match=r"pictures\.pth"):
        read_official(path)


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(2)],
        torch.zeros(2),
        {"model": {"weight": torch.zeros(2)}},
        {"state_dict": {"weight": 3}},
        {"state_dict": None},
        3,
    ],
)
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "none.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match=r"none\.pth: holds no state dict"):
        read_official(path)


def test_a_state_dict_whose_keys_are_no_names_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.pth"
    torch.save({0: torch.zeros(2)}, path)
    with pytest.raises(UserError, match=r"none\.pth: holds no state dict"):
        read_official(path)


def test_an_official_file_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "folder.pth"
    folder.mkdir()
    for path in (tmp_path / "missing.pth", folder):
        with pytest.raises(UserError, match=path.name):
            read_official(path)
