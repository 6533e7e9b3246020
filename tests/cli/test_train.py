"""Where `gfocal train` writes."""

from __future__ import annotations

import pytest

from gfocal.cli.train import shared_folder
from gfocal.errors import UserError


def test_runs_that_begin_together_take_folders_of_their_own(tmp_path):
    folder = tmp_path / "runs" / "mini"
    with shared_folder(folder, devices=1) as first, shared_folder(folder, devices=1) as second:
        assert (first, second) == (folder, folder.with_name("mini-2"))
        (second / "recipe.yaml").touch()
    assert [path.name for path in folder.parent.iterdir()] == ["mini-2"]


def test_where_no_folder_can_be_made_it_is_said(tmp_path):
    (tmp_path / "runs").symlink_to(tmp_path / "nowhere")
    with (
        pytest.raises(UserError, match="mini: cannot be written to"),
        shared_folder(tmp_path / "runs" / "mini", devices=1),
    ):
        pytest.fail("the body must not run")
