"""The doctor finds each flaw of a data set once, and nothing in a data set without any."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from gfocal.analysis.doctor import Report, examine, open_splits, write_page
from gfocal.analysis.doctor.columns import columns_of
from gfocal.analysis.doctor.findings import KINDS
from gfocal.analysis.doctor.page import AREA_LABELS, ASPECT_LABELS, COUNT_LABELS
from gfocal.analysis.doctor.statistics import AREAS, ASPECTS, COUNTS
from gfocal.cli.__main__ import main
from gfocal.data.examples import learnable
from gfocal.data.opening import open_dataset
from gfocal.data.scenes import Scenes
from gfocal.errors import UserError
from gfocal.structures import Truth

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
HEIGHT, WIDTH = 60, 80
Content = dict[str, list[dict[str, Any]]]


def clean() -> dict[str, Content]:
    """Return two splits of three pictures each, with a box of either class in every picture."""
    splits: dict[str, Content] = {}
    for split in ("train", "val"):
        images = [
            {"id": number, "file_name": f"{split}{number}.png", "width": WIDTH, "height": HEIGHT} for number in range(3)
        ]
        boxes = [(number, label, [10 + 5 * number, 10, 20, 30]) for number in range(3) for label in (1, 2)]
        splits[split] = {
            "images": images,
            "annotations": [
                {"id": place + 1, "image_id": number, "category_id": label, "bbox": [box[0] + 10 * label, *box[1:]]}
                for place, (number, label, box) in enumerate(boxes)
            ],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        }
    return splits


def write(folder: Path, splits: dict[str, Content]) -> Path:
    """Write a data set: every picture of a noise of its own."""
    noise = np.random.default_rng(0)
    for split, content in splits.items():
        (folder / f"{split}.json").write_text(json.dumps(content))
        for image in content["images"]:
            pixels = noise.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / image["file_name"])
    lines = [f"{split}: {{images: ., annotations: {split}.json}}" for split in splits]
    (folder / "data.yaml").write_text("\n".join(lines))
    return folder


def add(content: Content, box: list[Any], *, image: int = 0, label: int = 1, **more: Any) -> None:
    content["annotations"].append({"id": 99, "image_id": image, "category_id": label, "bbox": box, **more})


def flawed(folder: Path, kind: str) -> Path:
    """Write a data set with one flaw of a kind."""
    splits = clean()
    train, val = splits["train"], splits["val"]
    first = train["annotations"][0]["bbox"]
    changes: dict[str, Any] = {
        "malformed": lambda: add(train, ["left", 2, 3, 4]),
        "class": lambda: add(train, [1, 2, 9, 9], label=7),
        "reversed": lambda: add(train, [40, 40, -9, 9]),
        "empty": lambda: add(train, [5, 5, 0, 20]),
        "thin": lambda: add(train, [5, 5, 20, 0.5]),
        "outside": lambda: add(train, [90, 5, 20, 20]),
        "partly-outside": lambda: add(train, [70, 5, 20, 20]),
        "duplicate": lambda: add(train, first),
        "conflict": lambda: add(train, first, label=2),
        "crowd": lambda: add(train, [1, 1, 40, 40], iscrowd=1),
        "no-boxes": lambda: train["images"].append(
            {"id": 9, "file_name": "bare.png", "width": WIDTH, "height": HEIGHT}
        ),
        "classes-differ": lambda: val["categories"].__setitem__(1, {"id": 3, "name": "dog"}),
        "class-missing": lambda: add(train, [3, 3, 30, 30], label=3),
        "class-unused": lambda: None,
    }
    if kind in ("class-missing", "class-unused"):
        for content in (train, val):
            content["categories"].append({"id": 3, "name": "bird"})
    changes.get(kind, lambda: None)()
    if kind == "classes-differ":
        for annotation in val["annotations"]:
            annotation["category_id"] = {1: 1, 2: 3}[annotation["category_id"]]
    write(folder, splits)
    if kind == "picture":
        path = folder / "train1.png"
        path.write_bytes(path.read_bytes()[:3000])
    elif kind == "size":
        Image.new("RGB", (WIDTH // 2, HEIGHT)).save(folder / "train1.png")
    elif kind in ("leak", "repeated"):
        Image.open(folder / "train1.png").save(folder / ("val2.png" if kind == "leak" else "train2.png"), dpi=(72, 72))
    return folder


def found(report: Report) -> dict[str, int]:
    return {finding.kind: finding.count for finding in report.findings}


def test_a_clean_data_set_reports_nothing(tmp_path: Path) -> None:
    report = examine(write(tmp_path, clean()), workers=0)
    assert report.findings == ()
    assert report.sound
    assert report.text().endswith("nothing is wrong")


OF_DATA = sorted(set(KINDS) - {"clipped"})


@pytest.mark.parametrize("kind", OF_DATA)
def test_each_flaw_is_found_once_and_nothing_else(tmp_path: Path, kind: str) -> None:
    report = examine(flawed(tmp_path, kind), workers=0)
    assert found(report) == {kind: 1}
    (finding,) = report.findings
    assert len(finding.examples) == 1
    assert finding.what == f"1 {KINDS[kind].one}"
    assert report.sound == (finding.severity == "note")
    assert f"{finding.severity}: 1 {KINDS[kind].one}: {KINDS[kind].advice}" in report.text()
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["findings"][0]["count"] == 1


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("malformed", r"train: .*train\.json: annotations\[6\]\.bbox is \['left', 2, 3, 4\]"),
        ("class", r"train: .*train\.json: annotations\[6\]\.category_id is 7"),
        ("reversed", r"train: .*train\.json: annotations\[6\]\.bbox"),
        ("picture", r"train: train1\.png: .*train1\.png: cannot be read"),
        ("size", r"train: train1\.png: .*the picture is 40 x 60 pixels .*says 80 x 60"),
        ("empty", r"train: train0\.png boxes\[2\]: cat \(5, 5\) to \(5, 25\) in 80 x 60"),
        ("outside", r"train: train0\.png boxes\[2\]: cat \(90, 5\) to \(110, 25\)"),
        ("duplicate", r"train: train0\.png boxes\[2\]: cat \(20, 10\) to \(40, 40\)"),
        ("conflict", r"train: train0\.png boxes\[0\]: cat \(20, 10\)"),
        ("leak", r"train: train1\.png: the same picture as val2\.png in val"),
        ("repeated", r"train: train2\.png: the same picture as train1\.png"),
        ("classes-differ", r"val: calls 'dog' 3 and train 2"),
        ("class-missing", r"val: no box of bird \(id 3\), 1 in train"),
        ("class-unused", r"train: bird \(id 3\)"),
        ("no-boxes", r"train: bare\.png"),
    ],
)
def test_examples_say_where_and_what(tmp_path: Path, kind: str, wanted: str) -> None:
    (finding,) = examine(flawed(tmp_path, kind), workers=0).findings
    assert re.search(wanted, str(finding.examples[0]))


def test_many_flaws_are_counted_over_all_splits_and_told_by_gravity(tmp_path: Path) -> None:
    splits = clean()
    for split in ("train", "val"):
        for place in range(3):
            add(splits[split], [5 + place, 5, 0, 20])
    add(splits["val"], [1, 1, 40, 40], iscrowd=1)
    folder = write(tmp_path, splits)
    (folder / "val0.png").write_bytes(b"no picture")
    report = examine(folder, workers=0)
    assert found(report) == {"picture": 1, "empty": 6, "crowd": 1}
    assert list(found(report)) == ["picture", "empty", "crowd"]
    assert [example.split for example in report.findings[1].examples] == ["train"] * 3 + ["val"] * 3
    assert "    and 3 more" in report.text()
    assert report.text().endswith("found: 1 error, 1 warning, 1 note")


def test_three_copies_of_a_picture_are_one_leak_and_the_repeats_of_a_split(tmp_path: Path) -> None:
    folder = write(tmp_path, clean())
    for name in ("train1", "train2", "val0"):
        Image.open(folder / "train0.png").save(folder / f"{name}.png")
    assert found(examine(folder, workers=0)) == {"leak": 1, "repeated": 2}


def test_boxes_twice_with_two_classes_are_told_apart(tmp_path: Path) -> None:
    splits = clean()
    first = splits["train"]["annotations"][0]["bbox"]
    for label in (1, 1, 2, 2):
        add(splits["train"], first, label=label)
    add(splits["train"], first, iscrowd=1)
    assert found(examine(write(tmp_path, splits), workers=0)) == {"duplicate": 3, "conflict": 1, "crowd": 1}


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ([0, 0, 80.4, 60.4], None),
        ([-0.4, 10, 30, 30], None),
        ([-0.6, 10, 30, 30], "partly-outside"),
        ([0, 0, 80, 60.6], "partly-outside"),
        ([79.5, 10, 30, 30], "outside"),
        ([500, 10, 0, 30], "empty"),
        ([500, 10, 0.5, 30], "thin"),
        ([79, 59, 1, 1], None),
    ],
)
def test_a_box_is_of_one_kind_of_place_and_size(tmp_path: Path, box: list[float], kind: str | None) -> None:
    splits = clean()
    add(splits["train"], box)
    assert found(examine(write(tmp_path, splits), pictures=False)) == ({kind: 1} if kind else {})


def test_what_is_learnt_is_what_training_takes() -> None:
    noise = torch.Generator().manual_seed(0)
    corners = torch.rand(200, 2, 2, generator=noise) * 120 - 20
    boxes = torch.cat([corners.amin(1), corners.amax(1)], dim=1)
    boxes[::7, 2] = boxes[::7, 0]
    crowd = torch.rand(200, generator=noise) < 0.2
    truth = Truth(1, "a", (HEIGHT, WIDTH), boxes, torch.arange(200), crowd)
    columns = columns_of("train", _Truths((truth,)))
    assert torch.from_numpy(columns.learnt).nonzero()[:, 0].tolist() == learnable(truth)[1].tolist()
    assert 0 < columns.learnt.sum() < 200


@final
class _Truths:
    """Annotations without pictures."""

    def __init__(self, truths: tuple[Truth, ...]) -> None:
        self.truths = truths
        self.class_names = tuple(f"class {label}" for label in range(200))
        self.category_ids = tuple(range(200))

    def __len__(self) -> int:
        return len(self.truths)

    def truth(self, index: int) -> Truth:
        return self.truths[index]

    def picture(self, index: int) -> NDArray[np.uint8]:
        raise AssertionError("pictures are not read")


def test_numbers_of_a_split(tmp_path: Path) -> None:
    splits = clean()
    add(splits["train"], [0, 0, 80, 60], area=100)
    add(splits["train"], [0, 0, 80, 60], iscrowd=1)
    add(splits["train"], [5, 5, 0, 20])
    split = examine(write(tmp_path, splits), pictures=False).splits["train"]
    assert (split.pictures, split.boxes, split.crowds, split.without_boxes) == (3, 8, 1, 0)
    assert split.crowd_share == pytest.approx(1 / 9)
    assert split.classes == {"cat": 5, "dog": 3}
    assert (split.small, split.medium, split.large) == (7, 0, 0)
    assert dict(zip(AREA_LABELS, split.relative_area.counts, strict=True))["< 30 %"] == 6
    assert dict(zip(AREA_LABELS, split.relative_area.counts, strict=True))["to 100 %"] == 1
    assert dict(zip(COUNT_LABELS, split.boxes_a_picture.counts, strict=True))["2"] == 2
    assert dict(zip(COUNT_LABELS, split.boxes_a_picture.counts, strict=True))["3–4"] == 1
    assert dict(zip(ASPECT_LABELS, split.aspect.counts, strict=True))["< 4:5"] == 6
    assert len(AREAS) == len(AREA_LABELS)
    assert len(COUNTS) == len(COUNT_LABELS)
    assert len(ASPECTS) == len(ASPECT_LABELS)


def test_a_test_split_without_annotations_is_no_flaw(tmp_path: Path) -> None:
    splits = clean()
    splits["test"] = copy.deepcopy(splits["val"]) | {"annotations": []}
    for image in splits["test"]["images"]:
        image["file_name"] = f"test{image['file_name']}"
    report = examine(write(tmp_path, splits), workers=0)
    assert report.findings == ()
    assert report.splits["test"].without_boxes == 3


def test_a_data_set_of_nothing_but_background_is_examined(tmp_path: Path) -> None:
    splits = {split: content | {"annotations": []} for split, content in clean().items()}
    report = examine(write(tmp_path, splits), workers=0)
    assert found(report) == {"no-boxes": 6}
    assert report.clipping is None
    page = page_of(tmp_path, report, tmp_path)
    assert "nothing to count" in page


def test_open_data_sets_and_workers_give_the_same_report(tmp_path: Path) -> None:
    folder = flawed(tmp_path, "leak")
    Image.new("RGB", (WIDTH // 2, HEIGHT)).save(folder / "train0.png")
    counted: list[int] = []
    alone = examine(folder, workers=0, progress=counted.append)
    datasets = {split: open_dataset(folder, split) for split in ("train", "val")}
    assert examine(datasets, workers=2, name=str(folder)) == alone
    assert counted == [1, 2, 3, 4, 5, 6]


def test_pictures_made_on_the_fly_are_examined_too() -> None:
    report = examine({"train": Scenes(4), "val": Scenes(3, seed=1)}, workers=0, recipe="gfl_r18_mini")
    assert set(found(report)) <= {"class-missing", "class-unused"}  # seven pictures may lack a class
    assert report.splits["val"].pictures == 3
    assert report.clipping is not None
    assert report.clipping.recipe == "gfl_r18_mini"


def test_splits_that_are_made_of_others_are_left_out(tmp_path: Path) -> None:
    splits = clean()
    folder = write(tmp_path, splits)
    lines = (folder / "data.yaml").read_text()
    (folder / "data.yaml").write_text(lines + "\ntrainval: {images: ., annotations: train.json}")
    assert examine(folder, workers=0).findings == ()
    assert list(open_splits(folder)[0]) == ["train", "val"]


def test_mistakes_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown data set"):
        examine(tmp_path / "none")
    with pytest.raises(UserError, match="unknown recipe 'gfl_r50'"):
        examine(write(tmp_path, clean()), recipe="gfl_r50")
    with pytest.raises(UserError, match="no split to examine"):
        examine({})
    (tmp_path / "val.json").write_text("[")
    with pytest.raises(UserError, match=r"val\.json: line 1"):
        examine(tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared pictures are not here")
def test_the_two_boxes_without_area_of_the_blood_cells_are_found() -> None:
    report = examine(SHARED / "bccd_voc", pictures=False)
    assert found(report) == {"empty": 2}
    files = [f"{example.split} {example.file}" for example in report.findings[0].examples]
    assert files == ["train BloodImage_00343.jpg", "val BloodImage_00338.jpg"]


# the page


@final
class _Checker(HTMLParser):
    """Collects tags and checks that those that close also opened."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "link"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(folder: Path, report: Report, data: Path) -> str:
    write_page(folder / "page.html", report, open_splits(data)[0])
    return (folder / "page.html").read_text(encoding="utf-8")


def tags_of(page: str) -> list[tuple[str, dict[str, str | None]]]:
    checker = _Checker()
    checker.feed(page)
    assert not checker.open
    return checker.tags


def everything_wrong(folder: Path) -> Path:
    """Write a data set with flaws of many kinds at once."""
    splits = clean()
    for box in ([5, 5, 0, 20], [5, 5, 20, 0.5], [90, 5, 20, 20], [70, 5, 20, 20], [1e6, 5, 20, 20]):
        add(splits["train"], box, image=1)
    add(splits["val"], ["left", 2, 3, 4])
    splits["train"]["categories"].append({"id": 3, "name": "<b>bird</b> & co"})
    write(folder, splits)
    (folder / "train0.png").write_bytes(b"no picture")
    Image.open(folder / "train2.png").save(folder / "val2.png")
    return folder


def test_the_page_is_one_well_formed_file_that_asks_for_nothing(tmp_path: Path) -> None:
    folder = everything_wrong(tmp_path)
    report = examine(folder, workers=0)
    page = page_of(tmp_path, report, folder)
    assert "://" not in page
    assert "@import" not in page
    assert "url(" not in page
    tags = tags_of(page)
    assert {name for name, _ in tags}.isdisjoint({"script", "iframe", "object"})
    for _, given in tags:
        assert all((given.get(name) or "data:").startswith("data:") for name in ("src", "href", "srcset"))
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_the_page_holds_the_counts_and_draws_the_flaws(tmp_path: Path) -> None:
    folder = everything_wrong(tmp_path)
    report = examine(folder, workers=0)
    page = page_of(tmp_path, report, folder)
    assert "found: 4 errors, 4 warnings, 1 note" in page
    for finding in report.findings:
        assert f"{finding.what}</h3>" in page
    assert "&lt;b&gt;bird&lt;/b&gt; &amp; co" in page
    tags = tags_of(page)
    assert sum(name == "image" for name, _ in tags) == 4 + 1  # a picture a kind of box, and the one of both splits
    assert sum(name == "ellipse" for name, _ in tags) == 2
    assert '<rect x="5" y="5" width="0" height="20"/>' in page
    assert re.search(r'viewBox="0 0 9\d\.?\d* 60"', page)
    for split in report.splits.values():
        assert f"<dd>{split.boxes:,} boxes</dd><dd>{split.pictures:,} pictures</dd>" in page


def test_a_page_of_unread_pictures_and_a_recipe_without_bins(tmp_path: Path) -> None:
    folder = write(tmp_path, clean())
    report = examine(folder, pictures=False, recipe="fcos_r50_fpn_1x")
    assert report.clipping is None
    page = page_of(tmp_path, report, folder)
    tags_of(page)
    for text in ("Nothing was found.", "Pictures were not read.", "fcos_r50_fpn_1x has no bins"):
        assert text in page
    assert "pictures were not read" in report.text()


def test_names_that_are_no_utf8_can_be_written(tmp_path: Path) -> None:
    folder = write(tmp_path, clean())
    report = replace(examine(folder, pictures=False), data="bad\udcff")
    assert "bad?" in page_of(tmp_path, report, folder)
    with pytest.raises(UserError, match="cannot be written"):
        write_page(tmp_path / "data.yaml" / "page.html", report, {})


# the command


def ran(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of `gfocal doctor`."""
    code = 0
    try:
        main(["doctor", *(str(argument) for argument in arguments)])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(("kind", "code"), [("none", 0), ("no-boxes", 0), ("empty", 1), ("picture", 1)])
def test_exit_code_says_whether_something_is_wrong(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str, code: int
) -> None:
    status, out, err = ran(capsys, flawed(tmp_path, kind), "--workers", 0)
    assert status == code
    assert out.startswith(str(tmp_path))
    assert "reading pictures 6/6" in err or "reading pictures 7/7" in err


def test_the_command_writes_json_and_page(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = flawed(tmp_path, "empty")
    page = tmp_path / "page.html"
    status, out, err = ran(
        capsys, folder, "--json", "--no-pictures", "-o", page, "--recipe", "gfl_r18_mini", "--workers", 0
    )
    assert status == 1
    wanted = examine(folder, pictures=False, recipe="gfl_r18_mini").to_dict()
    assert json.loads(out) == json.loads(json.dumps(wanted))
    assert err == f"page: {page}\n"
    assert "1 box without area" in page.read_text(encoding="utf-8")


def test_mistakes_on_the_command_line_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments in ((tmp_path / "none",), (write(tmp_path, clean()), "--recipe", "nothing"), ()):
        status, out, err = ran(capsys, *arguments)
        assert (status, out) == (2, "")
        assert len(err.splitlines()) == 1
        assert err.startswith("gfocal: ")


def test_help_tells_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ran(capsys, "--help")
    assert status == 0
    assert "Exit code" in out
    assert "Next:" in out
