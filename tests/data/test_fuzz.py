"""Whatever is wrong with the files of a data set: a UserError that names the file, or a sound data set; in any format.

A thousand variants of each format, made by damaging valid files, are each opened twice: stopping at the first fault,
and collecting them all.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any, final

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gfocal.data.dataset import FolderDataset
from gfocal.data.faults import Faults
from gfocal.data.opening import open_dataset, splits_of
from gfocal.errors import UserError


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "PNG")
    return file.getvalue()


PICTURE = picture()

COCO = {
    "data.yaml": b"train: {images: images, annotations: train.json}\nval:\n  images: images\n  annotations: train.json",
    "train.json": json.dumps(
        {
            "images": [
                {"id": 3, "file_name": "a.png", "width": 40, "height": 30},
                {"id": 7, "file_name": "b c.png", "width": 40.0, "height": 30},
            ],
            "annotations": [
                {"id": 1, "image_id": 7, "category_id": 9, "bbox": [1.5, 2, 10, 20], "iscrowd": 0, "area": 3},
                {"id": 2, "image_id": 3, "category_id": 4, "bbox": [-5, 0, 1e1, 3e1], "iscrowd": 1, "ignore": 0},
            ],
            "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "zebra crossing"}],
        },
        indent=1,
    ).encode(),
    "images/a.png": PICTURE,
}

XML = """<?xml version="1.0" encoding="utf-8"?>
<annotation>
 <filename>a.png</filename>
 <size><width>40</width><height>30</height><depth>3</depth></size>
 <object><name>dog</name><difficult>0</difficult>
  <bndbox><xmin>1</xmin><ymin>2.5</ymin><xmax>20</xmax><ymax>30</ymax></bndbox>
  <part><name>head</name></part>
 </object>
 <object><name>cat</name><difficult>1</difficult>
  <bndbox><xmin>3</xmin><ymin>3</ymin><xmax>3</xmax><ymax>9</ymax></bndbox>
 </object>
</annotation>
"""

VOC = {
    "Annotations/a.xml": XML.encode(),
    "Annotations/b.xml": re.sub("<size>.*</size>", "", XML.replace("a.png", "b.png")).encode(),
    "ImageSets/Main/train.txt": b"a\nb\n",
    "ImageSets/Main/val.txt": b"b\n",
    "classes.txt": b"cat\ndog\n",
    "JPEGImages/b.png": PICTURE,
}

YOLO = {
    "data.yaml": b"path: .\ntrain: list.txt\nval:\n  - images\nnc: 2\nnames:\n  0: cat\n  1: wild dog\n",
    "list.txt": b"./images/a.png\nimages/b.png\n",
    "images/a.png": PICTURE,
    "images/b.png": PICTURE,
    "labels/a.txt": b"0 0.5 0.5 0.25 0.5\n1.0 0.1 0.2 0.2 1e-1\n\n1 0.1 0.1 0.9 0.1 0.9 0.5\n",
    "labels/b.txt": b"1 0 0 0 0\n",
}

# Words that some reader may take for something else.
WORDS = [
    *(
        "",
        " ",
        "\n",
        "\t",
        "\0",
        "\r",
        "'",
        '"',
        "<",
        ">",
        "&",
        "&amp;",
        "&x;",
        "&#0;",
        "]]>",
        "<!--",
        "#",
        "%",
        ",",
        ":",
    ),
    *("0", "-1", "1", "2", "3", "7", "-0", "0.5", "2.5", "40", "1e3", "1e308", "1e400", "-1e400", "1e-400", "9" * 25),
    *(
        "9" * 400,
        "9" * 5000,
        "0x10",
        "1_0",
        "1,5",
        "+1",
        "٣",
        "½",
        "nan",
        "NaN",
        "-nan",
        "inf",
        "-Infinity",
        "Infinity",
    ),
    *(
        "null",
        "~",
        "true",
        "yes",
        "[]",
        "{}",
        "[1]",
        '{"a": 1}',
        "*a",
        "&a",
        "!!int",
        "!!python/object:a",
        "<<",
        "|",
        "- ",
    ),
    *("../x", ".", "C:\\a", "a" * 300, "images", "train", "names", "bbox", "cat", "\ufeff", "\u202e", "💩" * 9),
    *(
        "\ud800",
        "é",
        "\x85",
        "\u2028",
        "[" * 350,
        '{"a":' * 350,
        "<a>" * 3000,
        "<object>" * 99,
        "- " * 350,
        "{" * 350,
    ),
    '<!DOCTYPE a [<!ENTITY x "y">]>',
    "<?xml version='1.0' encoding='utf-7'?>",
    '<name a="b">',
    "<![CDATA[1]]>",
]

TOKEN = re.compile(rb"[\w.+-]+|[^\w\s]")


@final
class Damage:
    """Ways to damage the bytes of a file, each by numbers that Hypothesis chooses."""

    def word(self, text: bytes, first: int, second: int) -> bytes:
        """Put something else in the place of a word, number or sign."""
        tokens = list(TOKEN.finditer(text)) or [re.match(b"", text)]
        token = tokens[first % len(tokens)]
        new = WORDS[second % len(WORDS)].encode("utf-8", "surrogatepass")
        return text[: token.start()] + new + text[token.end() :]

    def swap(self, text: bytes, first: int, second: int) -> bytes:
        """Put one word of the file in the place of another."""
        tokens = list(TOKEN.finditer(text)) or [re.match(b"", text)]
        old, new = tokens[first % len(tokens)], tokens[second % len(tokens)]
        return text[: old.start()] + new.group() + text[old.end() :]

    def line(self, text: bytes, first: int, second: int) -> bytes:
        """Leave a line out, or write it twice."""
        lines = text.splitlines(keepends=True)
        place = first % max(len(lines), 1)
        return b"".join([*lines[:place], *lines[place : place + 1] * (second % 2 * 2), *lines[place + 1 :]])

    def element(self, text: bytes, first: int, second: int) -> bytes:
        """Leave an element of XML, or a value of JSON with its key, out, or write it twice."""
        found = list(re.finditer(rb'<(\w+)>[^<]*</\1>|<(\w+)>.*</\2>|"\w+": [^\[\]{},]+,|\{[^{}]*\},?', text))
        if not found:
            return text
        piece = found[first % len(found)]
        return text[: piece.start()] + piece.group() * (second % 2 * 2) + text[piece.end() :]

    def cut(self, text: bytes, first: int, second: int) -> bytes:
        """End the file early."""
        return text[: first % (len(text) + 1)]

    def flip(self, text: bytes, first: int, second: int) -> bytes:
        """Change one bit."""
        place = first % max(len(text), 1)
        return text[:place] + bytes(byte ^ (1 << second % 8) for byte in text[place : place + 1]) + text[place + 1 :]

    def splice(self, text: bytes, first: int, second: int) -> bytes:
        """Copy a stretch of the file elsewhere."""
        start, place = first % (len(text) + 1), second % (len(text) + 1)
        return text[:place] + text[start : start + first % 40] + text[place:]

    def encoding(self, text: bytes, first: int, second: int) -> bytes:
        """Save it in another encoding, with or without saying so."""
        name = ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp037", "utf-7")[first % 6]
        return text.decode("utf-8", "replace").encode(name, "replace")

    def whole(self, text: bytes, first: int, second: int) -> bytes:
        """Put something else in the place of the whole file."""
        return (b"", b"\n", b"\0" * 50, b"null", b"[]", b"{}", b"<annotation/>", b"\xff\xfe", text + text, PICTURE)[
            first % 10
        ]


DAMAGE = Damage()
WAYS = (
    [DAMAGE.word] * 4
    + [DAMAGE.swap, DAMAGE.line] * 2
    + [*(DAMAGE.element, DAMAGE.cut, DAMAGE.flip, DAMAGE.splice, DAMAGE.encoding, DAMAGE.whole)]
)
NUMBER = st.integers(0, 2**16)
CHANGES = st.lists(
    st.tuples(NUMBER, st.sampled_from([*WAYS, "folder", "gone"]), NUMBER, NUMBER), min_size=1, max_size=3
)


@final
class Place:
    """A folder that holds one variant after another; only files that differ are written."""

    def __init__(self, folder: Path, files: dict[str, bytes]) -> None:
        self.folder = folder
        self._there: dict[str, bytes | None] = {}
        self.put(files)

    def put(self, files: dict[str, bytes | None]) -> None:
        """Make the folder hold these files; None is a folder where a file should be."""
        for name in self._there.keys() - files.keys():
            self._remove(name)
        for name, content in files.items():
            if name in self._there and self._there[name] == content:
                continue
            if name in self._there and None in (content, self._there[name]):
                self._remove(name)
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if content is None else path.write_bytes(content)
            self._there[name] = content

    def _remove(self, name: str) -> None:
        path = self.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        del self._there[name]


def damaged(files: dict[str, bytes], changes: list[tuple[int, Any, int, int]]) -> dict[str, bytes | None]:
    result: dict[str, bytes | None] = dict(files)
    for number, way, first, second in changes:
        name = sorted(files)[number % len(files)]
        content = result.get(name)
        if way == "gone":
            result.pop(name, None)
        elif way == "folder":
            result[name] = None
        elif content is not None:
            result[name] = way(content, first, second)
    return result


def check_text(text: str, folder: Path) -> None:
    assert text.isprintable(), text
    assert str(folder) in text or re.match("'?/.+: ", text)  # a list or `path` may lead out of the folder
    assert len(text) < 1500


def check_sound(dataset: FolderDataset) -> None:
    assert len(dataset.class_names) == len(set(dataset.class_names)) == len(dataset.category_ids)
    for record in dataset.records:
        truth = record.truth
        assert truth.boxes.dtype == torch.float32
        assert truth.boxes.shape == (len(truth.labels), 4)
        assert truth.labels.dtype == torch.int64
        assert truth.crowd.dtype == torch.bool
        assert truth.crowd.shape == truth.labels.shape
        assert torch.isfinite(truth.boxes).all()
        assert (truth.boxes[:, 2:] >= truth.boxes[:, :2]).all()
        assert ((truth.labels >= 0) & (truth.labels < len(dataset.class_names))).all()
        assert min(truth.size) >= 1
        assert truth.name


def opened(folder: Path, split: str, faults: Faults) -> FolderDataset | str:
    """Return the data set, or the text of the UserError; nothing else may be raised."""
    try:
        dataset = open_dataset(folder, split, faults=faults)
    except UserError as error:
        check_text(str(error), folder)
        return str(error)
    assert isinstance(dataset, FolderDataset)
    check_sound(dataset)
    return dataset


def check_any_outcome(folder: Path) -> None:
    try:
        splits = splits_of(folder)
    except UserError as error:
        check_text(str(error), folder)
        splits = ()
    for split in ("train", "val"):
        stopped, faults = opened(folder, split, Faults()), Faults(stop=False)
        collected = opened(folder, split, faults)
        for fault in faults.found:
            check_text(str(fault), folder)
        # Both find the same first fault; only where there is none do they give a data set, and the same one.
        if isinstance(stopped, str):
            assert stopped == (str(faults.found[0]) if faults.found else collected)
        else:
            assert isinstance(collected, FolderDataset)
            assert faults.found == []
            assert stopped.class_names
            assert len(stopped) == len(collected) > 0
            assert split in splits


@pytest.fixture(scope="module", params=[COCO, VOC, YOLO], ids=["coco", "voc", "yolo"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, dict[str, bytes]]:
    return Place(tmp_path_factory.mktemp("fuzz"), request.param), request.param


def test_the_undamaged_files_are_sound(place: tuple[Place, dict[str, bytes]]) -> None:
    folder, files = place
    folder.put(files)
    for split in ("train", "val"):
        dataset = opened(folder.folder, split, Faults())
        assert isinstance(dataset, FolderDataset), dataset
        assert sum(len(record.truth.boxes) for record in dataset.records) > 1


@settings(deadline=None, max_examples=1000, suppress_health_check=list(HealthCheck))
@given(changes=CHANGES)
def test_any_damage_gives_a_user_error_or_a_sound_data_set(
    place: tuple[Place, dict[str, bytes]], changes: list[tuple[int, Any, int, int]]
) -> None:
    folder, files = place
    folder.put(damaged(files, changes))
    check_any_outcome(folder.folder)
