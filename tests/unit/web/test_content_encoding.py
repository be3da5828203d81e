"""Decompression of request bodies."""

from __future__ import annotations

import gzip
import zlib

import pytest

from openai_compat.core.errors import InvalidRequestError, RequestTooLargeError, UnsupportedMediaTypeError
from openai_compat.web import content_encoding
from openai_compat.web.content_encoding import decode_body

BODY = b'{"model": "m"}' * 100


def raw_deflate(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


COMPRESSED = {
    "gzip": gzip.compress(BODY),
    "GZIP ": gzip.compress(BODY),
    "x-gzip": gzip.compress(BODY[:50]) + gzip.compress(BODY[50:]),
    "deflate": zlib.compress(BODY),
    "Deflate": raw_deflate(BODY),
    "identity": BODY,
    "": BODY,
}


@pytest.mark.parametrize(("encoding", "body"), COMPRESSED.items(), ids=COMPRESSED)
def test_a_compressed_body_is_decoded(encoding: str, body: bytes) -> None:
    assert decode_body(body, encoding, len(BODY)) == BODY


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "Deflate"])
def test_the_limit_is_that_of_the_decoded_body(encoding: str) -> None:
    with pytest.raises(RequestTooLargeError):
        decode_body(COMPRESSED[encoding], encoding, len(BODY) - 1)


def test_a_bomb_is_not_expanded() -> None:
    with pytest.raises(RequestTooLargeError):
        decode_body(gzip.compress(bytes(50_000_000)), "gzip", 1000)


@pytest.mark.parametrize(
    "body",
    [BODY, COMPRESSED["gzip"][:-9], COMPRESSED["gzip"] + b"x", b"\x1f"],
    ids=["plain", "cut", "followed", "one byte"],
)
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_that_is_not_compressed_as_it_should_be_is_refused(encoding: str, body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match=f"could not be decompressed as {encoding}"):
        decode_body(body, encoding, 10_000)


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "zstd"])
def test_an_unknown_encoding_is_named_with_the_supported_ones(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_encoding, "ZSTD_MODULES", ("no_such_module",))
    with pytest.raises(UnsupportedMediaTypeError) as caught:
        decode_body(BODY, encoding, 10_000)
    assert caught.value.message == f"Unsupported content encoding: '{encoding}'. This server decodes gzip, deflate."


def test_zstd_is_decoded_where_a_library_for_it_is_installed() -> None:
    zstd = content_encoding._zstd()
    if zstd is None:
        pytest.skip("needs Python 3.14 or the extra `zstd`")
    compressed = zstd.compress(BODY)
    assert decode_body(compressed, "zstd", len(BODY)) == BODY
    assert decode_body(compressed + compressed, "zstd", 2 * len(BODY)) == 2 * BODY
    with pytest.raises(RequestTooLargeError):
        decode_body(compressed, "zstd", len(BODY) - 1)
    for broken in (BODY, compressed[:-3], compressed + b"x"):
        with pytest.raises(InvalidRequestError):
            decode_body(broken, "zstd", 10_000)
    with pytest.raises(UnsupportedMediaTypeError, match="This server decodes gzip, deflate, zstd"):
        decode_body(BODY, "br", 10_000)
