"""Raw requests in the log, for debugging, with secrets masked (`LOG_REQUEST_BODIES`)."""

from __future__ import annotations

import logging
import re
from typing import Final

from flask import Request

log = logging.getLogger(__name__)

MOST_CHARACTERS: Final = 20_000
_SECRET_FIELD = re.compile(r'("[^"]*(?:api[_-]?key|authorization|password|secret|token)"\s*:\s*")[^"]+', re.IGNORECASE)
_SECRET_WORD = re.compile(r"\b(?:sk-|hf_|dapi|Bearer\s+)[\w.-]{8,}", re.IGNORECASE)


def log_request_body(request: Request) -> None:
    """Logs a body that the server reads whole anyway; what is passed through as a stream is only named."""
    content_type = request.mimetype
    if content_type not in {"application/json", "text/plain", ""}:
        log.info("request body of type %s, %s bytes", content_type, request.content_length)
        return
    text = request.get_data(cache=True).decode("utf-8", "replace")
    log.info("request body: %s", masked(text[:MOST_CHARACTERS]))


def masked(text: str) -> str:
    """`text` with whatever looks like a key or token replaced by asterisks."""
    return _SECRET_WORD.sub("***", _SECRET_FIELD.sub(r"\1***", text))
