"""Names of tools as chat models take them."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

MAX_NAME_CHARS: Final = 64
_INVALID_IN_NAME: Final = re.compile(r"[^\w-]", re.ASCII)


def to_chat_name(namespace: str | None, name: str) -> str:
    """Return a tool's name for chat models, whose names have no dots and at most 64 characters."""
    full = name if namespace is None else f"{namespace}__{name}"
    valid = _INVALID_IN_NAME.sub("_", full)
    if valid == full and len(full) <= MAX_NAME_CHARS:
        return full
    return f"{valid[: MAX_NAME_CHARS - 9]}_{sha256(full.encode()).hexdigest()[:8]}"
