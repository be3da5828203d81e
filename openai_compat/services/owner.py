"""Owner of stored objects, derived from the caller's key."""

from __future__ import annotations

from hashlib import sha256


def owner_of(authorization: str | None) -> str:
    """Return a digest of the key in an `Authorization` value, or an empty text without a key."""
    key = (authorization or "").partition(" ")[2].strip()
    return sha256(f"openai-compat owner {key}".encode("utf-8", "surrogateescape")).hexdigest() if key else ""
