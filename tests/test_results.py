"""What a run writes is whole at every moment, and belongs to the settings beside it."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from gfocal.errors import UserError
from gfocal.results import Results, alone_in

SETTINGS: dict[str, object] = {"model": "sha256:1", "threshold": 0.3, "size": [64, 96], "tile": None}
LINES = ['{"file": "a.png"}', '{"file": "b.avi", "frame": 0}', '{"file": "b.avi", "frame": 5}']


def write(out: Path, *lines: str, finished: bool = False) -> None:
    with Results(out, SETTINGS, resume=False) as results:
        for line in lines:
            results.append(line)
        if finished:
            results.finish()


def content(out: Path) -> list[str]:
    return (out / "detections.jsonl").read_text().splitlines()


def test_each_line_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with Results(tmp_path / "deep" / "out", SETTINGS, resume=False) as results:
        assert not (tmp_path / "deep").exists()
        for number, line in enumerate(LINES, 1):
            results.append(line)
            assert content(tmp_path / "deep" / "out") == LINES[:number]
        assert not json.loads((tmp_path / "deep/out/predict.json").read_text())["finished"]
        results.finish()
    assert json.loads((tmp_path / "deep/out/predict.json").read_text()) == SETTINGS | {"finished": True}


def test_resuming_tells_what_is_there_and_appends(tmp_path: Path) -> None:
    write(tmp_path, *LINES)
    with Results(tmp_path, SETTINGS, resume=True) as results:
        assert results.recorded == {"a.png": 1, "b.avi": 6}
        results.append('{"file": "c.png"}')
    assert content(tmp_path) == [*LINES, '{"file": "c.png"}']


@pytest.mark.parametrize("cut", range(1, len(LINES[1]) + 1))
def test_half_a_line_is_cut_off_and_done_again(tmp_path: Path, cut: int) -> None:
    write(tmp_path, LINES[0], LINES[1])
    path = tmp_path / "detections.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    with Results(tmp_path, SETTINGS, resume=True) as results:
        assert results.recorded == {"a.png": 1}
        results.append(LINES[1])
    assert content(tmp_path) == LINES[:2]


def test_resuming_begins_where_nothing_is_there(tmp_path: Path) -> None:
    with Results(tmp_path / "new", SETTINGS, resume=True) as results:
        assert results.recorded == {}
        results.append(LINES[0])
    assert content(tmp_path / "new") == LINES[:1]
    (tmp_path / "new" / "detections.jsonl").unlink()  # as if it had been killed before the first line
    with Results(tmp_path / "new", SETTINGS, resume=True) as results:
        assert results.recorded == {}


@pytest.mark.parametrize("change", [{"model": "sha256:2"}, {"threshold": 0.4}, {"size": None}, {"tile": [64, 64]}])
def test_results_made_with_other_settings_are_not_mixed(tmp_path: Path, change: dict[str, object]) -> None:
    write(tmp_path, *LINES, finished=True)
    (name,) = change
    with pytest.raises(UserError, match=f"were made with {name}"):
        Results(tmp_path, SETTINGS | change, resume=True)
    assert content(tmp_path) == LINES


def test_unfinished_results_are_not_replaced_and_finished_ones_are(tmp_path: Path) -> None:
    write(tmp_path, *LINES)
    with pytest.raises(UserError, match="--resume"):
        write(tmp_path, *LINES)
    with Results(tmp_path, SETTINGS, resume=True) as results:
        results.finish()  # nothing was left to do
    write(tmp_path, LINES[0], finished=True)
    assert content(tmp_path) == LINES[:1]


def test_finished_results_stay_until_there_are_new_ones(tmp_path: Path) -> None:
    write(tmp_path, *LINES, finished=True)
    before = (tmp_path / "predict.json").read_text()
    with Results(tmp_path, SETTINGS | {"threshold": 0.5}, resume=False) as results:
        results.finish()
    assert content(tmp_path) == LINES
    assert (tmp_path / "predict.json").read_text() == before


def test_what_has_no_end_is_finished_whenever_it_stops(tmp_path: Path) -> None:
    for line in LINES[:2]:
        with Results(tmp_path, SETTINGS, resume=False, endless=True) as results:
            results.append(line)
    assert content(tmp_path) == LINES[1:2]


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"image": "a.png"}', "7"])
def test_lines_that_are_not_ours_are_named(tmp_path: Path, line: str) -> None:
    write(tmp_path, LINES[0], line)
    with pytest.raises(UserError, match=r"detections\.jsonl: line 2 is not what"):
        Results(tmp_path, SETTINGS, resume=True)
    for text, says in (("{", "cannot be read"), ("[]", "is not what")):
        (tmp_path / "predict.json").write_text(text)
        with pytest.raises(UserError, match=rf"predict\.json: {says}"):
            Results(tmp_path, SETTINGS, resume=True)


def test_a_folder_is_held_by_one_run_and_gone_where_nothing_was_written(tmp_path: Path) -> None:
    with alone_in(tmp_path / "deep" / "out"):
        with pytest.raises(UserError, match="another run is writing to it"), alone_in(tmp_path / "deep" / "out"):
            pytest.fail("the body must not run")
        assert (tmp_path / "deep" / "out").is_dir()
    assert not (tmp_path / "deep" / "out").exists()
    with alone_in(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: cannot be written to"), alone_in(tmp_path / "file"):
        pytest.fail("the body must not run")


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write(tmp_path / "file", LINES[0])


def test_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    results = Results(tmp_path, SETTINGS, resume=False)
    results.append(LINES[0])
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        with pytest.raises(UserError, match="cannot be written"), results:
            results.append("x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    again = Results(tmp_path, SETTINGS, resume=True)
    assert again.recorded == {"a.png": 1}
