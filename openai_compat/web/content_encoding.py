"""Decompression of request bodies (`Content-Encoding`), with a limit on the decompressed size."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from openai_compat.core.errors import InvalidRequestError, RequestTooLargeError, UnsupportedMediaTypeError
from openai_compat.core.turns import TimeSlices

ZSTD_MODULES: Final = ("compression.zstd", "backports.zstd")
"""Modules with the interface of Python 3.14's `compression.zstd`. The second one is for earlier versions of Python."""
SLICE_BYTES: Final = 4096
"""Compressed bytes that become at most 4 MB, as gzip compresses 1,032 to 1 (source: zlib's technical details)."""
MAX_MEMBERS: Final = 10_000
"""Compressors that write a member for each block, such as bgzip, need 512 for a body of 32 MiB."""
_GZIP: Final = 16 + zlib.MAX_WBITS
_RAW_DEFLATE: Final = -zlib.MAX_WBITS

Decompressor = Callable[[], Any]
"""Returns an object with `decompress(data, limit)`, `eof` and `unused_data`, as those of `zlib` and `zstd` have."""


def decode_body(body: bytes, encoding: str, limit: int) -> bytes:
    """Return `body` without its content encoding. An empty encoding and `identity` leave it unchanged.

    Raises:
        UnsupportedMediaTypeError: the encoding is unknown. The message names the supported ones.
        RequestTooLargeError: the result is longer than `limit` bytes.
        InvalidRequestError: the body is not compressed with this encoding, or it is truncated.
    """
    name = encoding.strip().lower().removeprefix("x-")
    if name in {"", "identity"}:
        return body
    supported = _decompressors()
    if name not in supported:
        raise UnsupportedMediaTypeError(
            f"Unsupported content encoding: '{encoding[:40]}'. This server decodes {', '.join(supported)}."
        )
    create = supported[name]
    if name == "deflate" and not _is_zlib(body):
        create = _raw_deflate
    try:
        return _decompress(body, create, limit)
    except (zlib.error, EOFError, ValueError, _zstd_error()) as error:
        raise InvalidRequestError(f"The request body could not be decompressed as {name}.") from error


def _decompress(body: bytes, create: Decompressor, limit: int) -> bytes:
    """Return the content of all members, as a gzip or zstd body may have several.

    The body is decompressed in slices, and other greenlets get a turn between them.

    Raises:
        EOFError: the last member is incomplete.
        ValueError: there are too many members.
    """
    parts: list[bytes] = []
    slices = TimeSlices()
    decompressor, members = create(), 1
    for start in range(0, len(body), SLICE_BYTES):
        data = body[start : start + SLICE_BYTES]
        while data:
            if decompressor.eof:
                decompressor, members = create(), members + 1
            part = decompressor.decompress(data, limit + 1)
            limit -= len(part)
            if limit < 0:
                raise RequestTooLargeError("The decompressed request body is larger than this server allows.")
            parts.append(part)
            data = decompressor.unused_data
            slices.check()
        if members > MAX_MEMBERS:
            raise ValueError("the compressed body has too many members")
    if not decompressor.eof:
        raise EOFError("the compressed body is truncated")
    return b"".join(parts)


def _decompressors() -> dict[str, Decompressor]:
    known: dict[str, Decompressor] = {"gzip": lambda: zlib.decompressobj(_GZIP), "deflate": zlib.decompressobj}
    zstd = _zstd()
    if zstd is not None:
        known["zstd"] = zstd.ZstdDecompressor
    return known


def _raw_deflate() -> Any:
    return zlib.decompressobj(_RAW_DEFLATE)


def _is_zlib(body: bytes) -> bool:
    """Return True if the body has a zlib header (RFC 1950). Some clients send deflate without it."""
    return len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0


def _zstd() -> Any | None:
    """Return the first module for zstd that is installed, or None."""
    for name in ZSTD_MODULES:
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


def _zstd_error() -> type[Exception]:
    zstd = _zstd()
    return zlib.error if zstd is None else zstd.ZstdError
