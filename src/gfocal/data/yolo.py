"""Reading data sets in the format of Ultralytics YOLO."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import yaml

from gfocal.data.dataset import Annotated, FolderDataset, records_of
from gfocal.data.faults import Faults, naming, place_text
from gfocal.data.headers import exact_size, header_size, in_threads
from gfocal.data.pictures import PICTURE_SUFFIXES, path_text, value_text
from gfocal.data.yaml_nodes import is_nothing, line_of, node_text, pairs_of, read_nodes
from gfocal.data.yolo_labels import LabelFile, label_path, read_label_file, read_lines
from gfocal.errors import UserError, unknown


def is_yolo(pairs: Mapping[str, yaml.Node]) -> bool:
    """Return whether the keys of a data.yaml are those of Ultralytics, rather than ours."""
    ours = any(
        isinstance(node, yaml.MappingNode)
        and any(isinstance(key, yaml.ScalarNode) and key.value in ("images", "annotations") for key, _ in node.value)
        for node in pairs.values()
    )
    return not ours and not {"names", "nc"}.isdisjoint(pairs) and not _SPLIT_KEYS.isdisjoint(pairs)


def yolo_splits(pairs: Mapping[str, yaml.Node]) -> dict[str, yaml.Node]:
    """Return the splits that a data.yaml of Ultralytics names, and where; `test:` with nothing behind it is none."""
    named = {key: node for key, node in pairs.items() if not is_nothing(node)}
    if "validation" in named:
        named = {"val": named["validation"]} | named
    return {split: named[split] for split in ("train", "val", "test") if split in named}


def read_yolo(
    file: Path, split: str, *, pairs: Mapping[str, yaml.Node] | None = None, faults: Faults | None = None
) -> FolderDataset:
    """Read a split (train, val or test) of the data set that a data.yaml of Ultralytics describes.

    Its keys: `path`, the folder of the data set, that of the file itself where it is missing; `train`, `val`, `test`,
    each a folder, sought through with all folders in it, a .txt with one picture a line, or a list of those; `names`,
    a list or mapping of the class names; `nc`, their count. The labels of .../images/x.jpg stand in .../labels/x.txt,
    those of other pictures beside them; a picture that has no such file, or an empty one, has no box, but a split
    (not of test) in which no picture has one is a fault. A line is `class x y width height`, centre and sides as
    fractions of the picture as it is seen upright; or the class and the points of a polygon, of which the bounding
    box is taken. With `kpt_shape` in the data.yaml, what follows a box are key points, which are not read.
    pairs: the keys of the file, where it was read before. faults: as for `gfocal.data.opening.open_dataset`. Raises
    UserError, too, where the data.yaml or a list is wrong.
    """
    faults = faults if faults is not None else Faults()
    with naming(file):
        pairs = _read_pairs(file) if pairs is None else pairs
        names = _class_names(pairs)
    splits = yolo_splits(pairs)
    if split not in splits:
        raise unknown(f"split of {path_text(file)}", split, splits)
    with naming(file):
        pictures = _pictures(_root(file, pairs), split, splits[split])
    inspected = in_threads(_inspect, [path for path, _ in pictures], title="reading labels and picture sizes")
    numbers = {str(label): label for label in range(len(names))}
    found: list[Annotated] = []
    for number, ((path, name), (quick, labels)) in enumerate(zip(pictures, inspected, strict=True), start=1):
        size = quick or _exact_size(path, faults)
        if size is None:
            continue
        if labels.fault:
            faults.of(labels.path)("malformed", labels.fault)
            continue
        note, key_points = faults.of(labels.path), "kpt_shape" in pairs
        boxes, classes, lines = read_lines(labels.text or "", size, numbers, note=note, key_points=key_points)
        found.append(Annotated(path, number, name, size, boxes, classes, [False] * len(boxes), lines))
    if found and not split.startswith("test") and all(labels.missing for _, labels in inspected):
        seen = f"no picture of {split} has a label file: the first was sought at {place_text(inspected[0][1].path)}"
        faults.of(file)("malformed", f"{seen}: put them there, empty ones where no picture holds an object")
    return FolderDataset(names, records_of(found))


def _read_pairs(file: Path) -> dict[str, yaml.Node]:
    root = read_nodes(file)
    if root is None:
        raise UserError(f"the file is empty: write {_WANTED}")
    return pairs_of("the file", root, wanted=_WANTED)


def _class_names(pairs: Mapping[str, yaml.Node]) -> tuple[str, ...]:
    count = _class_count(pairs["nc"]) if "nc" in pairs and not is_nothing(pairs["nc"]) else None
    if "names" not in pairs or is_nothing(pairs["names"]):
        if count is None:
            raise UserError("names is missing: write `names: [first class, second class]`")
        return tuple(f"class_{label}" for label in range(count))
    node = pairs["names"]
    names = [_class_name(value, label) for label, value in enumerate(_name_nodes(node))]
    if not names:
        raise UserError(f"{line_of(node)}: names is empty: name at least one class")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"{line_of(node)}: names has {value_text(name)} twice: give each class its own")
        seen.add(name)
    if count is not None and count != len(names):
        raise UserError(f"{line_of(pairs['nc'])}: nc is {count}, but names has {len(names)}: correct one of them")
    return tuple(names)


def _class_count(node: yaml.Node) -> int:
    text = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= _MOST_CLASSES):
        wanted = f"must be the number of classes, from 1 to {_MOST_CLASSES}"
        raise UserError(f"{line_of(node)}: nc is {node_text(node)}: {wanted}")
    return int(text)


def _name_nodes(node: yaml.Node) -> list[yaml.Node]:
    """Return what stands for the name of each class, in the order of the labels."""
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    wanted = "`names: [first class, second class]`"
    named = pairs_of("names", node, wanted=wanted)
    keys = [str(label) for label in range(len(named))]
    if set(keys) != set(named):
        raise UserError(
            f"{line_of(node)}: names has the keys {value_text(', '.join(named))}: "
            f"number the classes from 0 to {len(named) - 1}, or write {wanted}"
        )
    return [named[key] for key in keys]


def _class_name(node: yaml.Node, label: int) -> str:
    name = str(node.value).strip() if isinstance(node, yaml.ScalarNode) and not is_nothing(node) else ""
    if not name or not name.isprintable():
        raise UserError(f"{line_of(node)}: names[{label}] is {node_text(node)}: must be the name of a class")
    return name


def _root(file: Path, pairs: Mapping[str, yaml.Node]) -> Path:
    """Return the folder of the data set: `path` is sought beside the file, then where the command runs."""
    node = pairs.get("path")
    if node is None or is_nothing(node):
        return Path(os.path.abspath(file.parent))
    text = _path_of(node, "path")
    for root in (file.parent / text, Path(text)):
        if os.path.isdir(root):
            return Path(os.path.abspath(root))
    raise UserError(
        f"{line_of(node)}: path is {value_text(text)}: no such folder: "
        "write that of the data set, or remove the line where it is the folder of this file"
    )


def _path_of(node: yaml.Node, what: str) -> str:
    if not isinstance(node, yaml.ScalarNode) or is_nothing(node) or not node.value:
        raise UserError(f"{line_of(node)}: {what} is {node_text(node)}: write the path of a file or folder")
    return str(node.value)


def _pictures(root: Path, split: str, node: yaml.Node) -> list[tuple[Path, str]]:
    """Return the pictures of a split, each with its name: where it lies from its folder, or from that of the list."""
    sources: list[yaml.Node] = list(node.value) if isinstance(node, yaml.SequenceNode) else [node]
    pictures: list[tuple[Path, str]] = []
    for source in sources:
        text = _path_of(source, split)
        place = Path(os.path.abspath(root / text))
        if not os.path.exists(place) and text.startswith("../"):
            # Some programs count from a folder that lies beside the one of the data.yaml.
            place = Path(os.path.abspath(root / text[3:]))
        if os.path.isdir(place):
            pictures += _pictures_below(place)
        elif os.path.isfile(place) and place.suffix == ".txt":
            pictures += _listed_pictures(place, root)
        else:
            wrong = "neither a folder nor a .txt list" if os.path.exists(place) else "no such file or folder"
            raise UserError(f"{line_of(source)}: {split} is {place_text(place)}: {wrong}")
    if not pictures:
        raise UserError(f"{line_of(node)}: {split} is {node_text(node)}: no picture is there")
    return pictures


def _pictures_below(top: Path) -> list[tuple[Path, str]]:
    names: list[str] = []
    seen: set[str] = set()
    for folder, inner, files in os.walk(top, onerror=_refuse_closed, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()  # a link that leads back
            continue
        seen.add(real)
        kept = [f for f in files if os.path.splitext(f)[1].lower() in PICTURE_SUFFIXES and not f.startswith(".")]
        names += [os.path.relpath(os.path.join(folder, name), top) for name in kept]
    return [(top / name, Path(name).as_posix()) for name in sorted(names)]


def _refuse_closed(error: OSError) -> None:
    """Raise UserError for a folder that cannot be read."""
    where = place_text(Path(error.filename))
    raise UserError(f"{where}: the folder cannot be read ({error.strerror}): see whose it is, or leave it out")


def _listed_pictures(file: Path, root: Path) -> list[tuple[Path, str]]:
    with naming(file):
        try:
            lines = [line.strip() for line in file.read_bytes().decode("utf-8-sig").split("\n")]
        except UnicodeDecodeError as error:
            raise UserError(f"not UTF-8 text (byte {error.start}): save it as UTF-8") from error
        except OSError as error:
            raise UserError(f"cannot be read ({error.strerror})") from error
    pictures: list[tuple[Path, str]] = []
    for line in filter(None, lines):
        beside = Path(os.path.abspath(file.parent / line))
        path = beside if os.path.exists(beside) else Path(os.path.abspath(root / line))
        pictures.append((path, Path(os.path.relpath(path, file.parent)).as_posix()))
    return pictures


def _inspect(picture: Path) -> tuple[tuple[int, int] | None, LabelFile]:
    return header_size(picture), read_label_file(label_path(picture))


def _exact_size(path: Path, faults: Faults) -> tuple[int, int] | None:
    try:
        return exact_size(path)
    except UserError as error:
        faults.of(path)("picture", str(error).removeprefix(f"{path_text(path)}: "))
        return None


_SPLIT_KEYS = {"train", "val", "validation", "test"}
_MOST_CLASSES = 100_000
_WANTED = "`train: folder`, `val: folder` and `names: [first class, second class]`"
