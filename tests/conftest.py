"""What holds for every test. Fixtures that one folder needs live in that folder's conftest.py."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from openai_compat.config import models_file, settings_table
from openai_compat.core.logging import LOGGER


def pytest_configure() -> None:
    """A developer's OPENAI_API_KEY, or a PORT in the shell, changes no test's result (and is sent nowhere)."""
    for setting in settings_table.SETTINGS:
        for name in setting.names:
            os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def _without_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models that are listed where the extra `local` is installed are so in no test that does not ask for them."""
    monkeypatch.setattr(models_file, "missing_extra", lambda: "torch")


@pytest.fixture(autouse=True)
def _as_logging_was() -> Iterator[None]:
    """An application made in a test configures the log of the process; a program run in one may switch it off."""
    logger, disabled = logging.getLogger(LOGGER), logging.root.manager.disable
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before
    logging.disable(disabled)
