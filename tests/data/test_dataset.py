"""A data set is found by what the user names, survives pickling, and a wrong name says what would be right."""

from __future__ import annotations

import json
import os
import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gfocal.data.dataset import Dataset, FolderDataset, Record, open_dataset
from gfocal.errors import UserError
from gfocal.structures import Truth

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def write_coco(annotations: Path, images: Path, seeds: list[int]) -> None:
    """Write pictures of 16 x 12 pixels, the one of seed s with s boxes."""
    images.mkdir(parents=True, exist_ok=True)
    annotations.parent.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        Image.fromarray(pixels(seed)).save(images / f"{seed}.png")
    content = {
        "images": [{"id": seed, "file_name": f"{seed}.png", "width": 16, "height": 12} for seed in seeds],
        "annotations": [
            {"id": 1, "image_id": seed, "category_id": 5, "bbox": [box, 1, 4, 5]}
            for seed in seeds
            for box in range(seed)
        ],
        "categories": [{"id": 5, "name": "cell"}, {"id": 9, "name": "nucleus"}],
    }
    annotations.write_text(json.dumps(content))


def write_yaml(folder: Path) -> Path:
    write_coco(folder / "train.json", folder / "some pictures", [1, 2, 3])
    write_coco(folder / "sub" / "val.json", folder / "some pictures", [4])
    file = folder / "data.yaml"
    file.write_text(
        "# two splits\n"
        "train: {images: some pictures, annotations: train.json}\n"
        f"val:\n  images: {folder / 'some pictures'}\n  annotations: sub/val.json\n"
    )
    return file


def message(source: str | Path, split: str) -> str:
    """Return the text of the UserError that opening must raise, one line."""
    with pytest.raises(UserError) as caught:
        open_dataset(source, split)
    assert str(caught.value).isprintable()
    return str(caught.value)


def check_is_dataset(dataset: Dataset, index: int) -> None:
    truth, picture = dataset.truth(index), dataset.picture(index)
    assert truth.size == picture.shape[:2]
    assert picture.dtype == np.uint8
    assert all(0 <= label < len(dataset.class_names) for label in truth.labels.tolist())


def test_data_yaml(tmp_path: Path) -> None:
    file = write_yaml(tmp_path)
    for source in (file, str(file), tmp_path, str(tmp_path)):
        dataset = open_dataset(source, "train")
        assert len(dataset) == 3
        assert dataset.class_names == ("cell", "nucleus")
        assert [len(dataset.truth(index).boxes) for index in range(3)] == [1, 2, 3]
        assert np.array_equal(dataset.picture(1), pixels(2))
        check_is_dataset(dataset, 0)
    assert [open_dataset(file, "val").truth(0).name] == ["4.png"]


def test_data_yaml_is_relative_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_yaml(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(open_dataset("data/data.yaml", "train").picture(0), pixels(1))
    monkeypatch.chdir(tmp_path / "data")
    assert np.array_equal(open_dataset("data.yaml", "train").picture(0), pixels(1))


def test_coco_2017_folder(tmp_path: Path) -> None:
    for split, seeds in (("train", [1, 2]), ("val", [3])):
        write_coco(tmp_path / "annotations" / f"instances_{split}2017.json", tmp_path / f"{split}2017", seeds)
    assert len(open_dataset(tmp_path, "train")) == 2
    assert np.array_equal(open_dataset(tmp_path, "val").picture(0), pixels(3))
    text = message(tmp_path, "vall")
    assert "did you mean 'val'?" in text
    assert "train, val" in text


@pytest.mark.parametrize(("split", "length"), [("train", 20_000), ("val", 200), ("test", 200)])
def test_scenes(split: str, length: int) -> None:
    pytest.importorskip("gfocal.data.scenes")
    dataset = open_dataset("scenes", split)
    assert len(dataset) == length
    check_is_dataset(dataset, 3)
    assert np.array_equal(dataset.picture(3), open_dataset("scenes", split).picture(3))


def test_splits_of_scenes_differ() -> None:
    pytest.importorskip("gfocal.data.scenes")
    first = [open_dataset("scenes", split).picture(0) for split in ("train", "val", "test")]
    assert not any(np.array_equal(first[a], first[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert "did you mean 'val'" in message("scenes", "valid")


def test_unknown_sources(tmp_path: Path) -> None:
    assert "did you mean 'scenes'?" in message("scene", "train")
    assert "data.yaml" in message(tmp_path / "nowhere", "train")
    assert "x" * 20 in message("x" * 5000, "train")
    assert "not a data set" in message(tmp_path, "train")
    (tmp_path / "a.json").write_text("{}")
    assert "give a data.yaml" in message(tmp_path / "a.json", "train")


YAMLS = [
    ("", "the file is empty"),
    ("# nothing\n", "the file is empty"),
    ("- train\n", "line 1: the file is a list"),
    ("train", "line 1: the file is 'train'"),
    ("train: {images: a, annotations: b\n", "line 2: not YAML"),
    ("train:\n\t- x", "line 2: not YAML"),
    ("train: {images: a}", "line 1: 'train'.annotations is missing"),
    ("train: {}", "line 1: 'train'.images is missing"),
    ("train: images", "line 1: 'train' is 'images'"),
    ("train:", "line 1: 'train' is ''"),
    ("train: {images: a, annotations: b, masks: c}", "line 1: 'train': unknown key 'masks'"),
    (
        "train:\n  images: a\n  annotation: b\n",
        "line 3: 'train': unknown key 'annotation': did you mean 'annotations'?",
    ),
    ("train: {images: 7, annotations: b}", "line 1: 'train'.images is '7'"),
    ("train: {images: a, annotations: [b]}", "line 1: 'train'.annotations is a list or mapping"),
    ("train: {images: a, annotations: }", "line 1: 'train'.annotations is ''"),
    ("train: {images: a, annotations: b}\n\ntrain: {images: a, annotations: b}", "line 3: 'train' appears twice"),
    ("names: [a, b]\n", "line 1: 'names' is a list"),
    ("? [a, b]\n: 3\n", "line 1: a key of the file is no word"),
    ('"a\\nb": 3\n', "line 1: a key of the file is no word"),
    ("train: *x\n", "line 1: not YAML"),
    ("&x train: {images: *x, annotations: *x}\n", None),
    ("[" * 600, "not YAML"),
    ("a\0b: 3", "not YAML"),
]


@pytest.mark.parametrize(("text", "wanted"), YAMLS)
def test_malformed_yaml_names_file_line_and_key(tmp_path: Path, text: str, wanted: str | None) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(text)
    shown = message(file, "train")
    assert f"{file}: {wanted}" in shown if wanted else "train: no such file" in shown


def test_yaml_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_bytes(b"train: \xff")
    assert "not UTF-8 text (byte 7)" in message(tmp_path, "train")


def test_yaml_that_names_what_is_not_there(tmp_path: Path) -> None:
    file = write_yaml(tmp_path)
    assert "did you mean 'train'?" in message(file, "trains")
    (tmp_path / "train.json").unlink()
    assert f"{tmp_path / 'train.json'}: no such file" in message(file, "train")
    write_coco(tmp_path / "train.json", tmp_path / "some pictures", [1])
    file.write_text("train: {images: other pictures, annotations: train.json}")
    assert f"{tmp_path / 'other pictures'}: no such folder" in message(file, "train")


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damaged_yaml_gives_a_user_error_or_a_data_set(tmp_path: Path, data: st.DataObject) -> None:
    write_coco(tmp_path / "a.json", tmp_path, [1])
    text = list("train: {images: ., annotations: a.json}\nval:\n  images: .\n  annotations: a.json\n")
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        piece = data.draw(st.text(max_size=3) | st.sampled_from(["&a", "*a", "!!", ": ", "{", "[", "- ", "\n", "'"]))
        text[start : start + data.draw(st.integers(0, 8))] = piece
    (tmp_path / "data.yaml").write_text("".join(text), encoding="utf-8", errors="surrogatepass")
    try:
        dataset = open_dataset(tmp_path / "data.yaml", "train")
    except UserError as error:
        assert str(error).isprintable()
    else:
        assert len(dataset) == 1


def test_category_ids_default_to_the_labels(tmp_path: Path) -> None:
    assert FolderDataset(("a", "b", "c"), ()).category_ids == (0, 1, 2)
    dataset = open_dataset(write_yaml(tmp_path), "train")
    assert isinstance(dataset, FolderDataset)
    assert dataset.category_ids == (5, 9)


def records(counts: list[int]) -> tuple[Record, ...]:
    return tuple(
        Record(
            Path(f"/data/{index}.png"),
            Truth(
                index,
                f"{index}.png",
                (12, 16),
                torch.rand(count, 4),
                torch.arange(count),
                torch.rand(count) > 0.5,
                torch.rand(count, 4) if index % 2 else None,
            ),
        )
        for index, count in enumerate(counts)
    )


def flat(value: Any) -> Any:
    return value.tolist() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("counts", [[], [0], [2, 0, 3, 1]])
def test_pickling_keeps_everything(counts: list[int]) -> None:
    dataset = FolderDataset(("a", "b", "c"), records(counts), (4, 6, 8))
    copied = pickle.loads(pickle.dumps(dataset))
    assert (copied.class_names, copied.category_ids, len(copied)) == (("a", "b", "c"), (4, 6, 8), len(counts))
    for ours, theirs in zip(copied.records, dataset.records, strict=True):
        assert ours.path == theirs.path
        assert {k: flat(v) for k, v in vars(ours.truth).items()} == {k: flat(v) for k, v in vars(theirs.truth).items()}
        assert ours.truth.boxes.dtype == torch.float32


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_sending_to_a_worker_and_reading_hold_no_open_file(tmp_path: Path) -> None:
    dataset = open_dataset(write_yaml(tmp_path), "train")
    before = len(os.listdir("/proc/self/fd"))
    sent = [ForkingPickler.dumps(FolderDataset(("a",), records([1] * 300)))]
    for index in range(3):
        dataset.picture(index)
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(bytes(sent[0])) < 300 * 400


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared pictures are not here")
@pytest.mark.parametrize("name", ["bccd", "wind_turbine", "microcontroller"])
def test_real_data(name: str) -> None:
    for split in ("train", "val"):
        check_is_dataset(open_dataset(SHARED / name / "data.yaml", split), 5)
