"""A data set is found by what the user names, in any format, and a wrong name says what would be right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gfocal.data.dataset import Dataset, FolderDataset
from gfocal.data.faults import Fault, Faults
from gfocal.data.opening import open_dataset, splits_of
from gfocal.errors import UserError

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
    ("[" * 600, "not YAML (nested too deep)"),
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


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared pictures are not here")
@pytest.mark.parametrize("name", ["bccd", "wind_turbine", "microcontroller"])
def test_real_data(name: str) -> None:
    for split in ("train", "val"):
        check_is_dataset(open_dataset(SHARED / name / "data.yaml", split), 5)


def test_category_ids_are_those_of_the_file(tmp_path: Path) -> None:
    dataset = open_dataset(write_yaml(tmp_path), "train")
    assert isinstance(dataset, FolderDataset)
    assert dataset.category_ids == (5, 9)


def test_what_is_neither_form_of_a_data_yaml_shows_both(tmp_path: Path) -> None:
    for text in ("", "train: images\nval: images\n", "names: [a, b]\n", "nc: 3\n", "train: [a, b]\n"):
        (tmp_path / "data.yaml").write_text(text)
        shown = message(tmp_path, "train")
        assert f"{tmp_path / 'data.yaml'}: " in shown
        assert "`split: {images: folder, annotations: file.json}`" in shown
        assert "`train: folder`, `val: folder` and `names: [first class, second class]`" in shown


def test_both_forms_are_told_apart_by_their_content(tmp_path: Path) -> None:
    ours = write_yaml(tmp_path)
    mixed = tmp_path / "mixed.yaml"
    mixed.write_text(ours.read_text() + "names: [cell, nucleus]\n")
    assert "line 6: 'names' is a list: write `split: {images" in message(mixed, "train")
    write_yolo(tmp_path / "yolo")
    assert splits_of(tmp_path / "yolo") == ("train", "val")
    assert open_dataset(tmp_path / "yolo" / "data.yaml", "val").class_names == CLASSES


def test_splits_stand_in_the_usual_order(tmp_path: Path) -> None:
    assert splits_of("scenes") == ("train", "val", "test")
    assert splits_of(write_yaml(tmp_path / "ours")) == ("train", "val")
    folder = tmp_path / "coco" / "annotations"
    folder.mkdir(parents=True)
    for name in ("image_info_test-dev", "image_info_test", "instances_val", "instances_train"):
        (folder / f"{name}2017.json").write_text("{}")
    assert splits_of(folder.parent) == ("train", "val", "test", "test-dev")
    lists = tmp_path / "voc" / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (tmp_path / "voc" / "Annotations").mkdir()
    for name in ("val", "trainval", "train", "dog_train", "dog_trainval", "few_shots"):
        (lists / f"{name}.txt").write_text("a\n")
    assert splits_of(tmp_path / "voc") == ("train", "val", "few_shots", "trainval")
    with pytest.raises(UserError, match=r"not a data set: it holds neither a data\.yaml nor"):
        splits_of(lists)


def test_folders_of_coco_are_told_from_those_of_voc(tmp_path: Path) -> None:
    """Where names of files do not tell case, annotations/ of COCO is Annotations/ of VOC."""
    write_coco(tmp_path / "annotations" / "instances_train2017.json", tmp_path / "train2017", [1])
    if not (tmp_path / "Annotations").exists():
        (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text("<annotation/>")
    assert splits_of(tmp_path) == ("train",)
    assert open_dataset(tmp_path, "train").class_names == ("cell", "nucleus")


def test_faults_are_raised_or_collected_in_every_format(tmp_path: Path) -> None:
    for write in (write_own, write_voc, write_yolo):
        folder = tmp_path / write.__name__
        write(folder, reverse=True)
        with pytest.raises(UserError) as caught:
            open_dataset(folder, "train")
        faults = Faults(stop=False)
        dataset = open_dataset(folder, "train", faults=faults)
        (fault,) = faults.found
        assert str(caught.value) == str(fault)
        assert fault.kind == "reversed"
        assert str(folder) in fault.where
        assert [len(dataset.truth(index).boxes) for index in range(len(dataset))] == [1, 0, 1]
        faults = Faults(stop=False)
        open_dataset(folder, "val", faults=faults)
        assert faults.found == []


def test_a_fault_is_its_file_and_what_is_wrong() -> None:
    assert str(Fault("class", "a.txt", "line 3: class is 7")) == "a.txt: line 3: class is 7"
    collected, stops = Faults(stop=False), Faults()
    collected.of(Path("a.txt"))("class", "line 3: class is 7")
    assert collected.found == [Fault("class", "a.txt", "line 3: class is 7")]
    with pytest.raises(UserError, match=r"^a\.txt: line 3: class is 7$"):
        stops.of(Path("a.txt"))("class", "line 3: class is 7")
    assert stops.found == []


CLASSES = ("bird", "cat", "dog")

PICTURES = {
    "train": {
        "a.png": ((12, 16), [(2, (1.0, 2.0, 9.0, 11.0)), (0, (-2.0, 0.5, 3.0, 4.0))]),
        "b.jpg": ((32, 8), []),
        "d.png": ((20, 20), [(1, (5.0, 5.0, 5.0, 5.0))]),
    },
    "val": {"c.png": ((8, 64), [(0, (0.0, 0.0, 64.0, 8.0))])},
}
"""By split and name, the (height, width) of a picture and its boxes, as label and xyxy."""


def write_pictures(folder: Path, split: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (size, _) in PICTURES[split].items():
        Image.new("RGB", size[::-1]).save(folder / name)


def boxes_of(split: str, name: str, *, reverse: bool) -> list[tuple[int, tuple[float, float, float, float]]]:
    """Return the boxes of a picture; reverse: the second one of a.png from right to left."""
    boxes = PICTURES[split][name][1]
    if reverse and name == "a.png":
        label, (left, top, right, bottom) = boxes[1]
        return [boxes[0], (label, (right, top, left, bottom))]
    return boxes


def write_own(folder: Path, *, reverse: bool = False) -> None:
    for split, pictures in PICTURES.items():
        write_pictures(folder / "pictures", split)
        images = [
            {"id": i, "file_name": name, "height": h, "width": w}
            for i, (name, ((h, w), _)) in enumerate(pictures.items(), start=1)
        ]
        boxes = [
            (i, *box) for i, name in enumerate(pictures, start=1) for box in boxes_of(split, name, reverse=reverse)
        ]
        annotations = [
            {"image_id": i, "category_id": label * 10, "bbox": [x, y, right - x, bottom - y]}
            for i, label, (x, y, right, bottom) in boxes
        ]
        categories = [{"id": label * 10, "name": name} for label, name in enumerate(CLASSES)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{split}.json").write_text(json.dumps(content))
    splits = {split: {"images": "pictures", "annotations": f"{split}.json"} for split in PICTURES}
    (folder / "data.yaml").write_text(yaml.safe_dump(splits))


def write_voc(folder: Path, *, reverse: bool = False) -> None:
    (folder / "Annotations").mkdir(parents=True)
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    for split, pictures in PICTURES.items():
        write_pictures(folder / "JPEGImages", split)
        for name, ((height, width), _) in pictures.items():
            objects = "".join(
                f"<object><name>{CLASSES[label]}</name><difficult>0</difficult><bndbox><xmin>{x}</xmin><ymin>{y}</ymin>"
                f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
                for label, (x, y, right, bottom) in boxes_of(split, name, reverse=reverse)
            )
            size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
            file = folder / "Annotations" / f"{Path(name).stem}.xml"
            file.write_text(f"<annotation><filename>{name}</filename>{size}{objects}</annotation>")
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{Path(n).stem}\n" for n in pictures))


def write_yolo(folder: Path, *, reverse: bool = False) -> None:
    for split, pictures in PICTURES.items():
        write_pictures(folder / "images" / split, split)
        (folder / "labels" / split).mkdir(parents=True)
        for name, ((height, width), boxes) in pictures.items():
            lines = "".join(
                f"{label} {(x + right) / 2 / width!r} {(y + bottom) / 2 / height!r} {(right - x) / width!r} "
                f"{(bottom - y) / height!r}\n"
                for label, (x, y, right, bottom) in boxes_of(split, name, reverse=reverse)
            )
            if boxes:
                (folder / "labels" / split / f"{Path(name).stem}.txt").write_text(lines)
    content = {split: f"images/{split}" for split in PICTURES} | {"names": list(CLASSES), "nc": 3}
    (folder / "data.yaml").write_text(yaml.safe_dump(content))


def test_one_data_set_in_three_formats_gives_equal_truths(tmp_path: Path) -> None:
    write_own(tmp_path / "own")
    write_voc(tmp_path / "voc")
    write_yolo(tmp_path / "yolo")
    for split, pictures in PICTURES.items():
        first, *others = [open_dataset(tmp_path / name, split) for name in ("own", "voc", "yolo")]
        assert [first.truth(index).name for index in range(len(first))] == list(pictures)
        for other in others:
            assert other.class_names == first.class_names == CLASSES
            assert other.category_ids == (0, 1, 2)
            assert len(other) == len(first)
            for index in range(len(first)):
                one, two = first.truth(index), other.truth(index)
                assert (one.image_id, one.name, one.size) == (two.image_id, two.name, two.size)
                torch.testing.assert_close(two.boxes, one.boxes, rtol=0, atol=1e-5)
                assert torch.equal(two.labels, one.labels)
                assert torch.equal(two.crowd, one.crowd)
                assert np.array_equal(other.picture(index), first.picture(index))
                check_is_dataset(other, index)
        assert first.category_ids == (0, 10, 20)
