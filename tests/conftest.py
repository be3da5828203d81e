"""What holds for every test. Fixtures that one folder needs live in that folder's conftest.py."""

from __future__ import annotations

import os

import config


def pytest_configure() -> None:
    """A developer's OPENAI_API_KEY, or a PORT in the shell, changes no test's result (and is sent nowhere)."""
    for setting in config.SETTINGS:
        for name in setting.names:
            os.environ.pop(name, None)
