"""Reading annotations in the Pascal VOC format."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from gfocal.data.dataset import Annotated, FolderDataset, records_of
from gfocal.data.faults import Faults, Kind, Note, naming
from gfocal.data.headers import exact_size, header_size, in_threads
from gfocal.data.pictures import PICTURE_SUFFIXES, path_text, value_text
from gfocal.errors import UserError, unknown

# Beyond any picture, and small enough that sums of coordinates stay exact.
_LARGEST_NUMBER = 1e9


def is_voc(folder: Path) -> bool:
    """Return whether a folder looks like a data set of Pascal VOC."""
    if not os.path.isdir(folder / "Annotations"):
        return False
    return os.path.isdir(folder / "ImageSets" / "Main") or bool(_stems(folder / "Annotations"))


def voc_splits(folder: Path) -> dict[str, Path | None]:
    """Return the splits of a Pascal VOC folder, each with the file that lists its pictures.

    Those are ImageSets/Main/*.txt, but for VOC's lists of one class (aeroplane_train.txt); where there are none, all
    annotations are "train", which no file lists.
    """
    files = {file.stem: file for file in sorted(folder.glob("ImageSets/Main/*.txt"))}
    of_one_class = {name for name in files if "_" in name and name.rpartition("_")[2] in _OFFICIAL_SPLITS}
    return {name: file for name, file in files.items() if name not in of_one_class} or {"train": None}


def read_voc(folder: Path, split: str, *, faults: Faults | None = None) -> FolderDataset:
    """Read a split of a folder with Annotations/*.xml, JPEGImages/ and ImageSets/Main/SPLIT.txt.

    xmin, ymin, xmax and ymax are taken as the edges of a box in pixels: nothing is subtracted, though VOC counts
    pixels from 1. Boxes that leave their picture or have no size are kept. Objects marked `difficult` become crowd:
    VOC's metrics count them neither as found nor as missed, and no detector learns them. The classes stand in
    classes.txt or labels.txt of the folder, one a line, or else are the names over all splits, sorted. Sizes that an
    annotation does not state come from the picture; whether other pictures exist is found when they are read. A test
    split may be without annotations as a whole.
    faults: as for `gfocal.data.opening.open_dataset`. Raises UserError, too, where the folder, the list of the split
    or the one of the classes is wrong as a whole.
    """
    faults = faults if faults is not None else Faults()
    splits = voc_splits(folder)
    if split not in splits:
        raise unknown(f"split of {path_text(folder)}", split, splits)
    before = len(faults.found)
    pictures = _find_pictures(folder)
    entries = _parse_split(folder, split, splits[split], faults)
    labels = {name: label for label, name in enumerate(_class_names(folder, entries, splits))}
    unsized = [pictures.path(entry) for entry in entries if entry.fault is None and entry.size is None]
    sizes = dict(zip(unsized, in_threads(header_size, unsized, title="reading picture sizes"), strict=True))
    found: list[Annotated] = []
    for entry in entries:
        note, path = faults.of(entry.path), pictures.path(entry)
        if entry.fault is not None:
            note(*entry.fault)
            continue
        try:
            size = entry.size or sizes[path] or exact_size(path)
        except UserError as error:
            note("picture", f"size is missing, and the picture cannot tell it: {error}")
            continue
        found.append(Annotated(path, entry.number, path.name, size, *_rows(entry, labels, note)))
    if not labels and len(faults.found) == before:
        raise UserError(f"{path_text(folder / 'Annotations')}: no object in any annotation: there is nothing to learn")
    return FolderDataset(tuple(labels), records_of(found))


@dataclass(frozen=True)
class _Object:
    """One object: either its box (xmin, ymin, xmax, ymax), or what is wrong with it. name: "" where it has none."""

    name: str
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    difficult: bool = False
    fault: tuple[Kind, str] | None = None


@dataclass(frozen=True)
class _Entry:
    """One annotation file: what it holds, or what is wrong with it as a whole. number: its place in the split."""

    path: Path
    number: int
    filename: str = ""
    size: tuple[int, int] | None = None
    objects: tuple[_Object, ...] = ()
    fault: tuple[Kind, str] | None = None


@dataclass(frozen=True)
class _Pictures:
    """The pictures of JPEGImages: their names, and those by what stands before the suffix."""

    folder: Path
    names: frozenset[str]
    by_stem: Mapping[str, str]

    def path(self, entry: _Entry) -> Path:
        """Return the picture of an annotation, or where it should be: files are renamed, and annotations forgotten."""
        if entry.filename in self.names:
            return self.folder / entry.filename
        name = os.path.basename(entry.filename)
        expected = name if 0 < len(name) <= _LONGEST_NAME else f"{entry.path.stem}.jpg"
        return self.folder / self.by_stem.get(entry.path.stem, expected)


def _find_pictures(folder: Path) -> _Pictures:
    images = folder / "JPEGImages"
    if not os.path.isdir(images):
        images = _linked(images)
    parts = [(name, *os.path.splitext(name)) for name in sorted(_names(images), reverse=True)]
    by_stem = {stem: name for name, stem, suffix in parts if suffix.lower() in PICTURE_SUFFIXES}
    return _Pictures(images, frozenset(name for name, *_ in parts), by_stem)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        raise UserError(f"{path_text(folder)}: cannot be read ({error.strerror})") from error


def _stems(annotations: Path) -> set[str]:
    return {name.removesuffix(".xml") for name in _names(annotations) if name.endswith(".xml")}


def _linked(images: Path) -> Path:
    """Return the folder that a small file names: what git leaves of a symbolic link where those are not supported."""
    if os.path.isfile(images):
        with open(images, "rb") as file:
            name = file.read(_LONGEST_LINK).decode("utf-8", errors="replace").strip()
        if os.path.isdir(images.parent / name):
            return images.parent / name
    wrong = "this is a file, not a folder" if os.path.exists(images) else "no such folder"
    raise UserError(f"{path_text(images)}: {wrong}: it should hold the pictures of {path_text(images.parent)}")


def _parse_split(folder: Path, split: str, listed: Path | None, faults: Faults) -> list[_Entry]:
    """Return the annotations of a split; one that is listed and not there is a fault of the list."""
    annotations = folder / "Annotations"
    there = _stems(annotations)
    if not there and listed is None:
        raise UserError(f"{path_text(annotations)}: holds no .xml file: put the annotations of Pascal VOC there")
    if listed is None:
        return [_parse(annotations / f"{stem}.xml", number) for number, stem in enumerate(sorted(there), start=1)]
    stems = _lines(listed)
    if not stems:
        raise UserError(f"{path_text(listed)}: lists no picture: write the name of one a line, without its suffix")
    bare = split.startswith("test") and there.isdisjoint(stem for _, stem in stems)
    entries: list[_Entry] = []
    for number, (line, stem) in enumerate(stems, start=1):
        path = annotations / f"{stem}.xml"
        if stem in there:
            entries.append(_parse(path, number))
        elif bare:
            entries.append(_Entry(path, number))
        else:
            wanted = f"{value_text(f'{stem}.xml')} is not in {path_text(annotations)}"
            faults.of(listed)("malformed", f"line {line}: {wanted}: add it or remove the line")
    return entries


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a text file that are not blank, with their numbers from 1."""
    with naming(path):
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"not UTF-8 text (byte {error.start}): save it as UTF-8") from error
        except OSError as error:
            raise UserError(f"cannot be read ({error.strerror})") from error
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _class_names(folder: Path, entries: Sequence[_Entry], splits: Mapping[str, Path | None]) -> Sequence[str]:
    for name in ("classes.txt", "labels.txt"):
        if os.path.isfile(folder / name):
            return _listed_classes(folder / name)
    # All splits have to agree, whichever is opened; what is wrong with the files of others is told when they are.
    seen = {entry.path.stem for entry in entries}
    others = {stem for path in splits.values() if path is not None for _, stem in _lines(path)} - seen
    paths = [folder / "Annotations" / f"{stem}.xml" for stem in sorted(others)]
    rest = (_parse(path, 0) for path in paths if os.path.isfile(path))
    names = {item.name for group in (entries, rest) for entry in group for item in entry.objects}
    return sorted(name for name in names if name and name.isprintable())


def _listed_classes(path: Path) -> list[str]:
    names: list[str] = []
    for line, name in _lines(path):
        if not name.isprintable():
            raise UserError(f"{path_text(path)}: line {line}: {value_text(name)} holds characters that cannot be shown")
        if name in names:
            raise UserError(f"{path_text(path)}: line {line}: {value_text(name)} appears twice: remove one")
        names.append(name)
    if not names:
        raise UserError(f"{path_text(path)}: the file is empty: write one class a line, or remove it")
    return names


def _rows(
    entry: _Entry, labels: Mapping[str, int], note: Note
) -> tuple[list[tuple[float, float, float, float]], list[int], list[bool], list[int]]:
    """Return the boxes, labels, crowd flags and places of the objects that can be used; the others are noted."""
    used: dict[int, _Object] = {}
    known = f"the list of classes has only {value_text(', '.join(labels))[1:-1]}"
    for index, item in enumerate(entry.objects):
        if item.fault is not None:
            note(*item.fault)
        elif item.name not in labels:
            note("class", f"object[{index}].name is {value_text(item.name)}: {known}")
        else:
            used[index] = item
    items = used.values()
    return [i.box for i in items], [labels[i.name] for i in items], [i.difficult for i in items], list(used)


def _parse(path: Path, number: int) -> _Entry:
    try:
        root = _root(path)
        size = _size(root)
    except UserError as error:
        return _Entry(path, number, fault=("malformed", str(error)))
    objects = tuple(_object(element, f"object[{index}]") for index, element in enumerate(root.iterfind("object")))
    return _Entry(path, number, (root.findtext("filename") or "").strip(), size, objects)


class _Builder(ElementTree.TreeBuilder):
    """Builds the tree of a document without a DTD, whose entities could blow it up."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Refuse the document: called where it declares a DTD, before any entity is put in."""
        raise UserError(f"holds a DTD (<!DOCTYPE {value_text(name)}>): remove it, annotations need none")


def _root(path: Path) -> ElementTree.Element:
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        text = path.read_bytes()
        if not text:
            raise UserError("the file is empty (0 bytes): replace it, or remove it and its picture")
        parser.feed(text)
        root = parser.close()
    except ElementTree.ParseError as error:
        line, column = error.position
        raise UserError(f"line {line}, column {column + 1}: not XML ({expat.ErrorString(error.code)})") from error
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})") from error
    except UserError:
        raise
    except (LookupError, ValueError) as error:  # encodings that the parser does not know
        raise UserError(f"not XML of a known encoding ({error}): save it as UTF-8") from error
    if root.tag != "annotation":
        raise UserError(f"the document is <{value_text(root.tag)[1:-1]}>: must be <annotation>, as in Pascal VOC")
    return root


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Return the (height, width) that an annotation states, None where it states none."""
    sides: list[int] = []
    for key in ("height", "width"):
        text = (root.findtext(f"size/{key}") or "0").strip()
        value = _number(text or "0")
        if value is None or value < 0 or value != int(value):
            raise UserError(f"size.{key} is {value_text(text)}: must be the side of the picture in pixels, or missing")
        sides.append(int(value))
    return (sides[0], sides[1]) if all(sides) else None


def _object(element: ElementTree.Element, where: str) -> _Object:
    fields = {child.tag: child for child in element}
    name = " ".join((element.findtext("name") or "").split())
    difficult = (element.findtext("difficult") or "0").strip()
    box = fields.get("bndbox", ())
    # There may be a million: the common case has to be quick, what is wrong with any other is found afterwards.
    try:
        edges = {edge.tag: float(edge.text or "") for edge in box}
        left, top, right, bottom = edges["xmin"], edges["ymin"], edges["xmax"], edges["ymax"]
        sound = (
            -_LARGEST_NUMBER < left <= right < _LARGEST_NUMBER
            and -_LARGEST_NUMBER < top <= bottom < _LARGEST_NUMBER
            and len(edges) == len(box) == 4
            and len(fields) == len(element)
            and difficult in ("0", "1")
            and name.isprintable()
            and name != ""
        )
    except (KeyError, ValueError):
        return _suspect(element, where, name)
    if not sound:
        return _suspect(element, where, name)
    return _Object(name, (left, top, right, bottom), difficult == "1")


def _suspect(element: ElementTree.Element, where: str, name: str) -> _Object:
    """Return an object out of the common, with what is wrong with it."""
    try:
        return _checked(element, where, name)
    except UserError as error:
        return _Object(name, fault=("malformed", str(error)))


def _checked(element: ElementTree.Element, where: str, name: str) -> _Object:
    for key in ("name", "bndbox", "difficult"):
        if len(element.findall(key)) > 1:
            raise UserError(f"{where}.{key} appears twice: remove one")
    if not name or not name.isprintable():
        shown = "missing" if element.find("name") is None else value_text(name)
        raise UserError(f"{where}.name is {shown}: must be the name of a class")
    difficult = (element.findtext("difficult") or "").strip() or "0"
    if difficult not in ("0", "1"):
        raise UserError(f"{where}.difficult is {value_text(difficult)}: must be 0 or 1")
    box = element.find("bndbox")
    if box is None:
        raise UserError(f"{where}.bndbox is missing: must hold xmin, ymin, xmax and ymax")
    left, top, right, bottom = (_edge(box, key, where) for key in ("xmin", "ymin", "xmax", "ymax"))
    for low, high, first, second in (("xmin", "xmax", left, right), ("ymin", "ymax", top, bottom)):
        if first > second:
            what = f"{where}.bndbox is reversed: {low} is {first:g} and {high} is {second:g}: swap or correct them"
            return _Object(name, fault=("reversed", what))
    return _Object(name, (left, top, right, bottom), difficult == "1")


def _edge(box: ElementTree.Element, key: str, where: str) -> float:
    texts = [edge.text or "" for edge in box.iterfind(key)]
    if len(texts) != 1:
        raise UserError(f"{where}.bndbox.{key} {'appears twice: remove one' if texts else 'is missing'}")
    value = _number(texts[0])
    if value is None:
        raise UserError(f"{where}.bndbox.{key} is {value_text(texts[0].strip())}: must be a finite number of pixels")
    return value


def _number(text: str) -> float | None:
    """Return a number that a coordinate or side can have."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if -_LARGEST_NUMBER < value < _LARGEST_NUMBER else None


_OFFICIAL_SPLITS = ("train", "val", "trainval", "test")
_LONGEST_NAME, _LONGEST_LINK = 255, 4096  # of a file, and of a path, in bytes
