"""Paths that the passthrough serves, and other spellings of this server's own endpoints, which it does not."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

ALL_PATHS: Final = ("all",)
"""Value of the setting `PASSTHROUGH` that serves every path."""
ROOT_AREAS: Final = (
    "assistants", "audio", "batches", "chat", "containers", "conversations", "evals", "files", "fine_tuning", "images",
    "moderations", "realtime", "responses", "threads", "uploads", "vector_stores", "videos",
)  # fmt: skip
"""Parts of OpenAI's API that are also served without a prefix. Any other path there may be a mistake."""
_INFERENCE_NAMES: Final = frozenset({"completions", "embeddings", "responses"})
_API_ROOTS: Final = frozenset({"v1", "api", "openai", "anthropic"})
_READ_METHODS: Final = frozenset({"GET", "HEAD"})
_NAME: Final = re.compile(r"[\w-]*", re.ASCII)
_DEPLOYMENT: Final = re.compile(r"deployments/(.+?)/((?:audio|images)/.+)", re.DOTALL)


def decode_path(path: str) -> str:
    """Return the path without percent-encoding, however many times it was encoded."""
    while (decoded := unquote(path)) != path:
        path = decoded
    return path


def leaves_root(path: str) -> bool:
    """Return True if the path has a segment `.` or `..`, however it is encoded."""
    return any(segment in {".", ".."} for segment in decode_path(path).replace("\\", "/").split("/"))


def is_own_endpoint(method: str, path: str) -> bool:
    """Return True if a path below an API's root is an inference or models endpoint in another spelling.

    The passthrough must not forward it, because an upstream that reads paths leniently would answer it without this
    server's rules. Case, encoding, repeated and trailing slashes, repeated roots, spaces, and anything after a name
    (`completions;x`) make no difference.
    """
    parts = decode_path(path).replace("\\", "/").lower().split("/")
    names = [name for part in parts if (name := _NAME.match(part.strip())[0])]  # type: ignore[index]  # always matches
    while names and names[0] in _API_ROOTS:
        del names[0]
    if not names:
        return False
    if method in _READ_METHODS:
        return names[0] == "models"
    return method != "DELETE" and (names[-1] in _INFERENCE_NAMES or names[0] == "messages")


def is_served(path: str, prefixes: tuple[str, ...]) -> bool:
    """Return True if the setting `PASSTHROUGH` has the path, or a prefix of it that ends with a complete segment."""
    if prefixes == ALL_PATHS:
        return True
    decoded = decode_path(path)
    return any(decoded == prefix or decoded.startswith(f"{prefix}/") for prefix in prefixes)


def split_deployment(path: str) -> tuple[str, str] | None:
    """Return the model and the rest of a path under Azure's root `deployments/{model}/`, or None if it is unknown."""
    found = _DEPLOYMENT.fullmatch(path)
    return (found[1], found[2]) if found else None
