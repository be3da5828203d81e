"""Tests that import Haystack. Without the extra every module of this folder is skipped."""

from openai_compat.config import environment
from tests.support.tools import require_extra

require_extra("haystack")
environment.quiet_haystack()
