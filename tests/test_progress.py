"""Long work says how far it is, on a terminal and elsewhere, and never on standard output."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gfocal.progress import ProgressBar


def shown(capsys: pytest.CaptureFixture[str], total: int | None, done: range) -> list[str]:
    with ProgressBar(total, "working") as bar:
        for number in done:
            bar.update(number)
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_a_known_end_gives_a_few_lines_with_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, 1000, range(1, 1001))
    assert 10 <= len(lines) <= 12
    assert lines[-1].startswith("working 1000/1000  ")
    assert all("left" in line for line in lines)


def test_an_unknown_end_gives_lines_further_and_further_apart(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, None, range(1, 1001))
    assert [line.split()[:2] for line in lines] == [["working", str(2**power)] for power in range(10)]


def test_what_goes_to_a_file_is_not_shown_on_the_terminal() -> None:
    pty = pytest.importorskip("pty", reason="there are no such terminals on Windows")
    code = "from gfocal.progress import ProgressBar\nwith ProgressBar(2, 'working') as bar:\n    print('data')"
    terminal, end = pty.openpty()
    try:
        environment = os.environ | {"TERM": "xterm"}
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=end, env=environment, check=True, timeout=60
        )
        assert done.stdout == b"data\n"
        assert b"working" in os.read(terminal, 100_000)
    finally:
        os.close(end)
        os.close(terminal)
