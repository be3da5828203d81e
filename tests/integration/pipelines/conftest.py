"""These tests import Haystack: without the extra they are skipped, in CI they fail."""

from __future__ import annotations

import pytest

from openai_compat.config import environment
from tests.support.tools import require_extra

environment.quiet_haystack()


@pytest.fixture(scope="session", autouse=True)
def _extra() -> None:
    require_extra("haystack")
