"""COCO JSON becomes labels from 0 and xyxy boxes; any malformed file is a one-line UserError."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gfocal.data.coco import read_coco
from gfocal.data.collate import learnable
from gfocal.data.dataset import FolderDataset
from gfocal.data.faults import Faults
from gfocal.errors import UserError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def document() -> dict[str, Any]:
    return {
        "info": {"year": 2024},
        "images": [
            {"id": 30, "file_name": "deep folder/a b.png", "width": 40, "height": 30},
            {"id": 7, "file_name": "empty.png", "width": 20, "height": 20},
            {"id": 12, "file_name": "c.png", "width": 64, "height": 48},
        ],
        "annotations": [
            {"id": 1, "image_id": 12, "category_id": 90, "bbox": [1.5, 2, 10, 20.25], "iscrowd": 0, "area": 3},
            {"id": 2, "image_id": 30, "category_id": 3, "bbox": [-5, -6, 20, 16]},
            {"id": 3, "image_id": 12, "category_id": 3, "bbox": [50, 40, 100, 100], "iscrowd": 1},
        ],
        "categories": [{"id": 90, "name": "zebra crossing"}, {"id": 3, "name": "bird"}],
    }


def read(folder: Path, content: Any, *, faults: Faults | None = None) -> FolderDataset:
    (folder / "images").mkdir(exist_ok=True)
    file = folder / "labels.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return read_coco(file, folder / "images", faults=faults)


def message(folder: Path, content: Any) -> str:
    """Return the text of the UserError that reading must raise: one line that names the file.

    Where faults are collected it is the first of them, or raised all the same.
    """
    with pytest.raises(UserError) as caught:
        read(folder, content)
    text = str(caught.value)
    assert text.isprintable()
    assert str(folder / "labels.json") in text
    faults = Faults(stop=False)
    try:
        check_sound(read(folder, content, faults=faults), empty=True)
    except UserError as error:
        assert str(error) == text
        assert faults.found == []
    else:
        assert str(faults.found[0]) == text
    return text


def check_sound(dataset: FolderDataset, *, empty: bool = False) -> None:
    assert len(dataset.class_names) == len(set(dataset.class_names)) == len(dataset.category_ids)
    assert dataset.class_names or empty
    assert list(dataset.category_ids) == sorted(dataset.category_ids)
    for record in dataset.records:
        truth = record.truth
        height, width = truth.size
        assert truth.boxes.dtype == torch.float32
        assert truth.boxes.shape == (len(truth.labels), 4)
        assert truth.labels.dtype == torch.int64
        assert truth.crowd.dtype == torch.bool
        assert truth.crowd.shape == truth.labels.shape
        assert torch.isfinite(truth.boxes).all()
        assert (truth.boxes[:, 2:] >= truth.boxes[:, :2]).all()
        assert truth.areas is not None
        assert truth.areas.shape == truth.labels.shape
        assert (truth.areas >= 0).all()
        boxes, _ = learnable(truth)
        assert (boxes >= 0).all()
        assert (boxes[:, 2:] <= torch.tensor([width, height])).all()
        # float32 has 24 bits: beyond 4,000 pixels the rounding of coordinates shows in a side
        if max(height, width) < 4000:
            assert (boxes[:, 2:] - boxes[:, :2] > 0.998).all()
        assert ((truth.labels >= 0) & (truth.labels < len(dataset.class_names))).all()


def test_labels_follow_the_order_of_the_category_ids(tmp_path: Path) -> None:
    dataset = read(tmp_path, document())
    assert dataset.class_names == ("bird", "zebra crossing")
    assert dataset.category_ids == (3, 90)
    assert dataset.truth(2).labels.tolist() == [1, 0]


def test_boxes_become_corners_in_the_order_of_the_file(tmp_path: Path) -> None:
    dataset = read(tmp_path, document())
    check_sound(dataset)
    assert [record.truth.image_id for record in dataset.records] == [30, 7, 12]
    assert dataset.truth(0).boxes.tolist() == [[-5, -6, 15, 10]]
    assert learnable(dataset.truth(0))[0].tolist() == [[0, 0, 15, 10]]
    assert dataset.truth(2).boxes.tolist() == [[1.5, 2, 11.5, 22.25], [50, 40, 150, 140]]
    assert dataset.truth(2).areas.tolist() == [3, 10000]
    assert dataset.truth(2).crowd.tolist() == [False, True]
    assert dataset.truth(2).size == (48, 64)
    assert dataset.truth(2).softness is None


def test_picture_without_a_box_is_kept(tmp_path: Path) -> None:
    truth = read(tmp_path, document()).truth(1)
    assert truth.boxes.shape == (0, 4)
    assert truth.labels.shape == truth.crowd.shape == (0,)
    no_boxes = document() | {"annotations": []}
    assert [len(record.truth.boxes) for record in read(tmp_path, no_boxes).records] == [0, 0, 0]


def test_names_with_folders_and_spaces_are_found(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    (tmp_path / "images" / "deep folder").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "images" / "deep folder" / "a b.png")
    dataset = read(tmp_path, document())
    assert dataset.truth(0).name == "deep folder/a b.png"
    assert np.array_equal(dataset.picture(0), pixels)
    with pytest.raises(UserError, match=r"c\.png: no such file"):
        dataset.picture(2)


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ([5, 5, 1, 1], True),
        ([5.3, 5.3, 1, 1], True),
        ([5, 5, 0.9, 4], False),
        ([5, 5, 4, 0], False),
        ([39.5, 5, 10, 10], False),
        ([-9.5, 5, 10, 10], False),
        ([39, 29, 1, 1], True),
        ([40, 5, 10, 10], False),
        ([-100, -100, 50, 50], False),
        ([1e8, 5, 10, 10], False),
        ([-9e8, -9e8, 9.9e8, 9.9e8], True),
    ],
)
def test_boxes_under_a_pixel_are_kept_for_the_metrics_but_not_learnt(
    tmp_path: Path, box: list[float], kept: bool
) -> None:
    content = document()
    content["annotations"][1]["bbox"] = box
    truth = read(tmp_path, content).truth(0)
    assert truth.boxes.shape == (1, 4)
    boxes, labels = learnable(truth)
    assert len(boxes) == len(labels) == kept
    assert boxes.numel() == 0 or (boxes.min() >= 0 and boxes[0, 2] <= 40 and boxes[0, 3] <= 30)


def test_ignored_annotations_are_dropped(tmp_path: Path) -> None:
    content = document()
    content["annotations"][0]["ignore"] = 1
    content["annotations"][2]["ignore"] = 0
    assert read(tmp_path, content).truth(2).labels.tolist() == [0]


def test_float_ids_and_byte_order_mark_are_understood(tmp_path: Path) -> None:
    content = document()
    content["images"][0]["id"] = 30.0
    content["images"][0]["width"] = 40.0
    content["annotations"][0]["category_id"] = 90.0
    truth = read(tmp_path, b"\xef\xbb\xbf" + json.dumps(content).encode()).truth(0)
    assert (truth.image_id, truth.size) == (30, (30, 40))
    assert type(truth.image_id) is int


CHANGES: list[tuple[list[Any], Any, str]] = [
    (["images"], None, "images is missing"),
    (["annotations"], None, "annotations is missing"),
    (["categories"], None, "categories is missing"),
    (["images"], {}, "images is {}"),
    (["images"], [], "images is empty"),
    (["categories"], [], "categories is empty"),
    (["annotations"], "none", "annotations is 'none'"),
    (["images", 1], 4, "images[1] is 4"),
    (["images", 1, "id"], None, "images[1].id is missing"),
    (["images", 1, "id"], 30, "images[1].id is 30"),
    (["images", 1, "id"], "7", "images[1].id is '7'"),
    (["images", 1, "id"], 7.5, "images[1].id is 7.5"),
    (["images", 1, "id"], True, "images[1].id is True"),
    (["images", 1, "id"], 10**30, "images[1].id is 1000000"),
    (["images", 1, "width"], 0, "images[1].width is 0"),
    (["images", 1, "height"], -20, "images[1].height is -20"),
    (["images", 1, "height"], float("nan"), "images[1].height is nan"),
    (["images", 1, "file_name"], 5, "images[1].file_name is 5"),
    (["images", 1, "file_name"], "", "images[1].file_name is ''"),
    (["categories", 1, "id"], 90, "categories[1].id is 90"),
    (["categories", 1, "name"], "zebra crossing", "categories[1].name is 'zebra crossing'"),
    (["categories", 1, "name"], None, "categories[1].name is missing"),
    (["annotations", 2], [], "annotations[2] is []"),
    (["annotations", 2], None, "annotations[2] is None"),
    (["annotations", 2, "image_id"], 31, "annotations[2].image_id is 31"),
    (["annotations", 2, "image_id"], None, "annotations[2].image_id is missing"),
    (["annotations", 2, "image_id"], [12], "annotations[2].image_id is [12]"),
    (["annotations", 2, "category_id"], 4, "annotations[2].category_id is 4"),
    (["annotations", 2, "category_id"], "3", "annotations[2].category_id is '3'"),
    (["annotations", 2, "bbox"], None, "annotations[2].bbox is missing"),
    (["annotations", 2, "bbox"], [1, 2, 3], "annotations[2].bbox is [1, 2, 3]"),
    (["annotations", 2, "bbox"], [1, 2, 3, 4, 5], "annotations[2].bbox is [1, 2, 3, 4, 5]"),
    (["annotations", 2, "bbox"], "1234", "annotations[2].bbox is '1234'"),
    (["annotations", 2, "bbox"], [1, 2, "3", 4], "annotations[2].bbox is [1, 2, '3', 4]"),
    (["annotations", 2, "bbox"], [1, 2, True, 4], "annotations[2].bbox is [1, 2, True, 4]"),
    (["annotations", 2, "bbox"], [1, 2, -3, 4], "annotations[2].bbox is [1, 2, -3, 4]"),
    (["annotations", 2, "bbox"], [1, 2, 3, -0.5], "annotations[2].bbox is [1, 2, 3, -0.5]"),
    (["annotations", 2, "bbox"], [1, float("nan"), 3, 4], "annotations[2].bbox is [1, nan, 3, 4]"),
    (["annotations", 2, "bbox"], [float("-inf"), 1, 3, 4], "annotations[2].bbox is [-inf, 1, 3, 4]"),
    (["annotations", 2, "bbox"], [1, 1, 3, float("inf")], "annotations[2].bbox is [1, 1, 3, inf]"),
    (["annotations", 2, "bbox"], [1, 1, 10**400, 1], "annotations[2].bbox is [1, 1, 1000"),
    (["annotations", 2, "iscrowd"], 2, "annotations[2].iscrowd is 2"),
    (["annotations", 2, "iscrowd"], "no", "annotations[2].iscrowd is 'no'"),
    (["annotations", 2, "ignore"], [], "annotations[2].ignore is []"),
]


def changed(keys: list[Any], value: Any) -> Any:
    """Return the document with one value replaced; None removes an entry of an object."""
    content = document()
    place = content
    for key in keys[:-1]:
        place = place[key]
    if value is None and isinstance(place, dict):
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    return content


@pytest.mark.parametrize(("keys", "value", "wanted"), CHANGES)
def test_error_names_file_key_and_value(tmp_path: Path, keys: list[Any], value: Any, wanted: str) -> None:
    assert f": {wanted}" in message(tmp_path, changed(keys, value))


@pytest.mark.parametrize(
    ("keys", "value", "kind", "kept"),
    [
        (["annotations", 0, "bbox"], [1, 2, "3", 4], "malformed", [1, 0, 1]),
        (["annotations", 0, "bbox"], [1, 2, -3, 4], "reversed", [1, 0, 1]),
        (["annotations", 0, "bbox"], [1, 2, -3, float("nan")], "malformed", [1, 0, 1]),
        (["annotations", 0, "category_id"], 4, "class", [1, 0, 1]),
        (["annotations", 0, "category_id"], "zebra", "malformed", [1, 0, 1]),
        (["annotations", 1, "image_id"], 31, "malformed", [0, 0, 2]),
        (["annotations", 1, "area"], -1, "malformed", [0, 0, 2]),
        (["annotations", 1], None, "malformed", [0, 0, 2]),
        # what belongs to a picture or category at fault is left out without a word of its own
        (["images", 2, "width"], 0, "malformed", [1, 0]),
        (["images", 0, "file_name"], None, "malformed", [0, 2]),
        (["categories", 0, "name"], None, "malformed", [1, 0, 1]),
        (["categories", 0, "name"], "bird", "malformed", [0, 0, 1]),
    ],
)
def test_collecting_leaves_out_what_is_at_fault_and_tells_it_once(
    tmp_path: Path, keys: list[Any], value: Any, kind: str, kept: list[int]
) -> None:
    faults = Faults(stop=False)
    dataset = read(tmp_path, changed(keys, value), faults=faults)
    check_sound(dataset)
    assert [fault.kind for fault in faults.found] == [kind]
    assert faults.found[0].where == str(tmp_path / "labels.json")
    assert [len(record.truth.boxes) for record in dataset.records] == kept


def test_all_faults_are_collected_in_the_order_of_the_file(tmp_path: Path) -> None:
    content = changed(["annotations", 0, "bbox"], [1, 2, 3])
    content["annotations"][2]["category_id"] = 5
    content["images"].append({"id": 30})
    content["categories"].append(7)
    faults = Faults(stop=False)
    read(tmp_path, content, faults=faults)
    assert [fault.what.split(" is ")[0] for fault in faults.found] == [
        "categories[2]",
        "images[3].id",
        "annotations[0].bbox",
        "annotations[2].category_id",
    ]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "line 1, column 1: not JSON"),
        (b'{"images": [],\n "annotations": [}', "line 2, column 18: not JSON"),
        (b"\xff\xfe\x00rubbish", "not JSON"),
        (b"[1, 2]", "the file is [1, 2]"),
        (b"[" * 100_000, "not JSON (nested too deep)"),
        (b'{"images": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
def test_not_a_json_object(tmp_path: Path, content: bytes, wanted: str) -> None:
    assert wanted in message(tmp_path, content)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: no such file"):
        read_coco(tmp_path / "none.json", tmp_path)
    with pytest.raises(UserError, match="this is a folder"):
        read_coco(tmp_path, tmp_path)
    (tmp_path / "labels.json").write_text(json.dumps(document()))
    with pytest.raises(UserError, match=r"pictures: no such folder.*labels\.json"):
        read_coco(tmp_path / "labels.json", tmp_path / "pictures")


def paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the keys that lead to each value inside a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, part in items for found in ((*prefix, key), *paths(part, (*prefix, key)))]


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([0, 1, 3, 7, 12, 30, 90, -1, 1e308, 2**63, 10**320, "bird"]),
    lambda parts: st.lists(parts, max_size=5) | st.dictionaries(st.text(max_size=8), parts, max_size=3),
    max_leaves=6,
)


CHANGE = st.tuples(st.sampled_from(paths(document())), ANY_JSON, st.sampled_from(["set", "del", "twice"]))


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CHANGE, min_size=1, max_size=3))
def test_any_change_gives_a_user_error_or_a_sound_data_set(
    tmp_path: Path, changes: list[tuple[tuple[Any, ...], Any, str]]
) -> None:
    content = document()
    for keys, value, kind in changes:
        place: Any = content
        try:
            for key in keys[:-1]:
                place = place[key]
            if kind == "set":
                place[keys[-1]] = value
            elif kind == "del":
                del place[keys[-1]]
            elif isinstance(place, list):
                place.append(copy.deepcopy(place[keys[-1]]))
        except (LookupError, TypeError):
            continue  # an earlier change removed the place
    try:
        dataset = read(tmp_path, content)
    except UserError as error:
        assert str(error).isprintable()
    else:
        check_sound(dataset)


def test_time_does_not_explode_with_categories(tmp_path: Path) -> None:
    categories = [{"id": number, "name": f"class {number}"} for number in range(1, 30_001)]
    (tmp_path / "labels.json").write_text(json.dumps(document() | {"categories": categories, "annotations": []}))
    start = time.process_time()
    assert len(read_coco(tmp_path / "labels.json", tmp_path).class_names) == len(categories)
    assert time.process_time() - start < 4  # a tenth of a second or so; quadratic code takes more than ten


@pytest.mark.parametrize("pictures", [100, 2000])
def test_time_does_not_explode(tmp_path: Path, pictures: int) -> None:
    boxes = np.random.default_rng(0).uniform(0, 300, (10_000, 4)).round(2).tolist()
    content = document() | {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in range(pictures)],
        "annotations": [{"image_id": i % pictures, "category_id": 3, "bbox": box} for i, box in enumerate(boxes)],
    }
    (tmp_path / "labels.json").write_text(json.dumps(content))
    start = time.process_time()
    dataset = read_coco(tmp_path / "labels.json", tmp_path)
    assert time.process_time() - start < 10  # half a second or so; quadratic code takes minutes
    assert sum(len(record.truth.boxes) for record in dataset.records) > 0.97 * len(boxes)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared pictures are not here")
@pytest.mark.parametrize(
    ("name", "split", "pictures", "boxes"),
    [
        ("bccd", "train", 205, 2804),
        ("bccd", "test", 72, 945),
        ("wind_turbine", "val", 80, 82),
        ("microcontroller", "train", 112, 132),
    ],
)
def test_real_files(name: str, split: str, pictures: int, boxes: int) -> None:
    dataset = read_coco(SHARED / name / f"{split}.json", SHARED / name / "images")
    check_sound(dataset)
    assert len(dataset) == pictures
    assert sum(len(record.truth.boxes) for record in dataset.records) == boxes
    assert dataset.picture(0).shape[:2] == dataset.truth(0).size
