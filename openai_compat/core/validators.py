"""Parsers and checks for values of the configuration."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import urlsplit

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?", re.IGNORECASE)
_HOST_NAME: Final = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]", re.IGNORECASE)
_ENDPOINTS: Final = ("/chat/completions", "/completions", "/embeddings")
_PATH: Final = re.compile(r"[\w-]+(/[\w-]+)*", re.ASCII)
_HEADER_NAME: Final = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)


def to_address(host: str, port: int) -> str:
    """Return host and port as in a URL, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_text(text: str) -> str:
    """Return `text` unchanged."""
    return text


def parse_key(text: str) -> str:
    """Return an API key.

    Raises:
        ValueError: The key is not a valid header value.
    """
    if not is_header_value(text):
        raise ValueError("must be made of printable ASCII characters")
    return text


def is_header_name(text: str) -> bool:
    """Return True if `text` is a valid header name (RFC 9110, 5.1)."""
    return _HEADER_NAME.fullmatch(text) is not None


def is_header_value(text: str) -> bool:
    """Return True if `text` is printable ASCII, as headers have no agreed encoding beyond it (RFC 9110, 5.5)."""
    return text.isascii() and text.isprintable()


def parse_list(text: str) -> tuple[str, ...]:
    """Split `a, b` into `("a", "b")`.

    Raises:
        ValueError: The list is empty, which must not be mistaken for an unset one that allows everything.
    """
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    if not parts:
        raise ValueError("must have an entry, or not be set")
    return parts


def parse_pairs(text: str) -> dict[str, str]:
    """Return the pairs of a comma-separated list such as `a=b, c=d`.

    Raises:
        ValueError: An entry has no `=` with a text on both sides, or stands for the second time.
    """
    parts = [[part.strip() for part in entry.split("=", 1)] for entry in parse_list(text)]
    if not all(len(part) == 2 and all(part) for part in parts):
        raise ValueError("must be a list of name=name, such as claude-*=my-model")
    if len({name for name, _ in parts}) < len(parts):
        raise ValueError("has a name twice")
    return dict(parts)


def parse_path_prefixes(text: str) -> tuple[str, ...]:
    """Return the prefixes of paths in a list (`files, audio`). `all` is returned as `("all",)`, and `none` as `()`.

    Raises:
        ValueError: The list is empty, or has an entry that is no path below `/v1`.
    """
    word = text.lower()
    if word in {"all", "none"}:
        return (word,) if word == "all" else ()
    prefixes = tuple(part.strip("/").removeprefix("v1/") for part in parse_list(text))
    if not all(_PATH.fullmatch(prefix) for prefix in prefixes) or {"all", "none"} & {*prefixes}:
        raise ValueError("must be all, none, or a list of paths below /v1, such as files, audio")
    return prefixes


def check_origins(origins: tuple[str, ...]) -> None:
    """Check that each origin is `*` or an origin as browsers send it.

    Characters of regular expressions are rejected. flask-cors would treat the origin as a pattern and match only its
    beginning. The brackets of an IPv6 address are allowed, and `create_app` escapes them.

    Raises:
        ValueError: An origin is invalid.
    """
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(
                "must be *, or origins such as https://app.example.com or http://localhost:3000, "
                "each without a path, a slash at its end or a pattern"
            )


def check_host_names(names: tuple[str, ...]) -> None:
    """Check that each name is `*` or a host as in a URL, without a port.

    Raises:
        ValueError: A name is invalid.
    """
    for name in names:
        if name != "*" and not _HOST_NAME.fullmatch(name):
            raise ValueError("must be *, or names such as api.example.com or 10.0.0.7, each without a scheme or a port")


def check_host(host: str) -> None:
    """Check that `host` is a name or an address to listen on.

    Raises:
        ValueError: It is neither.
    """
    try:
        if ":" in host:
            IPv6Address(host)
    except ValueError:
        raise ValueError("must be a name or an address, without port or brackets") from None
    if not is_header_value(host) or any(character in host for character in " /[]"):
        raise ValueError("must be a name or an address, without port or brackets")


def parse_boolean(text: str) -> bool:
    """Parse true, yes, on or 1, or their opposites, in any case."""
    word = text.lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off"}:
        return False
    raise ValueError("must be true or false")


def parse_url(text: str) -> str:
    """Return a valid HTTP URL without a slash at its end.

    Raises:
        ValueError: The URL is invalid. The message does not repeat it, as it may contain credentials.
    """
    if not text.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    if not is_header_value(text) or " " in text:
        raise ValueError("must be a URL without spaces, and percent-encoded beyond ASCII")
    try:
        host = urlsplit(text).hostname or ""
        host.encode("idna")  # as a DNS lookup does, which finds empty and too long labels
    except ValueError:
        raise ValueError("must be a URL, and its host cannot be read") from None
    if not host:
        raise ValueError("must name a host after http:// or https://")
    if not _has_usable_port(text):
        raise ValueError("must be a URL whose port is a number from 1 to 65535")
    return text.rstrip("/")


def parse_api_root(text: str) -> str:
    """Return the URL of the root of an OpenAI-compatible API.

    Raises:
        ValueError: The URL is invalid, or it is that of an endpoint below the root.
    """
    url = parse_url(text)
    path = urlsplit(url).path.rstrip("/")
    endpoint = next((end for end in _ENDPOINTS if path.endswith(end)), None)
    if endpoint is None:
        return url
    root = without_secrets(url).rstrip("/").removesuffix(endpoint)
    raise ValueError(f"must be the root of the API, which the endpoints are added to: write {root}, without {endpoint}")


def parse_state_url(text: str) -> str:
    """Return a valid URL of a state store, which is this process, a file, or a Redis."""
    is_known = text == "memory:" or text.startswith(("redis://", "rediss://", "unix://"))
    if not (is_known or (text.startswith("sqlite:") and text != "sqlite:")):
        raise ValueError("must be memory:, sqlite:PATH or redis://HOST:PORT/DATABASE")
    return text


def parse_database_url(text: str) -> str:
    """Return a valid URL of a database, which is an SQLite file or PostgreSQL."""
    is_file = text.startswith("sqlite:") and text.removeprefix("sqlite:").strip("/")
    if not (is_file or text.startswith(("postgresql://", "postgres://"))):
        raise ValueError("must be sqlite:PATH or postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
    return text


def parse_workspace(text: str) -> str:
    """Return the URL of a Databricks workspace.

    The scheme is optional, as Databricks Apps set the variable without it.
    """
    return parse_url(text if "://" in text else f"https://{text}")


def _has_usable_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def without_secrets(url: str) -> str:
    """Return `url`, which `parse_url` accepted, without its credentials and its query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class WholeNumber:
    """Parser of a whole number between two bounds, both included."""

    def __init__(self, minimum: int, maximum: int = 2**40) -> None:
        self.minimum, self.maximum = minimum, maximum

    def __call__(self, text: str) -> int:
        if not text.isascii() or not text.isdigit() or not self.minimum <= int(text) <= self.maximum:
            raise ValueError(f"must be a whole number from {self.minimum} to {self.maximum}")
        return int(text)


def parse_seconds(text: str | float) -> float:
    """Parse a number of seconds, 0 or more."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise ValueError("must be a number of seconds, 0 or more")
    return seconds


def parse_share(text: str) -> float:
    """Parse a number from 0 to 1."""
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError("must be a number from 0 to 1")
    return share


class OneOf:
    """Parser of one of several words, in any case."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def __call__(self, text: str) -> str:
        if text.lower() not in self.words:
            raise ValueError(f"must be one of {', '.join(self.words)}")
        return text.lower()
