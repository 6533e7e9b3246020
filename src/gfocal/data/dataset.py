"""What a data set is, a data set of picture files, and how a user names one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from gfocal.data.pictures import path_text, read_picture, value_text
from gfocal.errors import UserError, unknown
from gfocal.structures import Truth


@runtime_checkable
class Dataset(Protocol):
    """Pictures with their boxes, by index from 0."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label."""
        ...

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The number that stands for each label in results files."""
        ...

    def __len__(self) -> int: ...

    def truth(self, index: int) -> Truth:
        """Return the annotation of a picture, without reading the picture."""
        ...

    def picture(self, index: int) -> NDArray[np.uint8]:
        """Return a picture as uint8 RGB (h, w, 3) of the size that its truth states."""
        ...


@dataclass(frozen=True)
class Record:
    """One picture file and its annotation."""

    path: Path
    truth: Truth


@final
@dataclass(frozen=True)
class FolderDataset:
    """A data set whose pictures are files, read when asked for.

    category_ids: the number of each class in the file that it came from, 0, 1, ... where there is none.
    """

    class_names: tuple[str, ...]
    records: tuple[Record, ...]
    category_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.category_ids:
            object.__setattr__(self, "category_ids", tuple(range(len(self.class_names))))

    def __len__(self) -> int:
        return len(self.records)

    def truth(self, index: int) -> Truth:
        """Return the annotation of a picture, without reading the picture."""
        return self.records[index].truth

    def picture(self, index: int) -> NDArray[np.uint8]:
        """Return a picture as uint8 RGB (h, w, 3); UserError, naming the file, where it cannot be read."""
        record = self.records[index]
        return read_picture(record.path, size=record.truth.size)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle all boxes as one array: a tensor each would cost a started worker one open file per tensor."""
        truths = [record.truth for record in self.records]
        heads = [(str(r.path), r.truth.image_id, r.truth.name, r.truth.size, len(r.truth.boxes)) for r in self.records]
        boxes = torch.cat([torch.zeros(0, 4), *(truth.boxes for truth in truths)]).numpy()
        labels = torch.cat([torch.zeros(0, dtype=torch.long), *(truth.labels for truth in truths)]).numpy()
        crowd = torch.cat([torch.zeros(0, dtype=torch.bool), *(truth.crowd for truth in truths)]).numpy()
        known = [[None if part is None else part.numpy() for part in (t.softness, t.areas)] for t in truths]
        return _unpickled, (self.class_names, self.category_ids, heads, (boxes, labels, crowd), known)


def split_rows(column: Tensor, counts: list[int]) -> list[Tensor]:
    """Return the rows (n, ...) of `column` in pieces of `counts` rows, each a copy.

    Copies, because a view would drag the rows of all pictures along wherever those of one go.
    """
    return [piece.clone() for piece in torch.split(column, counts)]


def open_dataset(source: str | Path, split: str) -> Dataset:
    """Open the split (train, val, ...) of the data set that a user named.

    `source`: the word "scenes", a data.yaml (`split: {images: folder, annotations: file.json}`, paths relative to
    it) or the folder that holds it, or a COCO 2017 folder.
    Raises UserError where there is no such data set or split, or its files are malformed.
    """
    if source == "scenes":
        return _open_scenes(split)
    path = Path(source)
    if os.path.isfile(path / "data.yaml"):
        return _open_yaml(path / "data.yaml", split)
    if os.path.isdir(path):
        return _open_coco_folder(path, split)
    if os.path.isfile(path) and path.suffix in (".yaml", ".yml"):
        return _open_yaml(path, split)
    if os.path.exists(path):
        raise UserError(f"{path_text(path)}: not a data set: give a data.yaml or a COCO 2017 folder")
    raise unknown("data set", str(source), ("scenes", "path of a data.yaml", "path of a COCO 2017 folder"))


def _open_scenes(split: str) -> Dataset:
    from gfocal.data.scenes import Scenes

    splits = {"train": (20_000, 0), "val": (200, 1), "test": (200, 2)}
    if split not in splits:
        raise unknown("split of scenes", split, splits)
    length, seed = splits[split]
    return Scenes(length=length, seed=seed)


def _open_yaml(path: Path, split: str) -> FolderDataset:
    from gfocal.data.coco import read_coco  # it builds the data set of this file

    try:
        splits = _yaml_splits(path)
    except UserError as error:
        raise UserError(f"{path_text(path)}: {error}") from error.__cause__
    if split not in splits:
        raise unknown(f"split of {path_text(path)}", split, splits)
    files = splits[split]
    annotated = not split.startswith("test")
    return read_coco(path.parent / files["annotations"], path.parent / files["images"], annotated=annotated)


def _yaml_splits(path: Path) -> dict[str, dict[str, str]]:
    try:
        # Nodes rather than values: they know their lines, and repeated keys are not lost.
        text = path.read_text(encoding="utf-8-sig")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{line}not YAML ({error.problem})") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"not YAML ({' '.join(str(error).split())})") from error
    if root is None:
        raise UserError(f"the file is empty: write {_WANTED}")
    return {key: _yaml_split(key, node) for key, node in _yaml_pairs("the file", root).items()}


def _yaml_split(split: str, node: yaml.Node) -> dict[str, str]:
    fields = _yaml_pairs(value_text(split), node)
    for key, value in fields.items():
        where = f"line {value.start_mark.line + 1}: {value_text(split)}"
        if key not in ("images", "annotations"):
            raise UserError(f"{where}: {unknown('key', key, ('images', 'annotations'))}")
        if not isinstance(value, yaml.ScalarNode) or value.tag != "tag:yaml.org,2002:str":
            shown = value_text(value.value) if isinstance(value, yaml.ScalarNode) else "a list or mapping"
            raise UserError(f"{where}.{key} is {shown}: write the path of a file or folder")
    for key in ("images", "annotations"):
        if key not in fields:
            raise UserError(f"line {node.start_mark.line + 1}: {value_text(split)}.{key} is missing: write {_WANTED}")
    return {key: str(value.value) for key, value in fields.items()}


def _yaml_pairs(what: str, node: yaml.Node) -> dict[str, yaml.Node]:
    line = f"line {node.start_mark.line + 1}"
    if not isinstance(node, yaml.MappingNode):
        shown = value_text(node.value) if isinstance(node, yaml.ScalarNode) else "a list"
        raise UserError(f"{line}: {what} is {shown}: write {_WANTED}")
    pairs: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or not str(key.value).isprintable():
            raise UserError(f"line {key.start_mark.line + 1}: a key of {what} is no word: write {_WANTED}")
        if key.value in pairs:
            raise UserError(f"line {key.start_mark.line + 1}: {value_text(key.value)} appears twice: remove one")
        pairs[str(key.value)] = value
    return pairs


def _open_coco_folder(folder: Path, split: str) -> FolderDataset:
    from gfocal.data.coco import read_coco  # it builds the data set of this file

    splits = {
        file.name.removeprefix(prefix).removesuffix("2017.json"): file
        for prefix in ("image_info_", "instances_")
        for file in folder.glob(f"annotations/{prefix}*2017.json")
    }
    if not splits:
        raise UserError(
            f"{path_text(folder)}: not a data set: it holds neither a data.yaml nor annotations/instances_*2017.json"
        )
    if split not in splits:
        raise unknown(f"split of {path_text(folder)}", split, splits)
    # test-dev is a part of test, without annotations as all of it
    part = "test" if split == "test-dev" else split
    return read_coco(splits[split], folder / f"{part}2017", annotated=part != "test")


def _unpickled(
    class_names: tuple[str, ...],
    category_ids: tuple[int, ...],
    heads: Sequence[tuple[str, int, str, tuple[int, int], int]],
    columns: tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]],
    known: Sequence[Sequence[NDArray[np.float32] | None]],
) -> FolderDataset:
    counts = [count for *_, count in heads]
    boxes, labels, crowd = (split_rows(torch.as_tensor(column), counts) for column in columns)
    rest = [[None if part is None else torch.as_tensor(part) for part in parts] for parts in known]
    records = [
        Record(Path(path), Truth(image_id, name, size, *required, *optional))
        for (path, image_id, name, size, _), required, optional in zip(
            heads, zip(boxes, labels, crowd, strict=True), rest, strict=True
        )
    ]
    return FolderDataset(class_names, tuple(records), category_ids)


_WANTED = "`split: {images: folder, annotations: file.json}`"
