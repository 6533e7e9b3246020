from __future__ import annotations

import json
import random
import resource
from pathlib import Path

import pytest
import safetensors.torch
import torch

import gfocal
from gfocal.builder import Parts, build_parts
from gfocal.checkpoint import load_all_but_classes, load_state, read_weights, save_weights, without_init
from gfocal.config import BackboneConfig, Recipe
from gfocal.errors import UserError
from helpers import assert_same_weights, randomised, without_weights

# ---------------------------------------------------------------- our own files


def test_weights_and_recipe_come_back(tiny_parts: Parts, tiny_recipe: Recipe, tmp_path: Path) -> None:
    parts = randomised(tiny_parts)
    parts.detector.to(memory_format=torch.channels_last)  # as loading leaves them
    path = tmp_path / "new" / "model.safetensors"
    save_weights(path, parts.detector, tiny_recipe)
    recipe, state = read_weights(path)
    assert recipe == tiny_recipe
    other = without_weights(recipe)
    load_state(other.detector, state, where=str(path))
    assert_same_weights(parts, other)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        first, second = parts.detector.eval()(images), other.detector.eval()(images)
    assert first.scores.isfinite().all()
    assert torch.equal(first.scores, second.scores)
    assert torch.equal(first.box, second.box)
    assert [entry.name for entry in path.parent.iterdir()] == ["model.safetensors"]


def test_a_saved_file_is_plain_safetensors(tiny_parts: Parts, tiny_recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, tiny_parts.detector, tiny_recipe)
    state = safetensors.torch.load_file(path)
    assert state.keys() == {key for key in tiny_parts.detector.state_dict() if not key.endswith("num_batches_tracked")}


def saved(tmp_path: Path, recipe: Recipe) -> Path:
    path = tmp_path / "small.safetensors"
    save_weights(path, torch.nn.Linear(3, 2), recipe)
    return path


def test_a_file_cut_anywhere_is_refused(tiny_recipe: Recipe, tmp_path: Path) -> None:
    whole = saved(tmp_path, tiny_recipe).read_bytes()
    rng = random.Random(0)
    for length in [0, 1, 7, 8, 9, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(40))]:
        path = tmp_path / "cut.safetensors"
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.safetensors") as caught:
            read_weights(path)
        assert "\n" not in str(caught.value)


def test_other_content_under_the_name_is_refused(tmp_path: Path) -> None:
    contents = {
        "page": b"<!DOCTYPE html><html><body>Sign in</body></html>" * 20,
        "zeros": bytes(4096),
        "text": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 129\n",
        "ones": b"\xff" * 4096,
    }
    for name, content in contents.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(UserError, match=name):
            read_weights(path)


def test_safetensors_of_other_programs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    for metadata in (None, {"format": "pt"}, {"format": "gfocal-2", "recipe": "{}"}):
        safetensors.torch.save_file({"weight": torch.zeros(2)}, path, metadata)
        with pytest.raises(UserError, match=r"other\.safetensors: holds no gfocal model"):
            read_weights(path)


def test_a_recipe_that_no_longer_fits_is_named_with_its_key(tiny_recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    values = tiny_recipe.model_dump(mode="json") | {"colour": "red"}
    safetensors.torch.save_file({"w": torch.zeros(1)}, path, {"format": "gfocal-1", "recipe": json.dumps(values)})
    with pytest.raises(UserError, match=r"old\.safetensors, recipe: colour = 'red'"):
        read_weights(path)


@pytest.mark.parametrize("metadata", [{}, {"recipe": "{half"}])
def test_a_file_without_a_readable_recipe_is_refused(tmp_path: Path, metadata: dict[str, str]) -> None:
    path = tmp_path / "odd.safetensors"
    safetensors.torch.save_file({"w": torch.zeros(1)}, path, {"format": "gfocal-1", **metadata})
    with pytest.raises(UserError, match=r"odd\.safetensors"):
        read_weights(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    for path in (tmp_path / "missing.safetensors", folder):
        with pytest.raises(UserError, match=path.name):
            read_weights(path)


def test_saving_fails_whole(tiny_parts: Parts, tiny_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"model\.safetensors: cannot be written"):
        save_weights(tmp_path / "file" / "model.safetensors", tiny_parts.detector, tiny_recipe)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_failure_while_saving_keeps_the_old_file(tiny_recipe: Recipe, tmp_path: Path) -> None:
    path = saved(tmp_path, tiny_recipe)
    before = path.read_bytes()
    shared = torch.nn.Linear(2, 2)
    shared.other = torch.nn.Parameter(shared.weight.detach().view(-1)[:3])  # safetensors refuses shared memory
    with pytest.raises(RuntimeError):
        save_weights(path, shared, tiny_recipe)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


# ---------------------------------------------------------------- loading all or nothing


def test_what_does_not_fit_is_named_and_nothing_is_loaded(tiny_parts: Parts, tiny_recipe: Recipe) -> None:
    state = {key: value + 1 for key, value in tiny_parts.detector.state_dict().items() if "num_batches" not in key}
    del state["trunk.cls.0.conv.weight"]
    del state["scales.3.scale"]
    state["neck.odd.weight"] = torch.zeros(1)
    state["outputs.0.quality.cls.bias"] = torch.zeros(7)
    before = {key: value.clone() for key, value in tiny_parts.detector.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_state(tiny_parts.detector, state, where="weights.pth")
    text = str(caught.value)
    assert text.startswith("weights.pth: does not fit the model: ")
    for part in (
        "missing trunk.cls.0.conv.weight",
        "missing scales.3.scale",
        "unexpected neck.odd.weight",
        "outputs.0.quality.cls.bias is (7,), the model's (3,)",
    ):
        assert part in text
    assert text.count(";") == 3
    for key, value in tiny_parts.detector.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_weights_of_another_recipe_do_not_fit(tiny_parts: Parts, tiny_recipe_v1: Recipe) -> None:
    state = {k: v for k, v in tiny_parts.detector.state_dict().items() if "num_batches" not in k}
    with pytest.raises(UserError, match=r"unexpected outputs\.0\.quality\.predictor\.0\.weight"):
        load_state(build_parts(tiny_recipe_v1).detector, state, where="x")


# ---------------------------------------------------------------- onto other classes, and without initialisation


def weights_of(parts: Parts) -> dict[str, torch.Tensor]:
    state = parts.detector.state_dict()
    return {key: value for key, value in state.items() if "num_batches_tracked" not in key}


def test_all_but_the_class_layers_is_kept_for_other_classes(tiny_recipe: Recipe) -> None:
    source, target = randomised(build_parts(tiny_recipe)), randomised(without_weights(tiny_recipe))
    before = {key: value.clone() for key, value in target.detector.state_dict().items()}
    fresh = load_all_but_classes(target.detector, weights_of(source), where="x")
    assert fresh == ["outputs.0.quality.cls.weight", "outputs.0.quality.cls.bias"]
    after, taken = target.detector.state_dict(), source.detector.state_dict()
    for key, value in after.items():
        if "num_batches_tracked" not in key:
            assert torch.equal(value, before[key] if key in fresh else taken[key]), key


def test_anything_else_that_does_not_fit_is_refused_and_nothing_loaded(tiny_recipe: Recipe) -> None:
    target = without_weights(tiny_recipe)
    before = {key: value.clone() for key, value in target.detector.state_dict().items()}
    state = weights_of(randomised(build_parts(tiny_recipe)))
    state["trunk.cls.0.conv.weight"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"x: does not fit the model: trunk\.cls\.0\.conv\.weight is \(1,\)"):
        load_all_but_classes(target.detector, state, where="x")
    assert all(torch.equal(value, before[key]) for key, value in target.detector.state_dict().items())


def test_building_for_loading_draws_no_number_and_keeps_what_is_no_weight() -> None:
    swin = gfocal.get_recipe("gfl_r50_fpn_1x").model_copy(
        update={"backbone": BackboneConfig(name="swin_tiny_patch4_window7_224", weights="none")}
    )
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with without_init():
        empty = build_parts(swin).detector
    assert torch.equal(torch.get_rng_state(), before)
    full = build_parts(swin).detector
    assert not torch.equal(torch.get_rng_state(), before)
    load_state(empty, full.state_dict(), where="x")
    for (name, ours), (other, theirs) in zip(empty.named_buffers(), full.named_buffers(), strict=True):
        assert name == other
        assert torch.equal(ours, theirs), name


def test_loading_keeps_what_is_frozen_frozen(tmp_path: Path) -> None:
    recipe = gfocal.get_recipe("gfl_r50_fpn_1x").model_copy(
        update={"backbone": BackboneConfig(name="resnet18", weights="imagenet", frozen_stages=2)}
    )
    parts = build_parts(recipe)
    save_weights(tmp_path / "model.safetensors", parts.detector, recipe)
    loaded = gfocal.load(tmp_path / "model.safetensors", device="cpu").detector
    expected = {name: p.requires_grad for name, p in parts.detector.named_parameters()}
    assert {name: p.requires_grad for name, p in loaded.named_parameters()} == expected
    assert False in expected.values()
    assert True in expected.values()


def test_a_full_disk_leaves_no_weights_and_one_line(tmp_path, tiny_recipe):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    parts = build_parts(tiny_recipe)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(UserError, match="cannot be written"):
            save_weights(tmp_path / "model.safetensors", parts.detector, tiny_recipe)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
