"""YOLO's fractions become xyxy pixels of the upright picture; what is wrong is told with file and line."""

from __future__ import annotations

import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from gfocal.data.dataset import FolderDataset
from gfocal.data.faults import Faults
from gfocal.data.headers import exact_size, header_size, in_threads
from gfocal.data.pictures import read_picture
from gfocal.data.yolo import read_yolo
from gfocal.errors import UserError

NAMES = "names: [cat, dog, zebra crossing]\n"


def draw(path: Path, width: int = 40, height: int = 20, *, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", (width, height)).save(path, exif=exif)


def write(folder: Path, labels: dict[str, str | bytes | None], *, text: str = f"train: images\n{NAMES}") -> Path:
    """Write a data.yaml, and pictures of 40 x 20 pixels with their labels by the stem; None is no label file."""
    for stem, content in labels.items():
        draw(folder / "images" / f"{stem}.jpg")
        file = folder / "labels" / f"{stem}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / "data.yaml").write_text(text)
    return folder / "data.yaml"


def message(file: Path, split: str = "train") -> str:
    """Return the text of the UserError that reading must raise, one line; collecting raises or notes the same."""
    with pytest.raises(UserError) as caught:
        read_yolo(file, split)
    text = str(caught.value)
    assert text.isprintable()
    faults = Faults(stop=False)
    try:
        read_yolo(file, split, faults=faults)
    except UserError as error:
        assert str(error) == text
    else:
        assert str(faults.found[0]) == text
    return text


def boxes(dataset: FolderDataset) -> list[list[list[float]]]:
    return [record.truth.boxes.tolist() for record in dataset.records]


def names(dataset: FolderDataset) -> list[str]:
    return [record.truth.name for record in dataset.records]


def test_fractions_become_corners_in_pixels(tmp_path: Path) -> None:
    labels: dict[str, str | bytes | None] = {
        "a": "2 0.5 0.5 0.25 0.5\n\n0 0.0 1.0 0.5 0.5\r\n1 .5 .5 0 0",
        "b": "",
        "c": None,
        "deep/d": "\ufeff0.0 0.5 0.5 1 1\n",
    }
    dataset = read_yolo(write(tmp_path, labels), "train")
    assert dataset.class_names == ("cat", "dog", "zebra crossing")
    assert dataset.category_ids == (0, 1, 2)
    assert names(dataset) == ["a.jpg", "b.jpg", "c.jpg", "deep/d.jpg"]
    assert boxes(dataset) == [[[15, 5, 25, 15], [-10, 15, 10, 25], [20, 10, 20, 10]], [], [], [[0, 0, 40, 20]]]
    assert dataset.truth(0).labels.tolist() == [2, 0, 1]
    assert dataset.truth(0).crowd.tolist() == [False] * 3
    assert dataset.truth(1).boxes.shape == (0, 4)
    assert [r.truth.image_id for r in dataset.records] == [1, 2, 3, 4]
    assert {r.truth.size for r in dataset.records} == {(20, 40)}
    assert dataset.picture(3).shape == (20, 40, 3)


def test_polygons_become_their_bounding_box(tmp_path: Path) -> None:
    lines = "1 0.25 0.5 0.5 0.25 0.75 1\n0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.9 0.1 0.9 0.3 0.1 0.3\n"
    dataset = read_yolo(write(tmp_path, {"a": lines}), "train")
    assert dataset.truth(0).labels.tolist() == [1, 0, 1]
    wanted = torch.tensor([[10.0, 5, 30, 20], [15, 5, 25, 15], [4, 2, 36, 6]])
    torch.testing.assert_close(dataset.truth(0).boxes, wanted)


def test_key_points_behind_a_box_are_not_taken_for_a_polygon(tmp_path: Path) -> None:
    text = f"train: images\n{NAMES}kpt_shape: [2, 3]\n"
    dataset = read_yolo(write(tmp_path, {"a": "0 0.5 0.5 0.25 0.5 0.1 0.1 2 0.9 0.9 1"}, text=text), "train")
    assert boxes(dataset) == [[[15, 5, 25, 15]]]


LINES = [
    ("x 0.5 0.5 0.1 0.1", "malformed", "'x' is no number: write `class x y width height`"),
    ("0.5 0.5 0.5 0.1 0.1", "malformed", "class is '0.5': must be the number of a class"),
    ("nan 0.5 0.5 0.1 0.1", "malformed", "class is 'nan': must be the number of a class"),
    ("inf 0.5 0.5 0.1 0.1", "malformed", "class is 'inf'"),
    ("3 0.5 0.5 0.1 0.1", "class", "class is '3': the data.yaml names only 0 to 2"),
    ("-1 0.5 0.5 0.1 0.1", "class", "class is '-1': the data.yaml names only 0 to 2"),
    ("1e300 0.5 0.5 0.1 0.1", "class", "class is '1e300'"),
    ("0", "malformed", "1 values: write `class x y width height`, or `class` and at least three points"),
    ("0 0.5 0.5 0.1", "malformed", "4 values: write"),
    ("0 0.5 0.5 0.1 0.1 0.9", "malformed", "6 values: write"),
    ("0 0.5 0.5 0.1 0.1 0.9 0.9 0.8", "malformed", "8 values: write"),
    ("0 0.5 ? 0.1 0.1", "malformed", "'?' is no number: write"),
    ("0 20 0.5 0.1 0.1", "malformed", "x is 20: must be a fraction of the picture, from 0 to 1: divide pixels"),
    ("0 0.5 -0.2 0.1 0.1", "malformed", "y is -0.2: must be a fraction"),
    ("0 0.5 nan 0.1 0.1", "malformed", "y is nan: must be a fraction"),
    ("0 0.5 0.5 inf 0.1", "malformed", "width is inf: must be a fraction"),
    ("0 0.5 0.5 -inf 0.1", "malformed", "width is -inf: must be a fraction"),
    ("0 0.5 0.5 0.1 1.5", "malformed", "height is 1.5: must be a fraction"),
    ("0 0.5 0.5 -0.1 0.1", "reversed", "width is -0.1: must not be negative"),
    ("0 0.5 0.5 0.1 -1e-3", "reversed", "height is -0.001: must not be negative"),
    ("0 0.1 0.1 0.9 0.1 0.9 30", "malformed", "a corner is at 30: must be a fraction"),
    ("0 0.1 0.1 0.9 nan 0.9 0.3", "malformed", "a corner is at nan: must be a fraction"),
    ("0 0.1 0.1 0.9 -0.1 0.9 0.3", "malformed", "a corner is at -0.1: must be a fraction"),
]


@pytest.mark.parametrize(("line", "kind", "wanted"), LINES)
def test_a_line_at_fault_is_told_with_its_number_and_left_out(
    tmp_path: Path, line: str, kind: str, wanted: str
) -> None:
    file = write(tmp_path, {"a": f"0 0.5 0.5 0.25 0.5\n\n{line}\n1 0.5 0.5 1 1\n"})
    assert f"{tmp_path / 'labels' / 'a.txt'}: line 3: {wanted}" in message(file)
    faults = Faults(stop=False)
    assert boxes(read_yolo(file, "train", faults=faults)) == [[[15, 5, 25, 15], [0, 0, 40, 20]]]
    assert [fault.kind for fault in faults.found] == [kind]


def test_what_rounding_oversteps_is_no_fault(tmp_path: Path) -> None:
    dataset = read_yolo(write(tmp_path, {"a": "0 1.001 0.5 1.0000001 1\n0 -0.005 0 1.005 0.5 0 1"}), "train")
    assert len(dataset.truth(0).boxes) == 2


@pytest.mark.parametrize(
    ("content", "wanted"), [(b"\xff\xfe0 0.5", "not UTF-8 text (byte 0): save it as UTF-8"), (None, "cannot be read (")]
)
def test_a_broken_label_file_is_one_fault_and_its_picture_left_out(
    tmp_path: Path, content: bytes | None, wanted: str
) -> None:
    file = write(tmp_path, {"a": content, "b": "0 0.5 0.5 1 1"})
    if content is None:
        (tmp_path / "labels" / "a.txt").mkdir()
    assert f"{tmp_path / 'labels' / 'a.txt'}: {wanted}" in message(file)
    faults = Faults(stop=False)
    dataset = read_yolo(file, "train", faults=faults)
    assert names(dataset) == ["b.jpg"]
    assert dataset.truth(0).image_id == 2
    assert [fault.kind for fault in faults.found] == ["malformed"]


def test_a_broken_picture_is_a_fault(tmp_path: Path) -> None:
    file = write(tmp_path, {"a": "0 0.5 0.5 1 1", "b": "0 0.5 0.5 1 1"})
    (tmp_path / "images" / "a.jpg").write_bytes(b"rubbish")
    assert f"{tmp_path / 'images' / 'a.jpg'}: not a picture of a known kind: give a JPEG" in message(file)
    faults = Faults(stop=False)
    assert names(read_yolo(file, "train", faults=faults)) == ["b.jpg"]
    assert [fault.kind for fault in faults.found] == ["picture"]


def test_a_split_without_any_label_file_is_a_fault(tmp_path: Path) -> None:
    """Else a folder of labels at the wrong place would train a detector that finds nothing."""
    file = write(tmp_path, {"a": None, "b": None}, text=f"train: images\ntest: images\n{NAMES}")
    sought = tmp_path / "labels" / "a.txt"
    assert f"{file}: no picture of train has a label file: the first was sought at {sought}: put them" in message(file)
    assert len(read_yolo(file, "train", faults=Faults(stop=False))) == 2
    assert len(read_yolo(file, "test")) == 2
    sought.touch()
    assert boxes(read_yolo(file, "train")) == [[], []]


def test_labels_lie_where_the_last_folder_of_images_is(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    file = write(tmp_path / "images" / "set", {"train/a": "0 0.5 0.5 1 1"})
    assert boxes(read_yolo(file, "train")) == [[[0, 0, 40, 20]]]
    draw(tmp_path / "beside" / "x.jpg")
    (tmp_path / "beside" / "x.txt").write_text("1 0.5 0.5 0.5 0.5")
    other = tmp_path / "other.yaml"
    other.write_text(f"train: beside\n{NAMES}")
    assert boxes(read_yolo(other, "train")) == [[[10, 5, 30, 15]]]


def test_splits_are_folders_lists_of_them_or_text_files(tmp_path: Path) -> None:
    file = write(tmp_path, {f"{split}/{i}": "0 0.5 0.5 1 1" for split in ("one", "two") for i in (1, 2)})
    (tmp_path / "images" / "one" / ".3.jpg").write_bytes(b"left by some system")
    (tmp_path / "images" / "one" / "notes.md").touch()
    lists = f"./images/two/2.jpg\n\nimages/one/1.jpg\n{tmp_path / 'images' / 'two' / '1.jpg'}\nimages/one/1.jpg\n"
    (tmp_path / "some.txt").write_text(lists)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "far.txt").write_text("images/one/2.jpg\n")
    text = "train: [images/two, images/one]\nvalidation: some.txt\ntest:\n  - lists/far.txt\n  - images/one\n"
    file.write_text(text + NAMES)
    assert names(read_yolo(file, "train")) == ["1.jpg", "2.jpg", "1.jpg", "2.jpg"]
    assert read_yolo(file, "train").records[0].path == tmp_path / "images" / "two" / "1.jpg"
    assert names(read_yolo(file, "val")) == [f"images/{name}.jpg" for name in ("two/2", "one/1", "two/1", "one/1")]
    assert names(read_yolo(file, "test")) == ["../images/one/2.jpg", "1.jpg", "2.jpg"]
    assert all(len(found) == 1 for split in ("train", "val", "test") for found in boxes(read_yolo(file, split)))
    file.write_text(f"train: images\nval:\ntest: ~\n{NAMES}")
    assert "unknown split" in message(file, "val")


def test_links_that_lead_back_end_the_search(tmp_path: Path) -> None:
    file = write(tmp_path, {"a": "0 0.5 0.5 1 1"})
    (tmp_path / "images" / "again").symlink_to(tmp_path / "images", target_is_directory=True)
    (tmp_path / "far").mkdir()
    draw(tmp_path / "far" / "z.jpg")
    (tmp_path / "images" / "z").symlink_to(tmp_path / "far", target_is_directory=True)
    assert names(read_yolo(file, "train")) == ["a.jpg", "z/z.jpg"]


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, {"a": "0 0.5 0.5 1 1", "in/b": "0 0.5 0.5 1 1"})
    listed = os.scandir

    def scandir(folder: str) -> object:
        if Path(folder).name == "in":
            raise PermissionError(13, "Permission denied", folder)
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert re.search(r"images/in: the folder cannot be read \(Permission denied\)", message(file))


def test_path_is_sought_beside_the_file_then_where_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "data" / "set", {"a": "0 0.5 0.5 1 1"})
    file = tmp_path / "data" / "some.yaml"
    for path in ("set", "./set/", str(tmp_path / "data" / "set"), "../data/set"):
        file.write_text(f"path: {path}\ntrain: images\n{NAMES}")
        assert names(read_yolo(file, "train")) == ["a.jpg"]
    file.write_text(f"path: data/set\ntrain: images\n{NAMES}")
    monkeypatch.chdir(tmp_path)
    assert names(read_yolo(file, "train")) == ["a.jpg"]
    file.write_text(f"path:\ntrain: set/images\n{NAMES}")
    assert names(read_yolo(Path("data/some.yaml"), "train")) == ["a.jpg"]
    # as a well-known exporter writes it
    (tmp_path / "data" / "set" / "data.yaml").write_text(f"train: ../images\n{NAMES}")
    assert names(read_yolo(tmp_path / "data" / "set" / "data.yaml", "train")) == ["a.jpg"]


def test_names_are_a_list_or_a_mapping(tmp_path: Path) -> None:
    file = write(tmp_path, {"a": "1 0.5 0.5 1 1"})
    for text, wanted in (
        ("names: [yes, 2]\nnc: 2\n", ("yes", "2")),
        ("names:\n  1: dog\n  0: cat\n", ("cat", "dog")),
        ("names: {0: cat, 1: wild dog}\nnc:\n", ("cat", "wild dog")),
        ("nc: 2\n", ("class_0", "class_1")),
        ("nc: 2\nnames:\n", ("class_0", "class_1")),
    ):
        file.write_text(f"train: images\n{text}download: |\n  anything\n", encoding="utf-8")
        assert read_yolo(file, "train").class_names == wanted


YAMLS = [
    ("", "the file is empty: write `train: folder`"),
    ("- train\n", "line 1: the file is a list"),
    ("train: [images\n", "line 2: not YAML"),
    ("train: images\ntrain: images\n", "line 2: 'train' appears twice"),
    ("train: images\n", "names is missing: write `names: [first class, second class]`"),
    ("train: images\nnames: cat\n", "line 2: names is 'cat': write `names:"),
    ("train: images\nnames: []\n", "line 2: names is empty"),
    ("train: images\nnames: {}\n", "line 2: names is empty"),
    ("train: images\nnames: [cat, cat]\n", "line 2: names has 'cat' twice: give each class its own"),
    ("train: images\nnames: [cat, [dog]]\n", "line 2: names[1] is a list: must be the name of a class"),
    ("train: images\nnames: [cat, ~]\n", "line 2: names[1] is '~'"),
    ('train: images\nnames: [cat, " "]\n', "line 2: names[1] is ' '"),
    ('train: images\nnames: [cat, "a\\nb"]\n', "line 2: names[1] is 'a\\nb'"),
    ("train: images\nnames: {0: cat, 2: dog}\n", "line 2: names has the keys '0, 2': number the classes from 0 to 1"),
    ("train: images\nnames: {0: cat, 0: dog}\n", "line 2: '0' appears twice"),
    ("train: images\nnames: [cat]\nnc: 2\n", "line 3: nc is 2, but names has 1: correct one of them"),
    ("train: images\nnc: -2\n", "line 2: nc is '-2': must be the number of classes, from 1 to 100000"),
    ("train: images\nnc: 0\n", "line 2: nc is '0'"),
    ("train: images\nnc: 99999999999999\n", "line 2: nc is '99999999999999'"),
    ("train: images\nnc: [2]\n", "line 2: nc is a list"),
    (f"train: elsewhere\n{NAMES}", "line 1: train is {folder}/elsewhere: no such file or folder"),
    (f"train: labels/a.csv\n{NAMES}", "line 1: train is {folder}/labels/a.csv: neither a folder nor a .txt list"),
    (f"train: labels\n{NAMES}", "line 1: train is 'labels': no picture is there"),
    (f"train:\n  - images\n  - [images]\n{NAMES}", "line 3: train is a list: write the path of a file or folder"),
    (f"train: {{a: b}}\n{NAMES}", "line 1: train is a mapping: write the path"),
    (f"train: []\n{NAMES}", "line 1: train is a list: no picture is there"),
    (f'train: ""\n{NAMES}', "line 1: train is '': write the path of a file or folder"),
    (f"path: nowhere\ntrain: images\n{NAMES}", "line 1: path is 'nowhere': no such folder: write that of the data set"),
    (f"path: [a]\ntrain: images\n{NAMES}", "line 1: path is a list: write the path"),
    (f"train: empty.txt\n{NAMES}", "line 1: train is 'empty.txt': no picture is there"),
    (f"train: bytes.txt\n{NAMES}", "{folder}/bytes.txt: not UTF-8 text (byte 1)"),
    ('train: images\nnames: "\\UFFFFFFFF"\n', "not YAML"),
]


@pytest.mark.parametrize(("text", "wanted"), YAMLS)
def test_a_data_yaml_at_fault_is_told_with_line_and_key(tmp_path: Path, text: str, wanted: str) -> None:
    file = write(tmp_path, {"a": "0 0.5 0.5 1 1"}, text=text)
    (tmp_path / "labels" / "a.csv").touch()
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "bytes.txt").write_bytes(b"a\xff")
    assert f"{file}: {wanted.format(folder=tmp_path)}" in message(file)


def test_pictures_of_a_list_that_are_not_there_are_faults(tmp_path: Path) -> None:
    file = write(tmp_path, {"a": "0 0.5 0.5 1 1"}, text=f"train: list.txt\n{NAMES}")
    (tmp_path / "list.txt").write_text("images/none.jpg\nimages/a\0.jpg\nimages/a.jpg\n")
    assert f"{tmp_path / 'images' / 'none.jpg'}: no such file" in message(file)
    faults = Faults(stop=False)
    assert names(read_yolo(file, "train", faults=faults)) == ["images/a.jpg"]
    assert [fault.kind for fault in faults.found] == ["picture", "picture"]


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_sizes_are_those_of_the_upright_picture(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"a.{suffix}"
    draw(path, orientation=orientation)
    true = read_picture(path).shape[:2]
    assert exact_size(path) == true == ((40, 20) if orientation in (5, 6, 7, 8) else (20, 40))
    assert header_size(path) == true or (suffix == "tiff" and header_size(path) is None)


@pytest.mark.parametrize("suffix", ["bmp", "gif", "png", "jpg", "webp", "tif"])
def test_sizes_of_common_kinds_come_from_the_header(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (7, 5)).save(path)
    assert header_size(path) == (5, 7)


def behind_pixels(path: Path, kind: bytes, content: bytes) -> Path:
    """Put a chunk behind the pixels of a PNG."""
    text = path.read_bytes()
    end = text.index(b"IEND") - 4
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    path.write_bytes(text[:end] + chunk + text[end:])
    return path


def test_metadata_behind_the_pixels_of_a_png_is_not_overlooked(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for name, kind, content in (
        ("exif.png", b"eXIf", exif.tobytes()[6:]),
        ("xmp.png", b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
    ):
        Image.new("RGB", (7, 5)).save(tmp_path / name)
        path = behind_pixels(tmp_path / name, kind, content)
        assert header_size(path) is None
        assert exact_size(path) == read_picture(path).shape[:2] == (7, 5)
    Image.new("RGB", (7, 5)).save(tmp_path / "dated.png")
    assert header_size(behind_pixels(tmp_path / "dated.png", b"tEXt", b"date:modify\x002024-01-01")) == (5, 7)


def test_what_is_no_picture_has_no_size(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"rubbish")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    assert [header_size(tmp_path / name) for name in ("a.jpg", "b.png", "none.jpg", ".")] == [None] * 4
    for name in ("a.jpg", "b.png", "none.jpg", "."):
        with pytest.raises(UserError):
            exact_size(tmp_path / name)


def test_many_files_are_read_in_order_with_a_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert in_threads(lambda number: number + 1, range(150), title="reading") == list(range(1, 151))
    assert capsys.readouterr().err == ""
    assert in_threads(lambda number: number + 1, range(2500), title="reading") == list(range(1, 2501))
    assert "reading 2500/2500" in capsys.readouterr().err
    assert in_threads(lambda number: number, [], title="reading") == []


def test_a_large_split_is_read_in_threads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sides = rng.integers(1, 50, (200, 2)).tolist()
    for index, (width, height) in enumerate(sides):
        draw(tmp_path / "images" / f"{index:03}.png", width, height)
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{index:03}.txt").write_text("0 0.5 0.5 1 1\n")
    (tmp_path / "data.yaml").write_text(f"train: images\n{NAMES}")
    dataset = read_yolo(tmp_path / "data.yaml", "train")
    assert [record.truth.size for record in dataset.records] == [(height, width) for width, height in sides]
    assert boxes(dataset) == [[[0, 0, width, height]] for width, height in sides]
