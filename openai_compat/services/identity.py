"""Ids and times of answers, made in one place for every backend."""

from __future__ import annotations

import time
from uuid import uuid4


def new_id(prefix: str) -> str:
    """`chatcmpl-` and the like, followed by 32 random characters."""
    return prefix + uuid4().hex


def now() -> int:
    """Unix time in whole seconds, as `created` wants it."""
    return int(time.time())
