"""Files of GFocalV2 and mmdetection, made here from our own weights by the inverse of their names."""

from __future__ import annotations

import contextlib
import pickle
import random
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gfocal.builder import Parts, build_parts
from gfocal.checkpoint import convert_official, load_state, read_official, recipe_of_official
from gfocal.config import Recipe
from gfocal.errors import UserError
from helpers import assert_same_weights, randomised, without_weights

CLASSES = 3


def official_name(key: str) -> str:
    """Return the name that the authors' code gives to one of our weights."""
    rules = [
        (r"fpn\.lateral\.(\d)\.(\w+)", r"neck.lateral_convs.\1.conv.\2"),
        (r"fpn\.output\.(\d)\.(\w+)", r"neck.fpn_convs.\1.conv.\2"),
        (r"fpn\.extra\.0\.(\w+)", r"neck.fpn_convs.3.conv.\1"),
        (r"fpn\.extra\.1\.(\w+)", r"neck.fpn_convs.4.conv.\1"),
        (r"trunk\.cls\.(\d)\.conv\.(\w+)", r"bbox_head.cls_convs.\1.conv.\2"),
        (r"trunk\.cls\.(\d)\.norm\.(\w+)", r"bbox_head.cls_convs.\1.gn.\2"),
        (r"trunk\.box\.(\d)\.conv\.(\w+)", r"bbox_head.reg_convs.\1.conv.\2"),
        (r"trunk\.box\.(\d)\.norm\.(\w+)", r"bbox_head.reg_convs.\1.gn.\2"),
        (r"quality\.cls\.(\w+)", r"bbox_head.gfl_cls.\1"),
        (r"quality\.predictor\.(\d)\.(\w+)", r"bbox_head.reg_conf.\1.\2"),
        (r"box_conv\.(\w+)", r"bbox_head.gfl_reg.\1"),
        (r"scales\.(\d)", r"bbox_head.scales.\1.scale"),
    ]
    for pattern, replacement in rules:
        if re.fullmatch(pattern, key):
            return re.sub(pattern, replacement, key)
    assert key.startswith("backbone."), key
    return key


def official(parts: Parts) -> dict[str, Tensor]:
    """Return the state dict that the authors' code would hold for the same weights."""
    state = {official_name(key): value.clone() for key, value in parts.detector.state_dict().items()}
    return state | {"bbox_head.integral.project": torch.arange(17.0)}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_official_files_become_our_weights(
    tiny_recipe: Recipe, tiny_recipe_v1: Recipe, tmp_path: Path, version: int, *, wrapped: bool, zipped: bool
) -> None:
    recipe = tiny_recipe if version == 2 else tiny_recipe_v1
    parts = randomised(build_parts(recipe))
    state = official(parts)
    if version == 2:
        for name in ("weight", "bias"):
            key = f"bbox_head.gfl_cls.{name}"
            state[key] = torch.cat([state[key], torch.full_like(state[key][:1], 7.0)])
    content: dict[str, Any] = {"meta": {"epoch": 12, "mmdet_version": "2.6.0"}, "state_dict": state}
    path = tmp_path / "official.pth"
    torch.save(content if wrapped else state, path, _use_new_zipfile_serialization=zipped)
    other = without_weights(recipe)
    load_state(other.detector, convert_official(read_official(path), num_classes=CLASSES), where=str(path))
    assert_same_weights(parts, other)


def test_every_official_key_is_renamed_to_one_of_ours(tiny_parts: Parts) -> None:
    converted = convert_official(official(tiny_parts), num_classes=CLASSES)
    own = {key for key in tiny_parts.detector.state_dict() if "num_batches_tracked" not in key}
    assert converted.keys() == own


def test_the_dead_score_of_v2_is_cut_and_the_others_stay(tiny_parts: Parts) -> None:
    state = official(tiny_parts)
    weight = torch.randn(CLASSES + 1, 64, 3, 3)
    state["bbox_head.gfl_cls.weight"] = weight
    state["bbox_head.gfl_cls.bias"] = torch.arange(CLASSES + 1.0)
    converted = convert_official(state, num_classes=CLASSES)
    assert torch.equal(converted["quality.cls.weight"], weight[:CLASSES])
    assert converted["quality.cls.bias"].tolist() == [0, 1, 2]
    # any other number of classes is left for the user to see
    assert convert_official(state, num_classes=CLASSES - 1)["quality.cls.bias"].shape == (CLASSES + 1,)


def test_the_last_score_of_v1_is_a_class(tiny_recipe_v1: Recipe) -> None:
    state = official(build_parts(tiny_recipe_v1))
    converted = convert_official(state, num_classes=CLASSES - 1)
    assert converted["quality.cls.bias"].shape == (CLASSES,)


def test_unknown_official_keys_are_named_by_loading(tiny_parts: Parts) -> None:
    state = official(tiny_parts) | {"bbox_head.atss_centerness.bias": torch.zeros(1)}
    converted = convert_official(state, num_classes=CLASSES)
    with pytest.raises(UserError, match=r"unexpected bbox_head\.atss_centerness\.bias$"):
        load_state(tiny_parts.detector, converted, where="x")


@pytest.mark.parametrize(("version", "name"), [(1, "gfl_r50_fpn_1x"), (2, "gflv2_r50_fpn_1x")])
def test_the_recipe_of_a_resnet_50_is_found_from_its_keys(version: int, name: str) -> None:
    state = {f"backbone.layer3.{i}.conv1.weight": torch.zeros(0) for i in range(6)}
    state["bbox_head.gfl_reg.weight"] = torch.zeros(0)
    if version == 2:
        state["bbox_head.reg_conf.0.weight"] = torch.zeros(0)
    assert recipe_of_official(state, where="x") == name


def test_files_whose_recipe_cannot_be_found_ask_for_it() -> None:
    other = {f"backbone.layer3.{i}.conv1.weight": torch.zeros(0) for i in range(4)}
    with pytest.raises(UserError, match=r"file\.pth: .*name its recipe"):
        recipe_of_official(other | {"bbox_head.gfl_reg.weight": torch.zeros(0)}, where="file.pth")
    for state in ({}, {"bbox_head.retina_cls.weight": torch.zeros(0)}):
        with pytest.raises(UserError, match=r"file\.pth: .*name its recipe"):
            recipe_of_official(state, where="file.pth")


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
