"""Raw requests in the log, for debugging, with secrets masked (`LOG_REQUEST_BODIES`)."""

from __future__ import annotations

import logging
import re
from typing import Final

log = logging.getLogger(__name__)

MOST_CHARACTERS: Final = 20_000
_SECRET_FIELD = re.compile(r'("[^"]*(?:api[_-]?key|authorization|password|secret|token)"\s*:\s*")[^"]+', re.IGNORECASE)
_SECRET_WORD = re.compile(r"\b(?:sk-|hf_|dapi|Bearer\s+)[\w.-]{8,}", re.IGNORECASE)


def log_request_body(body: bytes) -> None:
    """Logs the beginning of a body that the server has read. What is passed through is not read, and not logged."""
    log.info("request body: %s", masked(body[:MOST_CHARACTERS].decode("utf-8", "replace")))


def masked(text: str) -> str:
    """`text` with whatever looks like a key or token replaced by asterisks."""
    return _SECRET_WORD.sub("***", _SECRET_FIELD.sub(r"\1***", text))
