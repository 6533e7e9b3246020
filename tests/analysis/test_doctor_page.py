"""The doctor's page is whole, asks for nothing and holds the counts; the command tells by its exit code."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import final

import pytest

from flawed_data import clean, everything_wrong, flawed, write
from gfocal.analysis.doctor import Report, examine, open_splits, write_page
from gfocal.cli.__main__ import main
from gfocal.errors import UserError


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


def test_a_page_of_nothing_but_background(tmp_path: Path) -> None:
    folder = write(tmp_path, {split: content | {"annotations": []} for split, content in clean().items()})
    page = page_of(tmp_path, examine(folder, workers=0), folder)
    tags_of(page)
    assert "6 pictures without boxes</h3>" in page
    assert "nothing to count" in page


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


def test_names_that_are_no_utf8_can_be_printed(tmp_path: Path) -> None:
    report = examine(flawed(tmp_path, "picture"))
    (finding,) = report.findings
    example = replace(finding.examples[0], file="bad\udcff.png")
    told = replace(report, data="data\udcff", findings=(replace(finding, examples=(example,)),)).text()
    assert "data\\udcff" in told
    assert "bad\\udcff.png" in told
    told.encode()


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
    for arguments in ((tmp_path / "none",), (write(tmp_path, clean()), "--workers", "-1"), ()):
        status, out, err = ran(capsys, *arguments)
        assert (status, out) == (2, "")
        assert len(err.splitlines()) == 1
        assert err.startswith("gfocal: ")


def test_help_tells_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ran(capsys, "--help")
    assert status == 0
    assert "Exit code" in out
    assert "Next:" in out
