"""What the page of `gfocal explain` is made of: its rows, their bytes, one file, and the stills beside it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from explained import BINS, NAMES, crowded, small
from gfocal.bands import Bands
from gfocal.draw.explain.packing import SHOWN_AFTER, SHOWN_BEFORE, pack, rows_of
from gfocal.draw.explain.page import LONGEST_SIDE, write_page
from gfocal.draw.explain.still import BOXES, write_stills
from gfocal.errors import UserError

BOTH = SHOWN_BEFORE + SHOWN_AFTER


def unpacked(head: dict, text: str) -> dict[str, np.ndarray]:
    """The columns as the page reads them."""
    content, start, columns = base64.b64decode(text), 0, {}
    for name, kind, width in head["columns"]:
        array = np.frombuffer(content, f"<{kind}", head["rows"] * width, start)
        assert start % array.itemsize == 0  # or the browser refuses to read it
        start += array.nbytes
        columns[name] = array.reshape(head["rows"], width)
    assert start == len(content)
    return columns


def page_of(path: Path, *pictures, **options) -> str:
    write_page(path, pictures, title="A <title>", class_names=NAMES, **options)
    return path.read_text(encoding="utf-8")


def test_rows_are_the_survivors_then_all_other_candidates():
    rows = rows_of(small(), most=300)
    assert rows.source.tolist() == [0, 2, 3, 1]
    assert rows.flags.tolist() == [BOTH, BOTH, BOTH, SHOWN_BEFORE]
    assert rows.winner.tolist() == [-1, -1, -1, 0]
    assert [found.scores.tolist() for found in rows.found] == [
        pytest.approx([0.9, 0.5, 0.1]),
        pytest.approx([0.7]),
    ]


def test_of_many_candidates_the_best_are_told_but_every_survivor():
    rows = rows_of(small(), most=1)
    assert rows.source.tolist() == [0, 2, 3]
    assert rows_of(small(), most=2).source.tolist() == [0, 2, 3, 1]
    assert rows_of(small(), most=0).flags.tolist() == [BOTH] * 3


def test_what_suppression_changed_stands_before_and_after():
    explained = small()
    changed = replace(explained.after, scores=explained.after.scores * torch.tensor([1.0, 0.5, 1.0]))
    rows = rows_of(replace(explained, after=changed), most=300)
    assert rows.source.tolist() == [0, 2, 3, 1, 2]
    assert rows.flags.tolist() == [BOTH, SHOWN_AFTER, BOTH, SHOWN_BEFORE, SHOWN_BEFORE]
    assert rows.winner.tolist() == [-1, -1, -1, 0, -1]  # nothing gives way to itself


def test_a_candidate_gives_way_only_within_its_class():
    explained = small()
    other = replace(explained.before, labels=torch.tensor([0, 1, 1, 2]))
    rows = rows_of(replace(explained, before=other), most=300)
    assert rows.winner.tolist() == [-1, -1, -1, -1]


def test_bytes_hold_every_column():
    explained = small()
    rows = rows_of(explained, most=300)
    head, text = pack(rows, explained.class_scores)
    columns = unpacked(head, text)
    order = [0, 2, 3, 1]
    before = explained.before[torch.tensor(order)]
    assert (head["rows"], head["bins"]) == (4, BINS)
    assert before.edges is not None
    assert before.quality is not None
    np.testing.assert_array_equal(columns["boxes"], before.boxes.numpy())
    np.testing.assert_array_equal(columns["scores"][:, 0], before.scores.numpy())
    np.testing.assert_array_equal(columns["quality"][:, 0], before.quality.numpy())
    np.testing.assert_array_equal(columns["labels"][:, 0], before.labels.numpy())
    shares = columns["probabilities"].reshape(4, 4, BINS) / 65535
    np.testing.assert_allclose(shares, before.edges.probabilities.numpy(), atol=0.51 / 65535)
    places = columns["start"][..., None] + columns["step"][..., None] * np.arange(BINS)
    np.testing.assert_allclose(places, before.edges.positions.numpy(), atol=1e-3)
    assert explained.class_scores is not None
    for row, source in enumerate(order):
        best = explained.class_scores[source].sort(descending=True)
        np.testing.assert_array_equal(columns["topLabels"][row], best.indices.numpy())
        np.testing.assert_array_equal(columns["topScores"][row], best.values.numpy())


def test_calibrated_bands_travel_along():
    explained = small()
    masses = (0.5, 0.8, 0.9)

    def calibrated(found):
        reach = torch.tensor([1.0, 2.0, 3.0]).expand(len(found), 4, 3)
        low, high = found.boxes[..., None] - reach, found.boxes[..., None] + reach
        return replace(found, bands=Bands(masses, low, high, outer=low, inner=high))

    explained = replace(explained, before=calibrated(explained.before), after=calibrated(explained.after))
    bands = unpacked(*pack(rows_of(explained, most=300), None))["bands"].reshape(4, 4, 4)
    edges = explained.before.boxes[torch.tensor([0, 2, 3, 1])].numpy()[..., None]
    np.testing.assert_allclose(bands - edges, np.broadcast_to([-1, 1, -3, 3], (4, 4, 4)))


def test_no_boxes_and_no_distributions_pack():
    explained = small()
    none = replace(
        explained,
        before=explained.before[:0],
        after=explained.after[:0],
        source=torch.zeros(0, dtype=torch.long),
        class_scores=torch.zeros(0, 3),
    )
    assert unpacked(*pack(rows_of(none, most=9), none.class_scores))["boxes"].shape == (0, 4)
    plain = replace(explained, before=replace(explained.before, edges=None), after=replace(explained.after, edges=None))
    head, text = pack(rows_of(plain, most=9), None)
    assert head["bins"] == 0
    assert "probabilities" not in unpacked(head, text)


@pytest.mark.parametrize("source", [torch.tensor([0, 1]), torch.tensor([0, 2, 9])])
def test_a_source_that_fits_no_candidate_is_refused(source):
    with pytest.raises(ValueError, match="source"):
        replace(small(), source=source)


def test_class_scores_of_another_length_are_refused():
    with pytest.raises(ValueError, match="class_scores"):
        replace(small(), class_scores=torch.zeros(2, 3))


def test_the_page_is_one_file_whose_policy_lets_nothing_else_in(tmp_path):
    page = page_of(tmp_path / "p.html", small("</script><b>.jpg"))
    assert [path.name for path in tmp_path.iterdir()] == ["p.html"]
    assert set(re.findall(r"https?://[^\"'\s]*", page)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|innerHTML|insertAdjacentHTML|document\.write|eval\(", page)
    policy = re.search(r'content="(default-src[^"]*)"', page)
    assert policy is not None
    assert "unsafe" not in policy[1]
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    assert page.count("</script>") == page.count("<script")


def test_names_come_back_from_the_data_as_they_were(tmp_path):
    page = page_of(tmp_path / "p.html", small("</script><b>.jpg"))
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    told = json.loads(data[1])
    assert told["classes"] == list(NAMES)
    assert told["pictures"][0]["name"] == "</script><b>.jpg"
    assert told["pictures"][0]["truth"]["softness"] == [[1.0, 1.0, 2.0, 12.0]]


def test_pictures_are_stored_no_larger_than_a_phone_can_bear(tmp_path):
    page = page_of(tmp_path / "p.html", crowded(0, count=2, side=1600))
    text = re.search(r'id="picture-0">(.*?)<', page)
    assert text is not None
    (tmp_path / "p.jpg").write_bytes(base64.b64decode(text[1]))
    with Image.open(tmp_path / "p.jpg") as stored:
        assert max(stored.size) == LONGEST_SIDE


def test_a_page_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        page_of(tmp_path / "file" / "p.html", small())


def test_stills_are_an_overview_and_a_sheet_of_single_boxes(tmp_path):
    overview, single = write_stills(tmp_path / "new", "one", small(), score=0.3)
    assert (overview.name, single.name) == ("one.png", "one-edges.png")
    with Image.open(single) as sheet:
        two = sheet.size
    with Image.open(write_stills(tmp_path, "many", crowded(0, count=9, side=320), score=0)[1]) as sheet:
        assert sheet.size[0] == pytest.approx(BOXES / 2 * two[0], abs=2)


def test_stills_show_found_and_true_boxes_in_their_colours(tmp_path):
    _, single = write_stills(tmp_path, "one", small(), score=0.8)
    with Image.open(single) as sheet:
        pixels = np.asarray(sheet.convert("RGB")).reshape(-1, 3)
    seen = {tuple(int(value) for value in pixel) for pixel in np.unique(pixels, axis=0)}
    assert {(0x00, 0x9E, 0x73), (255, 255, 255), (90, 90, 90)} <= seen


def test_stills_without_distributions_are_the_overview_alone(tmp_path):
    explained = small()
    plain = replace(explained, before=replace(explained.before, edges=None), after=replace(explained.after, edges=None))
    assert [path.name for path in write_stills(tmp_path, "one", plain)] == ["one.png"]
    assert [path.name for path in write_stills(tmp_path, "none", small(), score=1)] == ["none.png"]
