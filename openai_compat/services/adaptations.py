"""Adaptations of a translated request, as the header `x-openai-compat-adapted` lists them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

MAX_SHOWN: Final = 30
"""Adaptations that are listed, because proxies refuse responses with large headers."""
_SHOWN_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def to_shown(adaptations: Mapping[str, str]) -> dict[str, str]:
    """Return the adaptations for a header, as clients choose the names of unknown parameters and items."""
    names = [name if _SHOWN_NAME.fullmatch(name) else "?" for name in adaptations]
    return dict(zip(names[:MAX_SHOWN], adaptations.values(), strict=False))
