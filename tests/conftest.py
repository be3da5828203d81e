"""Hooks and fixtures of all tests. Fixtures of one folder live in the folder's conftest.py."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from openai_compat.config import models_file, settings_table
from openai_compat.core.logging import LOGGER
from tests.support.tools import require_extra


def pytest_configure() -> None:
    """Remove the server's settings from the environment, such as a developer's OPENAI_API_KEY or PORT."""
    for setting in settings_table.SETTINGS:
        for name in setting.names:
            os.environ.pop(name, None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `extra("name")` if that extra is not installed."""
    for mark in item.iter_markers("extra"):
        for name in mark.args:
            require_extra(name)


@pytest.fixture(autouse=True)
def _without_preset_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """List no preset models, which are otherwise listed if the extra `local` is installed."""
    monkeypatch.setattr(models_file, "missing_extra", lambda: "torch")


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """Restore the log configuration, because creating an application changes it for the process."""
    logger, disabled = logging.getLogger(LOGGER), logging.root.manager.disable
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before
    logging.disable(disabled)
