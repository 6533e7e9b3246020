"""Pascal VOC becomes labels from 0 and xyxy boxes as they are written; what is wrong is told with file and place."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from gfocal.data.coco import read_coco
from gfocal.data.collate import learnable
from gfocal.data.dataset import FolderDataset
from gfocal.data.faults import Faults
from gfocal.data.voc import read_voc, voc_splits
from gfocal.errors import UserError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

SIZE = "<size><width>40</width><height>30</height><depth>3</depth></size>"


def thing(name: str = "cat", box: str = "1 2 11 22", more: str = "") -> str:
    edges = "".join(f"<{key}>{v}</{key}>" for key, v in zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True))
    return f"<object><name>{name}</name>{more}<bndbox>{edges}</bndbox></object>"


def annotation(*objects: str, filename: str = "a.jpg", size: str = SIZE) -> str:
    return f"<annotation><filename>{filename}</filename>{size}{''.join(objects)}</annotation>"


def write(folder: Path, texts: dict[str, str | bytes], *, lists: dict[str, str] | None = None) -> Path:
    """Write annotations by their stem and lists by their split; no picture."""
    for name in ("Annotations", "JPEGImages"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for stem, text in texts.items():
        (folder / "Annotations" / f"{stem}.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    if lists is not None:
        (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        for split, text in lists.items():
            (folder / "ImageSets" / "Main" / f"{split}.txt").write_text(text)
    return folder


def draw(path: Path, width: int = 40, height: int = 30, *, orientation: int = 1) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", (width, height)).save(path, exif=exif)


def message(folder: Path, split: str = "train") -> str:
    """Return the text of the UserError that reading must raise, one line; collecting notes the same one."""
    with pytest.raises(UserError) as caught:
        read_voc(folder, split)
    text = str(caught.value)
    assert text.isprintable()
    faults = Faults(stop=False)
    try:
        read_voc(folder, split, faults=faults)
    except UserError as error:
        assert str(error) == text
    else:
        assert str(faults.found[0]) == text
    return text


def boxes(dataset: FolderDataset) -> list[list[list[float]]]:
    return [record.truth.boxes.tolist() for record in dataset.records]


def test_boxes_are_taken_as_they_are_and_classes_sorted_over_all_splits(tmp_path: Path) -> None:
    texts = {
        "a": annotation(thing("dog", "1 1 40 30"), thing("ant", "3.5 4 3.5 9.25")),
        "b": annotation(thing("cat"), filename="b.png"),
        "c": annotation(thing("bee", "-5 2 60 22"), filename="c.jpg"),
    }
    folder = write(tmp_path, texts, lists={"train": "b\na\n", "val": "c\n"})
    train, val = read_voc(folder, "train"), read_voc(folder, "val")
    assert train.class_names == val.class_names == ("ant", "bee", "cat", "dog")
    assert train.category_ids == (0, 1, 2, 3)
    assert boxes(train) == [[[1, 2, 11, 22]], [[1, 1, 40, 30], [3.5, 4, 3.5, 9.25]]]
    assert [record.truth.labels.tolist() for record in train.records] == [[2], [3, 0]]
    assert [(r.truth.image_id, r.truth.name, r.truth.size) for r in train.records] == [
        (1, "b.png", (30, 40)),
        (2, "a.jpg", (30, 40)),
    ]
    assert boxes(val) == [[[-5, 2, 60, 22]]]
    assert train.truth(0).boxes.dtype == torch.float32


def test_without_lists_all_annotations_are_train(tmp_path: Path) -> None:
    folder = write(tmp_path, {"b": annotation(thing()), "a": annotation()})
    assert voc_splits(folder) == {"train": None}
    dataset = read_voc(folder, "train")
    assert boxes(dataset) == [[], [[1, 2, 11, 22]]]
    assert dataset.truth(0).boxes.shape == (0, 4)
    with pytest.raises(UserError, match=r"unknown split of .* 'val': choose from train"):
        read_voc(folder, "val")


def test_lists_of_one_class_are_no_splits(tmp_path: Path) -> None:
    names = ("train", "val", "trainval", "test", "dog_train", "dog_val", "dog_trainval", "few_shots")
    folder = write(tmp_path, {"a": annotation(thing())}, lists=dict.fromkeys(names, "a  -1\n"))
    assert set(voc_splits(folder)) == {"train", "val", "trainval", "test", "few_shots"}
    assert "unknown split" in message(folder, "dog_train")


def test_difficult_objects_are_crowd(tmp_path: Path) -> None:
    """They are neither learnt nor counted, as in VOC's own metrics."""
    flags = ("<difficult>1</difficult>", "<difficult>0</difficult>", "<difficult></difficult>", "")
    truth = read_voc(write(tmp_path, {"a": annotation(*(thing(more=flag) for flag in flags))}), "train").truth(0)
    assert truth.crowd.tolist() == [True, False, False, False]
    assert len(learnable(truth)[0]) == 3


def test_boxes_of_parts_are_not_those_of_objects(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    dataset = read_voc(write(tmp_path, {"a": annotation(thing("person", more=part * 2))}), "train")
    assert dataset.class_names == ("person",)
    assert boxes(dataset) == [[[1, 2, 11, 22]]]


@pytest.mark.parametrize("name", ["classes.txt", "labels.txt"])
def test_a_list_of_classes_sets_their_order(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, {"a": annotation(thing("dog"), thing("cat"))})
    (folder / name).write_text("\ufeffdog\r\n zebra crossing \r\n\r\ncat\r\n", encoding="utf-8")
    dataset = read_voc(folder, "train")
    assert dataset.class_names == ("dog", "zebra crossing", "cat")
    assert dataset.truth(0).labels.tolist() == [0, 2]
    (folder / name).write_text("dog\ncow\n")
    text = message(folder)
    assert f"{folder / 'Annotations' / 'a.xml'}: object[1].name is 'cat': the list of classes has only dog, cow" in text
    faults = Faults(stop=False)
    assert boxes(read_voc(folder, "train", faults=faults)) == [[[1, 2, 11, 22]]]
    assert [fault.kind for fault in faults.found] == ["class"]
    for content, wanted in (
        (b"", "the file is empty"),
        (b"dog\ncat\ndog\n", "line 3: 'dog' appears twice"),
        (b"do\x07g\n", "line 1: 'do\\x07g' holds characters that cannot be shown"),
        (b"dog\n\xff", "not UTF-8 text (byte 4)"),
    ):
        (folder / name).write_bytes(content)
        assert f"{folder / name}: {wanted}" in message(folder)


def test_pictures_are_found_by_name_or_by_the_name_of_the_annotation(tmp_path: Path) -> None:
    texts = {
        "a": annotation(thing(), filename="other.png"),
        "b": annotation(filename="gone.jpg"),
        "c": annotation(filename="none"),
        "d": "<annotation>" + SIZE + "</annotation>",
        "e": annotation(filename="/etc/e.png"),
    }
    folder = write(tmp_path, texts)
    for name in ("other.png", "a.jpg", "b.JPG"):
        draw(folder / "JPEGImages" / name)
    (folder / "JPEGImages" / "c.txt").touch()
    names = [record.path.name for record in read_voc(folder, "train").records]
    assert names == ["other.png", "b.JPG", "none", "d.jpg", "e.png"]
    assert all(record.path.parent == folder / "JPEGImages" for record in read_voc(folder, "train").records)
    assert read_voc(folder, "train").picture(0).shape == (30, 40, 3)
    with pytest.raises(UserError, match=r"d\.jpg: no such file"):
        read_voc(folder, "train").picture(3)


@pytest.mark.parametrize("size", ["", "<size/>", "<size><width>0</width><height>0</height></size>"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_size_that_is_not_stated_comes_from_the_upright_picture(tmp_path: Path, size: str, orientation: int) -> None:
    folder = write(tmp_path, {"a": annotation(thing(), size=size)})
    draw(folder / "JPEGImages" / "a.jpg", 24, 10, orientation=orientation)
    dataset = read_voc(folder, "train")
    assert dataset.truth(0).size == ((24, 10) if orientation == 6 else (10, 24)) == dataset.picture(0).shape[:2]
    (folder / "JPEGImages" / "a.jpg").write_bytes(b"rubbish")
    text = message(folder)
    assert f"{folder / 'Annotations' / 'a.xml'}: size is missing, and the picture cannot tell it: " in text
    assert f"{folder / 'JPEGImages' / 'a.jpg'}: not a picture of a known kind" in text
    (folder / "JPEGImages" / "a.jpg").unlink()
    assert "a.jpg: no such file" in message(folder)


def test_a_test_split_may_be_without_annotations(tmp_path: Path) -> None:
    folder = write(tmp_path, {"a": annotation(thing())}, lists={"train": "a", "test": "x\ny\n"})
    for name in "xy":
        draw(folder / "JPEGImages" / f"{name}.jpg", 16, 8)
    dataset = read_voc(folder, "test")
    assert dataset.class_names == ("cat",)
    assert [(r.truth.name, r.truth.size, len(r.truth.boxes)) for r in dataset.records] == [
        ("x.jpg", (8, 16), 0),
        ("y.jpg", (8, 16), 0),
    ]
    (folder / "ImageSets" / "Main" / "test.txt").write_text("a\nx\n")
    assert "test.txt: line 2: 'x.xml' is not in " in message(folder, "test")


def test_encodings_and_white_space_are_understood(tmp_path: Path) -> None:
    cat = annotation(thing("  wild \n cät ", "1 2 3 4"))
    text = "<?xml version='1.0' encoding='{}'?>\n<!-- a cat -->\n" + cat
    texts: dict[str, str | bytes] = {
        "a": text.format("utf-8").encode(),
        "b": b"\xef\xbb\xbf" + text.format("utf-8").encode(),
        "c": text.format("utf-16").encode("utf-16"),
        "d": text.format("iso-8859-1").encode("iso-8859-1"),
        "e": annotation(thing("wild c&#228;t", " 1 2 3 4 ")).replace(">1<", "> 1\n<"),
    }
    dataset = read_voc(write(tmp_path, texts), "train")
    assert dataset.class_names == ("wild cät",)
    assert boxes(dataset) == [[[1, 2, 3, 4]]] * 5


LAUGHS = (
    '<!DOCTYPE lolz [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(12))
    + "]>"
)

BROKEN = [
    (b"", "the file is empty (0 bytes)"),
    (b"<annotation>", "line 1, column 13: not XML (no element found)"),
    (b"<annotation>\n<size></annotation>", "line 2, column 9: not XML (mismatched tag)"),
    (b"\x00\x01\x02", "line 1, column 1: not XML (not well-formed (invalid token))"),
    (b"<annotation>&lt;&what;</annotation>", "line 1, column 17: not XML (undefined entity)"),
    (b"<?xml version='1.0' encoding='none'?><annotation/>", "not XML of a known encoding ("),
    (b"<?xml version='1.0' encoding='gb2312'?><annotation/>", "not XML of a known encoding (multi"),
    (b"<html><body/></html>", "the document is <html>: must be <annotation>"),
    (b'<!DOCTYPE html [<!ENTITY a "b">]><annotation/>', "holds a DTD (<!DOCTYPE 'html'>): remove it"),
    (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation>&a;</annotation>', "holds a DTD"),
    ((LAUGHS + "<annotation>&m;</annotation>").encode(), "holds a DTD (<!DOCTYPE 'lolz'>)"),
    ((LAUGHS + "<annotation>&m;</annotation>").encode("utf-16"), "holds a DTD (<!DOCTYPE 'lolz'>)"),
    (annotation(size="<size><width>x</width></size>").encode(), "size.width is 'x': must be the side"),
    (annotation(size="<size><height>-4</height></size>").encode(), "size.height is '-4': must be the side"),
    (annotation(size="<size><height>4.5</height></size>").encode(), "size.height is '4.5'"),
    (annotation(size="<size><height>nan</height></size>").encode(), "size.height is 'nan'"),
    (annotation(size="<size><height>1e12</height></size>").encode(), "size.height is '1e12'"),
]


@pytest.mark.parametrize(("content", "wanted"), BROKEN)
def test_a_broken_file_is_one_fault_and_its_picture_left_out(tmp_path: Path, content: bytes, wanted: str) -> None:
    folder = write(tmp_path, {"a": content, "b": annotation(thing())})
    start = time.process_time()
    assert f"{folder / 'Annotations' / 'a.xml'}: {wanted}" in message(folder)
    assert time.process_time() - start < 5
    faults = Faults(stop=False)
    dataset = read_voc(folder, "train", faults=faults)
    assert boxes(dataset) == [[[1, 2, 11, 22]]]
    assert dataset.truth(0).image_id == 2
    assert [fault.kind for fault in faults.found] == ["malformed"]


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    folder = write(tmp_path, {"b": annotation(thing())})
    (folder / "Annotations" / "a.xml").mkdir()
    assert "a.xml: cannot be read (Is a directory)" in message(folder)


OBJECTS = [
    ("<object/>", "malformed", "object[1].name is missing: must be the name of a class"),
    (thing(" "), "malformed", "object[1].name is ''"),
    (thing("c&#x85;t&#x200B;"), "malformed", "object[1].name is 'c t\\u200b'"),
    (thing(more="<name>dog</name>"), "malformed", "object[1].name appears twice"),
    (thing(more="<difficult>2</difficult>"), "malformed", "object[1].difficult is '2': must be 0 or 1"),
    (thing(more="<difficult>0</difficult>" * 2), "malformed", "object[1].difficult appears twice"),
    ("<object><name>cat</name></object>", "malformed", "object[1].bndbox is missing"),
    (thing(more="<bndbox/>"), "malformed", "object[1].bndbox appears twice"),
    (thing().replace("xmin", "xmid"), "malformed", "object[1].bndbox.xmin is missing"),
    (thing().replace("ymin>", "xmin>"), "malformed", "object[1].bndbox.xmin appears twice"),
    (thing(box="1 2 11 x"), "malformed", "object[1].bndbox.ymax is 'x': must be a finite number of pixels"),
    (thing(box="1 nan 11 22"), "malformed", "object[1].bndbox.ymin is 'nan'"),
    (thing(box="1 2 inf 22"), "malformed", "object[1].bndbox.xmax is 'inf'"),
    (thing(box="-1e10 2 11 22"), "malformed", "object[1].bndbox.xmin is '-1e10'"),
    (thing().replace(">11<", "><"), "malformed", "object[1].bndbox.xmax is ''"),
    (thing(box="11 2 1 22"), "reversed", "object[1].bndbox is reversed: xmin is 11 and xmax is 1: swap or correct"),
    (thing(box="1 22.5 11 2"), "reversed", "object[1].bndbox is reversed: ymin is 22.5 and ymax is 2"),
]


@pytest.mark.parametrize(("text", "kind", "wanted"), OBJECTS)
def test_an_object_at_fault_is_told_with_its_place_and_left_out(
    tmp_path: Path, text: str, kind: str, wanted: str
) -> None:
    folder = write(tmp_path, {"a": annotation(thing("dog"), text, thing("ant", "5 5 6 6"))})
    assert f"{folder / 'Annotations' / 'a.xml'}: {wanted}" in message(folder)
    faults = Faults(stop=False)
    dataset = read_voc(folder, "train", faults=faults)
    assert boxes(dataset) == [[[1, 2, 11, 22], [5, 5, 6, 6]]]
    assert [dataset.class_names[label] for label in dataset.truth(0).labels.tolist()] == ["dog", "ant"]
    assert [fault.kind for fault in faults.found] == [kind]


def test_what_is_not_read_may_be_anything(tmp_path: Path) -> None:
    text = thing(more="<pose/><pose/><truncated>x</truncated>").replace("</bndbox>", "<angle>x</angle></bndbox>")
    assert boxes(read_voc(write(tmp_path, {"a": annotation(text, "<odd><object/></odd>")}), "train")) == [
        [[1, 2, 11, 22]]
    ]


def test_faults_of_another_split_are_not_told(tmp_path: Path) -> None:
    texts: dict[str, str | bytes] = {
        "a": annotation(thing()),
        "b": b"rubbish",
        "c": annotation(thing("bee", "9 9 1 1")),
    }
    folder = write(tmp_path, texts, lists={"train": "a\n", "val": "b\nc\n"})
    assert read_voc(folder, "train").class_names == ("bee", "cat")
    assert "b.xml: line 1, column 1: not XML" in message(folder, "val")


def test_folders_and_lists_that_are_wrong_as_a_whole(tmp_path: Path) -> None:
    folder = write(tmp_path, {"a": annotation(thing())}, lists={"train": "a\nb\n"})
    train = folder / "ImageSets" / "Main" / "train.txt"
    assert f"{train}: line 2: 'b.xml' is not in {folder / 'Annotations'}: add it or remove the line" in message(folder)
    train.write_text(" \n\n")
    assert f"{train}: lists no picture: write the name of one a line" in message(folder)
    train.write_bytes(b"a\n\xff")
    assert f"{train}: not UTF-8 text (byte 2)" in message(folder)
    train.unlink()
    train.mkdir()
    assert f"{train}: cannot be read (Is a directory)" in message(folder)
    train.rmdir()
    (folder / "JPEGImages").rmdir()
    assert f"{folder / 'JPEGImages'}: no such folder: it should hold the pictures of {folder}" in message(folder)
    (folder / "JPEGImages").write_text("../elsewhere")
    assert f"{folder / 'JPEGImages'}: this is a file, not a folder" in message(folder)
    (folder / "Annotations" / "a.xml").write_text(annotation())
    (folder / "JPEGImages").unlink()
    (folder / "JPEGImages").mkdir()
    assert f"{folder / 'Annotations'}: no object in any annotation" in message(folder)
    (folder / "Annotations" / "a.xml").unlink()
    assert f"{folder / 'Annotations'}: holds no .xml file" in message(folder)
    (folder / "Annotations").rmdir()
    assert f"{folder / 'Annotations'}: cannot be read (No such file or directory)" in message(folder)


def test_a_file_that_names_the_folder_of_pictures_is_followed(tmp_path: Path) -> None:
    """So git leaves a symbolic link on a system without them."""
    folder = write(tmp_path / "voc", {"a": annotation(thing())})
    (folder / "JPEGImages").rmdir()
    (tmp_path / "pictures").mkdir()
    draw(tmp_path / "pictures" / "a.jpg")
    (folder / "JPEGImages").write_text("../pictures\n")
    assert read_voc(folder, "train").picture(0).shape == (30, 40, 3)


def test_thousands_of_annotations_take_seconds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 20, (300, 20, 2))
    texts: dict[str, str | bytes] = {
        f"{i:04}": annotation(*(thing("cat", f"{x} {y} {x + 9} {y + 9}") for x, y in rows))
        for i, rows in enumerate(corners.tolist())
    }
    folder = write(tmp_path, texts)
    start = time.process_time()
    dataset = read_voc(folder, "train")
    assert time.process_time() - start < 10  # half a second or so
    assert sum(len(record.truth.boxes) for record in dataset.records) == 6000


@pytest.mark.skipif(not (SHARED / "bccd_voc").is_dir(), reason="the shared pictures are not here")
@pytest.mark.parametrize(("split", "without_area"), [("train", 1), ("val", 1), ("test", 0)])
def test_real_files_equal_their_coco_twin(split: str, without_area: int) -> None:
    voc = read_voc(SHARED / "bccd_voc", split)
    coco = read_coco(SHARED / "bccd" / f"{split}.json", SHARED / "bccd" / "images")
    twins = {record.truth.name: record.truth for record in coco.records}
    assert len(voc) == len(coco)
    empty = 0
    for record in voc.records:
        truth, twin = record.truth, twins[record.truth.name]
        sides = truth.boxes[:, 2:] - truth.boxes[:, :2]
        kept = (sides > 0).all(1)
        empty += int((~kept).sum())
        assert truth.size == twin.size
        assert torch.equal(truth.boxes[kept], twin.boxes)
        names = [voc.class_names[label] for label in truth.labels[kept].tolist()]
        assert names == [coco.class_names[label] for label in twin.labels.tolist()]
        assert truth.crowd.tolist() == [False] * len(truth.boxes)
    assert empty == without_area
    assert voc.picture(0).shape[:2] == voc.truth(0).size
