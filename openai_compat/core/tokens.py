"""Tokens: pieces of a text for backends without a tokenizer of their own, and counts where an upstream gives none.

A count is exact for OpenAI's models when a vocabulary is at hand: bundled in the package `rs-bpe`, or in the cache
directory of `tiktoken`. Nothing here ever opens a connection. Without either it is an estimate, `estimate_tokens`.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from .types import JSONObject

MAX_PIECE_CHARS: Final = 12
"""Characters of the longest piece, as long as no grapheme has to be cut for it."""

PART_TOKENS: Final[Mapping[str, int]] = {"image_url": 765, "input_audio": 300, "file": 1000}
"""A fixed estimate for each part that is not text: an image of 1024 x 1024 pixels in high detail, audio of 30 seconds
(ten tokens a second), a file of two pages."""

LOW_DETAIL_IMAGE_TOKENS: Final = 85

MAX_ESTIMATED_CHARS: Final = 100_000
"""Characters of one call that are looked at for an estimate: 5 ms, in which no other call of the process goes on."""
MAX_COUNTED_CHARS: Final = 1_000_000
"""The same for an exact count: more than the longest context windows of OpenAI's models take."""

_PUNCTUATION = r"!-/:-@\[-`{-~"
_IDEOGRAPHS = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_MARKS = r"[\u0300-\u036f\u20d0-\u20ff\u3099\u309a\ufe00-\ufe0f\U000e0100-\U000e01ef]*"
_PIECE = re.compile(
    rf" ?[{_IDEOGRAPHS}]{_MARKS}"
    rf"| ?[^\s{_PUNCTUATION}{_IDEOGRAPHS}]+"
    rf"| ?[{_PUNCTUATION}]+{_MARKS}"
    r"|\s*\n"
    r"|\s+(?!\S)"
    r"|\s"
)
_ESTIMATED_TOKEN = re.compile(
    rf" ?[{_IDEOGRAPHS}]"
    r"| ?[A-Za-z]{1,9}"
    rf"| ?[^\s\x00-\x7f{_IDEOGRAPHS}]{{1,4}}"
    r"| ?[0-9]{1,3}"
    rf"| ?[{_PUNCTUATION}]{{1,3}}"
    r"|\s+(?!\S)"
    r"|[\x00-\x7f]|\s"
)
_ZERO_WIDTH_JOINER = "\u200d"


def split_tokens(text: str) -> list[str]:
    """Cuts a text into pieces such as a tokenizer makes; joined they are the text again.

    A piece is a word or a run of punctuation, either with the space before it, one Chinese, Japanese or Korean
    character, or a run of white space. Longer ones are cut into pieces of 12 characters, never within a grapheme.
    """
    pieces: list[str] = _PIECE.findall(text)
    if all(len(piece) <= MAX_PIECE_CHARS for piece in pieces):
        return pieces
    return [part for piece in pieces for part in _cut(piece)]


def _cut(piece: str) -> list[str]:
    """Cuts a long piece after every twelfth character, later where a grapheme spans the cut."""
    parts = []
    start, end = 0, MAX_PIECE_CHARS
    while end < len(piece):
        if _is_within_grapheme(piece[end - 1], piece[end]):
            end += 1
            continue
        parts.append(piece[start:end])
        start, end = end, end + MAX_PIECE_CHARS
    parts.append(piece[start:])
    return parts


def _is_within_grapheme(before: str, after: str) -> bool:
    """Whether two neighbours belong together; two flags in a row do, as their halves cannot be told apart here."""
    return (
        before == _ZERO_WIDTH_JOINER
        or after == _ZERO_WIDTH_JOINER
        or unicodedata.category(after).startswith("M")
        or "\U0001f3fb" <= after <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= after <= "\U000e007f"  # tags, as in the flag of Scotland
        or ("\U0001f1e6" <= after <= "\U0001f1ff" and "\U0001f1e6" <= before <= "\U0001f1ff")
        or (before == "\r" and after == "\n")
    )


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """One of OpenAI's vocabularies: where tiktoken downloads it from, and its SHA-256."""

    name: str
    url: str
    sha256: str

    @property
    def file_name(self) -> str:
        """What tiktoken calls the file in its cache directory."""
        return hashlib.sha1(self.url.encode(), usedforsecurity=False).hexdigest()


# Source: tiktoken's list of its public vocabularies.
CL100K_BASE = Vocabulary(
    name="cl100k_base",
    url="https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken",
    sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
)
O200K_BASE = Vocabulary(
    name="o200k_base",
    url="https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken",
    sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
)

_O200K_MODELS = ("gpt-4o", "gpt-4.1", "gpt-4.5")
_CL100K_MODELS = ("gpt-4", "gpt-3.5", "gpt-35", "text-embedding-")


def vocabulary_of(model: str) -> Vocabulary:
    """The vocabulary of an OpenAI model; o200k_base, the current one, for every other name."""
    if model.startswith(_CL100K_MODELS) and not model.startswith(_O200K_MODELS):
        return CL100K_BASE
    return O200K_BASE


class TokenCounter:
    """Counts tokens, exactly where a vocabulary is at hand, by the estimate of this module otherwise.

    `cache_directory` is where tiktoken keeps its downloads (its `TIKTOKEN_CACHE_DIR`), None for nowhere. A vocabulary
    is loaded at the first count for a model that needs it, and never ahead: most servers stand in front of upstreams
    that count for themselves. It takes about 0.07 s and 60 MB with `rs-bpe`, 0.5 s and 85 MB with tiktoken.

    Of very long texts (`MAX_COUNTED_CHARS`, `MAX_ESTIMATED_CHARS`) only the beginning is counted, and the rest
    is taken to be alike.
    """

    def __init__(self, cache_directory: Path | None = None) -> None:
        self._cache_directory = cache_directory
        self._counts: dict[str, Callable[[str], int]] = {}

    def count(self, text: str, model: str) -> int:
        """The tokens of a text; text that looks like a special token counts as the plain text it is."""
        return self.count_all([text], model)

    def count_all(self, texts: Sequence[str], model: str) -> int:
        """The tokens of texts of which each stands by itself."""
        count = self._count_function(model)
        most = MAX_ESTIMATED_CHARS if count is estimate_tokens else MAX_COUNTED_CHARS
        tokens = length = 0
        for text in texts:
            if length < most:
                tokens += _count_safely(count, text[: most - length])
            length += len(text)
        return tokens if length <= most else round(tokens * length / most)

    def _count_function(self, model: str) -> Callable[[str], int]:
        vocabulary = vocabulary_of(model)
        if vocabulary.name not in self._counts:
            self._counts[vocabulary.name] = (
                _load_bundled(vocabulary) or _load_tiktoken(vocabulary, self._cache_directory) or estimate_tokens
            )
        return self._counts[vocabulary.name]

    def count_messages(self, messages: Sequence[JSONObject], model: str) -> int:
        """The prompt tokens of a conversation, by the rule of OpenAI's cookbook ("How to count tokens with tiktoken").

        Each message costs 3 besides its role and its content, a name 1 more, and the answer's beginning 3.
        Parts that are not text count as `PART_TOKENS` has them.
        """
        texts = [text for message in messages for text in _texts_of(message)]
        return 3 + sum(3 + _fixed_tokens(message) for message in messages) + self.count_all(texts, model)


def _count_safely(count: Callable[[str], int], text: str) -> int:
    try:
        return count(text)
    except UnicodeEncodeError:  # half a surrogate pair
        return count(text.encode("utf-8", "replace").decode())


def _texts_of(message: JSONObject) -> Iterator[str]:
    """Everything in a message that is counted as text."""
    texts = [message.get("role"), message.get("name"), message.get("refusal")]
    calls = [call.get("function") or {} for call in message.get("tool_calls") or ()]
    for call in [*calls, message.get("function_call") or {}]:
        texts += [call.get("name"), call.get("arguments")]
    content = message.get("content")
    texts += [content] if isinstance(content, str) else []
    texts += [part.get("text") or part.get("refusal") for part in _parts_of(message)]
    return filter(None, texts)


def _fixed_tokens(message: JSONObject) -> int:
    """What a message costs besides its text."""
    return sum(map(_part_tokens, _parts_of(message))) + (1 if message.get("name") else 0)


def _parts_of(message: JSONObject) -> Sequence[JSONObject]:
    content = message.get("content")
    return content if isinstance(content, list) else ()


def estimate_tokens(text: str) -> int:
    """The count without a vocabulary: one token for at most nine letters of ASCII, four other letters, three digits or
    signs of punctuation, one Chinese, Japanese or Korean character, or a run of white space.

    Measured against o200k_base: English and French prose, Python and JSON within 15 %; German, Russian, Hindi, Chinese
    and Japanese within 20 %; Finnish, Arabic and Korean within 35 %; half of the truth for Thai and for base64.
    """
    return len(_ESTIMATED_TOKEN.findall(text))


def _part_tokens(part: JSONObject) -> int:
    image = part.get("image_url")
    if isinstance(image, Mapping) and image.get("detail") == "low":
        return LOW_DETAIL_IMAGE_TOKENS
    return PART_TOKENS.get(str(part.get("type")), 0)


def _load_bundled(vocabulary: Vocabulary) -> Callable[[str], int] | None:
    """Counts with `rs-bpe`, which carries the vocabularies; None where it is not installed."""
    try:
        package: Any = import_module("rs_bpe")
    except ImportError:
        return None
    count: Callable[[str], int] = getattr(package.openai, vocabulary.name)().count
    return count


def _load_tiktoken(vocabulary: Vocabulary, cache_directory: Path | None) -> Callable[[str], int] | None:
    """Counts with `tiktoken` over its cached file; None where either is missing, or the file is damaged."""
    if cache_directory is None:
        return None
    try:
        tiktoken: Any = import_module("tiktoken")
        content = (cache_directory / vocabulary.file_name).read_bytes()
    except (ImportError, OSError):
        return None
    if hashlib.sha256(content).hexdigest() != vocabulary.sha256:
        return None  # tiktoken would fetch it anew
    encoding = tiktoken.get_encoding(vocabulary.name)
    return lambda text: len(encoding.encode_ordinary(text))
