"""What tests share is loaded where tests run: to import it takes many seconds."""

from __future__ import annotations

import sys

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Load `common`, unless this process only hands tests out to others."""
    hands_out = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if hands_out:
        return
    if "common" in sys.modules:  # a folder was named, whose own conftest.py has loaded it already
        config.pluginmanager.register(sys.modules["common"], "common")
    else:
        config.pluginmanager.import_plugin("common")
