"""Logging of JSON request bodies for debugging, with secrets masked (setting `LOG_REQUEST_BODIES`)."""

from __future__ import annotations

import logging

from openai_compat.core.secret_masking import redact

log = logging.getLogger(__name__)


def log_request_body(body: bytes) -> None:
    """Log a request body. Bodies that are passed through unread are not logged."""
    log.info("request body: %s", redact(body))
