"""What tests share is loaded where tests run: to import it takes many seconds."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Load `common`, unless this process only hands tests out to others."""
    hands_out = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if not hands_out:
        config.pluginmanager.import_plugin("common")
