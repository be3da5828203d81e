"""Secrets of keys. A key has 256 random bits, so that a plain digest of it cannot be reversed."""

from __future__ import annotations

from hashlib import sha256
from secrets import token_urlsafe
from typing import Final

PREFIX: Final = "sk-oc-"
"""Beginning of every key, by which scanners for leaked secrets can know it."""
SECRET_BYTES: Final = 32
SHOWN: Final = 6
"""Characters of a key after its prefix that are shown, so that people can tell keys apart."""


def new_key() -> str:
    """Return a new key."""
    return PREFIX + token_urlsafe(SECRET_BYTES)


def digest_of(key: str) -> str:
    """Return what is stored of a key."""
    return sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def hint_of(key: str) -> str:
    """Return the part of a key that is shown."""
    return f"{key[: len(PREFIX) + SHOWN]}...{key[-4:]}"


def is_token(credential: str) -> bool:
    """Return True if a credential has the form of a JSON web token. Keys of this server have no dots."""
    return credential.count(".") == 2 and credential.startswith("ey")
