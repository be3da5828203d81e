"""Parsers and checks of configured values."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import urlsplit

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._-]+(:[0-9]{1,5})?", re.IGNORECASE)


_HEADER_NAME: Final = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)


def to_address(host: str, port: int) -> str:
    """Host and port as URLs and gunicorn have them: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_text(text: str) -> str:
    return text


def parse_key(text: str) -> str:
    """A key, as it goes into a header."""
    if not is_header_value(text):
        raise ValueError("must be made of printable ASCII characters")
    return text


def is_header_name(text: str) -> bool:
    """Whether it is a token (RFC 9110, 5.1)."""
    return _HEADER_NAME.fullmatch(text) is not None


def is_header_value(text: str) -> bool:
    """Whether every peer reads it as it is: beyond ASCII no encoding is agreed on for headers (RFC 9110, 5.5)."""
    return text.isascii() and text.isprintable()


def parse_list(text: str) -> tuple[str, ...]:
    """`a, b` -> `("a", "b")`. A list without an entry is refused: no list means that all may pass."""
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    if not parts:
        raise ValueError("must have an entry, or not be set")
    return parts


def check_origins(origins: tuple[str, ...]) -> None:
    """An origin as browsers send it, or `*` for all.

    Nothing in it may look like a pattern to flask-cors, which takes it for a regular expression then, and compares no
    more than the beginning. IPv6 addresses do: they stand in brackets.
    """
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(
                "must be *, or origins such as https://app.example.com or http://localhost:3000, "
                "each without a path, a slash at its end, a pattern or brackets"
            )


def check_host(host: str) -> None:
    """A name or an address to listen on, as sockets take it."""
    try:
        if ":" in host:
            IPv6Address(host)
    except ValueError:
        raise ValueError("must be a name or an address, without port or brackets") from None
    if not is_header_value(host) or any(character in host for character in " /[]"):
        raise ValueError("must be a name or an address, without port or brackets")


def parse_boolean(text: str) -> bool:
    word = text.lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off"}:
        return False
    raise ValueError("must be true or false")


def parse_url(text: str) -> str:
    """A URL that can be called. What is wrong is said without repeating any of it: it may hold credentials."""
    if not text.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    if not is_header_value(text) or " " in text:
        raise ValueError("must be a URL without spaces, and percent-encoded beyond ASCII")
    try:
        host = urlsplit(text).hostname or ""
        host.encode("idna")  # what a look-up does; it finds empty and overlong parts
    except ValueError:
        raise ValueError("must be a URL, and its host cannot be read") from None
    if not host:
        raise ValueError("must name a host after http:// or https://")
    if not _has_usable_port(text):
        raise ValueError("must be a URL whose port is a number from 1 to 65535")
    return text.rstrip("/")


def parse_state_url(text: str) -> str:
    """Where state is shared: in this process, in a file of this machine, or in a Redis."""
    is_known = text == "memory:" or text.startswith(("redis://", "rediss://", "unix://"))
    if not (is_known or (text.startswith("sqlite:") and text != "sqlite:")):
        raise ValueError("must be memory:, sqlite:PATH or redis://HOST:PORT/DATABASE")
    return text


def parse_workspace(text: str) -> str:
    """A workspace's address, with or without its scheme: Databricks Apps give it without."""
    return parse_url(text if "://" in text else f"https://{text}")


def _has_usable_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def without_secrets(url: str) -> str:
    """A URL that `parse_url` took, as it may be shown: without credentials and without its query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class WholeNumber:
    """Parses a whole number between two bounds, both included."""

    def __init__(self, least: int, most: int = 2**40) -> None:
        self.least, self.most = least, most

    def __call__(self, text: str) -> int:
        if not text.isascii() or not text.isdigit() or not self.least <= int(text) <= self.most:
            raise ValueError(f"must be a whole number from {self.least} to {self.most}")
        return int(text)


def parse_seconds(text: str | float) -> float:
    """Seconds, 0 for none."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise ValueError("must be a number of seconds, 0 or more")
    return seconds


class OneOf:
    """Parses one of a few words, in whichever case."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def __call__(self, text: str) -> str:
        if text.lower() not in self.words:
            raise ValueError(f"must be one of {', '.join(self.words)}")
        return text.lower()
