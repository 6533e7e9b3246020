from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gfocal.errors import UserError
from gfocal.files import forget_scratch, numbered, whole_or_absent


def write_and_raise(path: Path, error: BaseException) -> None:
    with whole_or_absent(path) as scratch:
        scratch.write_bytes(b"half")
        raise error


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_written_takes_the_name_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.bin"
    with whole_or_absent(path) as scratch:
        assert scratch.parent == path.parent
        assert not path.exists()
        scratch.write_bytes(b"new")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["file.bin"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_who_may_read_a_file_is_as_of_any_new_one(tmp_path: Path, mask: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refused)  # as on file systems without permissions
    before = os.umask(mask)
    try:
        with whole_or_absent(tmp_path / "file.bin") as scratch:
            scratch.write_bytes(b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "file.bin").stat().st_mode & 0o777 == 0o666 & ~mask


def test_an_old_file_is_replaced_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with whole_or_absent(path) as scratch:
        scratch.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_failure_in_the_middle_leaves_what_was_there(tmp_path: Path, error: BaseException, old: bytes | None) -> None:
    path = tmp_path / "file.bin"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(type(error)):
        write_and_raise(path, error)
    assert names(tmp_path) == ([] if old is None else ["file.bin"])
    assert old is None or path.read_bytes() == old


def test_a_full_disk_leaves_nothing_and_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"file\.bin: cannot be written \(No space left on device\)"):
        write_and_raise(tmp_path / "file.bin", OSError(28, "No space left on device"))
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(UserError, match=r"model\.bin: cannot be written"),
        whole_or_absent(tmp_path / "file" / "model.bin"),
    ):
        pytest.fail("the body must not run")


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="taken: cannot be written"), whole_or_absent(tmp_path / "taken") as scratch:
        scratch.write_bytes(b"new")
    assert names(tmp_path) == ["taken"]


def test_a_scratch_file_that_was_moved_away_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    with pytest.raises(UserError, match="cannot be written"), whole_or_absent(path) as scratch:
        scratch.unlink()
    assert names(tmp_path) == []


def test_a_name_without_a_folder_is_written_to_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with whole_or_absent(Path("file.bin")) as scratch:
        scratch.write_bytes(b"new")
    assert (tmp_path / "file.bin").read_bytes() == b"new"


def test_what_a_killed_writer_left_is_found(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from gfocal.files import whole_or_absent\n"
        "with whole_or_absent(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    for name in ("state.pt", "state.txt"):
        done = subprocess.run([sys.executable, "-c", script, tmp_path / name], check=False)
        assert done.returncode == -9
    assert len(names(tmp_path)) == 2
    forget_scratch(tmp_path / "state.pt")
    assert [name.rpartition(".")[2] for name in names(tmp_path)] == ["txt"]


def test_no_name_is_given_out_twice() -> None:
    for stems in (("a", "a", "a-2"), ("a-2", "a", "a", "a"), ("a", "a-2", "a-3", "a", "a-2", "a")):
        taken: dict[str, int] = {}
        given = [numbered(stem, taken) for stem in stems]
        assert len(set(given)) == len(given)
