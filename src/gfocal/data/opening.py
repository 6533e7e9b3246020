"""How a user names a data set: whatever its format, it becomes a Dataset."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import yaml

from gfocal.data.coco import read_coco
from gfocal.data.dataset import Dataset, FolderDataset
from gfocal.data.faults import Faults, naming
from gfocal.data.pictures import path_text, value_text
from gfocal.data.voc import is_voc, read_voc, voc_splits
from gfocal.data.yaml_nodes import line_of, node_text, pairs_of, read_nodes
from gfocal.data.yolo import is_yolo, read_yolo, yolo_splits
from gfocal.errors import UserError, unknown

Opener: TypeAlias = Callable[[Faults], Dataset]


def open_dataset(source: str | Path, split: str, *, faults: Faults | None = None) -> Dataset:
    """Open the split (train, val, ...) of the data set that a user named.

    source: the word "scenes"; a data.yaml, or the folder that holds it, either of ours (`split: {images: folder,
    annotations: file.json}`, paths relative to it) or of Ultralytics (`read_yolo`); a COCO 2017 folder; a Pascal VOC
    folder (`read_voc`). faults: collects the entries and pictures that cannot be used; None stops at the first.
    Raises UserError where there is no such data set or split, its files are malformed as a whole, or at the first
    fault where `faults` stops.
    """
    name, openers = _openers(source)
    if split not in openers:
        raise unknown(f"split of {name}", split, openers)
    return openers[split](faults if faults is not None else Faults())


def splits_of(source: str | Path) -> tuple[str, ...]:
    """Return the names of the splits of the data set that a user named, as `open_dataset` takes them.

    Some hold pictures of others: trainval of VOC is train and val, test-dev of COCO a part of test. Raises UserError
    where there is no such data set, or the file or folder that names the splits is malformed.
    """
    return tuple(_openers(source)[1])


def _openers(source: str | Path) -> tuple[str, dict[str, Opener]]:
    """Return how messages call a data set, and what opens each of its splits."""
    if source == "scenes":
        return "scenes", {split: partial(_open_scenes, split) for split in ("train", "val", "test")}
    path = Path(source)
    if os.path.isfile(path / "data.yaml"):
        return path_text(path / "data.yaml"), _yaml_openers(path / "data.yaml")
    if os.path.isdir(path):
        return path_text(path), _folder_openers(path)
    if os.path.isfile(path) and path.suffix in (".yaml", ".yml"):
        return path_text(path), _yaml_openers(path)
    if os.path.exists(path):
        raise UserError(
            f"{path_text(path)}: not a data set: give a data.yaml, or a COCO 2017 folder or a Pascal VOC folder"
        )
    known = ("scenes", "path of a data.yaml", "path of a COCO 2017 folder", "path of a Pascal VOC folder")
    raise unknown("data set", str(source), known)


def _open_scenes(split: str, faults: Faults) -> Dataset:
    from gfocal.data.scenes import Scenes

    length, seed = {"train": (20_000, 0), "val": (200, 1), "test": (200, 2)}[split]
    return Scenes(length=length, seed=seed)


def _yaml_openers(path: Path) -> dict[str, Opener]:
    with naming(path):
        root = read_nodes(path)
        if root is None:
            raise UserError(f"the file is empty: write {_WANTED}")
        pairs = pairs_of("the file", root, wanted=_WANTED)
        if is_yolo(pairs):
            return {split: _yolo_opener(path, split, pairs) for split in yolo_splits(pairs)}
        return {key: _coco_opener(path, key, _yaml_split(key, node)) for key, node in pairs.items()}


def _yolo_opener(path: Path, split: str, pairs: dict[str, yaml.Node]) -> Opener:
    return lambda faults: read_yolo(path, split, pairs=pairs, faults=faults)


def _coco_opener(path: Path, split: str, files: dict[str, str]) -> Opener:
    annotations, images = path.parent / files["annotations"], path.parent / files["images"]
    return lambda faults: read_coco(annotations, images, annotated=not split.startswith("test"), faults=faults)


def _yaml_split(split: str, node: yaml.Node) -> dict[str, str]:
    """Return the images and annotations of a split in a data.yaml of ours."""
    fields = pairs_of(value_text(split), node, wanted=_WANTED)
    for key, value in fields.items():
        where = f"{line_of(value)}: {value_text(split)}"
        if key not in ("images", "annotations"):
            raise UserError(f"{where}: {unknown('key', key, ('images', 'annotations'))}")
        if not isinstance(value, yaml.ScalarNode):
            raise UserError(f"{where}.{key} is a list or mapping: write the path of a file or folder")
        if value.tag != "tag:yaml.org,2002:str":
            raise UserError(f"{where}.{key} is {node_text(value)}: write the path of a file or folder")
    for key in ("images", "annotations"):
        if key not in fields:
            raise UserError(f"{line_of(node)}: {value_text(split)}.{key} is missing: write {_WANTED}")
    return {key: str(value.value) for key, value in fields.items()}


def _folder_openers(folder: Path) -> dict[str, Opener]:
    # COCO first: where names do not tell case, its "annotations" look like VOC's "Annotations"
    coco = {
        file.name.removeprefix(prefix).removesuffix("2017.json"): file
        for prefix in ("image_info_", "instances_")
        for file in sorted(folder.glob(f"annotations/{prefix}*2017.json"))
    }
    if coco:
        return {split: partial(_open_coco, folder, split, coco[split]) for split in sorted(coco, key=_conventional)}
    if is_voc(folder):
        return {split: partial(_open_voc, folder, split) for split in sorted(voc_splits(folder), key=_conventional)}
    raise UserError(
        f"{path_text(folder)}: not a data set: it holds neither a data.yaml nor annotations/instances_*2017.json "
        "(COCO) nor Annotations/*.xml (Pascal VOC)"
    )


def _open_coco(folder: Path, split: str, annotations: Path, faults: Faults) -> FolderDataset:
    # test-dev is a part of test, without annotations as all of it
    part = "test" if split == "test-dev" else split
    return read_coco(annotations, folder / f"{part}2017", annotated=part != "test", faults=faults)


def _open_voc(folder: Path, split: str, faults: Faults) -> FolderDataset:
    return read_voc(folder, split, faults=faults)


def _conventional(split: str) -> tuple[int, str]:
    """Return what sorts splits: train, val, test, then the others by name."""
    order = ("train", "val", "test")
    return (order.index(split) if split in order else len(order)), split


_WANTED = (
    "`split: {images: folder, annotations: file.json}`, or as Ultralytics does "
    "`train: folder`, `val: folder` and `names: [first class, second class]`"
)
