"""OpenAI's vocabularies, which count tokens and turn token ids into text.

They come with the package `rs-bpe`, or are files in the cache directory of `tiktoken`. This module never opens a
connection.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

TIKTOKEN_SLICE_CHARS: Final = 100_000
"""Maximum number of characters that tiktoken gets at once. It panics on a million spaces, as a client may send."""
MAX_SPLIT_TOKENS: Final = 3
"""A character has at most four bytes, so that at most three tokens of it precede or follow a cut inside it."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """One of OpenAI's vocabularies, with the URL that tiktoken downloads it from.

    Its token ids, without those of special tokens, are the numbers below `size`.
    """

    name: str
    size: int
    url: str
    sha256: str

    @property
    def file_name(self) -> str:
        """Name of the file in tiktoken's cache directory."""
        return hashlib.sha1(self.url.encode(), usedforsecurity=False).hexdigest()


# Source: tiktoken's list of its public vocabularies.
CL100K_BASE = Vocabulary(
    name="cl100k_base",
    size=100_256,
    url="https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken",
    sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
)
O200K_BASE = Vocabulary(
    name="o200k_base",
    size=199_998,
    url="https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken",
    sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
)

_O200K_MODELS = ("gpt-4o", "gpt-4.1", "gpt-4.5")
_CL100K_MODELS = ("gpt-4", "gpt-3.5", "gpt-35", "text-embedding-")


def vocabulary_of(model: str) -> Vocabulary:
    """Return the vocabulary of an OpenAI model, or the current one (o200k_base) for every other name."""
    if model.startswith(_CL100K_MODELS) and not model.startswith(_O200K_MODELS):
        return CL100K_BASE
    return O200K_BASE


@dataclass(frozen=True, slots=True)
class Encoding:
    """A vocabulary in memory.

    `count` returns the number of tokens of a text, in which special tokens count as plain text. `decode` returns the
    text of token ids below the vocabulary's size.
    """

    count: Callable[[str], int]
    decode: Callable[[Sequence[int]], str]


def load_encoding(vocabulary: Vocabulary, cache_directory: Path | None) -> Encoding | None:
    """Return an installed vocabulary, or None. `cache_directory` is tiktoken's (its `TIKTOKEN_CACHE_DIR`)."""
    return _load_bundled(vocabulary) or _load_tiktoken(vocabulary, cache_directory)


def _load_bundled(vocabulary: Vocabulary) -> Encoding | None:
    """Return the vocabulary of `rs-bpe`, or None if it is not installed."""
    try:
        package: Any = import_module("rs_bpe")
    except ImportError:
        return None
    encoding = getattr(package.openai, vocabulary.name)()
    return Encoding(encoding.count, lambda tokens: _decode_complete(encoding.decode, list(tokens)))


def _decode_complete(decode: Callable[[list[int]], str | None], tokens: list[int]) -> str:
    """Return the text without a part of a character at either end, for which `rs-bpe` returns None.

    A client that cuts a long text into lists of tokens may cut a character.
    """
    for start in range(MAX_SPLIT_TOKENS + 1):
        for end in range(len(tokens), max(start, len(tokens) - MAX_SPLIT_TOKENS - 1), -1):
            text = decode(tokens[start:end])
            if text is not None:
                return text
    return "\ufffd" if tokens else ""


def _load_tiktoken(vocabulary: Vocabulary, cache_directory: Path | None) -> Encoding | None:
    """Return the vocabulary of tiktoken, or None if the package or a valid file in its cache is missing."""
    if cache_directory is None:
        return None
    try:
        tiktoken: Any = import_module("tiktoken")
        content = (cache_directory / vocabulary.file_name).read_bytes()
    except (ImportError, OSError):
        return None
    if hashlib.sha256(content).hexdigest() != vocabulary.sha256:
        return None  # tiktoken would download it again
    encoding = tiktoken.get_encoding(vocabulary.name)

    def count(text: str) -> int:
        starts = range(0, len(text), TIKTOKEN_SLICE_CHARS)
        return sum(len(encoding.encode_ordinary(text[start : start + TIKTOKEN_SLICE_CHARS])) for start in starts)

    return Encoding(count, lambda tokens: str(encoding.decode(list(tokens), errors="ignore")))
