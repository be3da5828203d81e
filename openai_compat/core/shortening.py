"""Shortening of texts from clients and upstreams, before they are logged or repeated in an error."""

from __future__ import annotations


def shorten(text: str, limit: int) -> str:
    """Return `text`, or its beginning and its end if it has more than `limit` characters."""
    if len(text) <= limit:
        return text
    end = limit // 4
    return f"{text[: limit - end]} ... ({len(text) - limit} characters more) ... {text[-end:]}"
