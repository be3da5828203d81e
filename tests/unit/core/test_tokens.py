"""Token splitting and counting, without a network."""

from __future__ import annotations

import base64
import hashlib
import socket
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from openai_compat.core import tokens
from openai_compat.core.tokens import MAX_ESTIMATED_CHARS, MAX_TOKEN_CHARS, TokenCounter, split_tokens
from openai_compat.core.vocabularies import (
    CL100K_BASE,
    O200K_BASE,
    TIKTOKEN_SLICE_CHARS,
    Vocabulary,
    load_encoding,
    vocabulary_of,
)

FAMILY = "👩🏽‍👩🏽‍👧🏽‍👦🏽"
TEXTS = [
    "",
    " ",
    "Hello, world!",
    "  two  spaces \n\n and\tlines\r\n",
    "snake_case don't 3.14 <|endoftext|>",
    "東京へ行きます。한국어 नमस्ते ภาษาไทย",
    "e\u0301" * 40,
    FAMILY * 5,
    "🇩🇪" * 9,
    "#\ufe0f\u20e3 1\ufe0f\u20e3",
    "x" * 1000 + " " * 1000 + "!" * 1000,
    "\x00\x1f\ud800\U0010ffff",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokens_joined_are_the_text(text: str) -> None:
    parts = split_tokens(text)
    assert "".join(parts) == text
    assert "" not in parts


def test_a_word_includes_the_space_before_it() -> None:
    assert split_tokens("Hello there, 2 worlds!") == ["Hello", " there", ",", " 2", " worlds", "!"]


def test_long_words_are_split() -> None:
    parts = split_tokens("Donaudampfschifffahrtsgesellschaft " + "=" * 50)
    assert max(map(len, parts)) == MAX_TOKEN_CHARS
    assert len(parts) == 3 + 5


@pytest.mark.parametrize(
    "grapheme", ["e\u0301", FAMILY, "🇩🇪", "\r\n", "👍🏽", "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e007f"]
)
def test_graphemes_are_not_split(grapheme: str) -> None:
    for before in (
        "",
        *("x" * length for length in range(1, MAX_TOKEN_CHARS)),
        *(" " * length for length in (1, 2, 11)),
    ):
        text = before + grapheme * 10 + "x"
        parts = split_tokens(text)
        ends = {len("".join(parts[:count])) for count in range(len(parts))}
        inside = {len(before) + index for index in range(len(grapheme) * 10) if index % len(grapheme)}
        assert not ends & inside, parts


def test_a_long_text_takes_linear_time() -> None:
    assert len(split_tokens("word " * 200_000)) == 200_001
    assert TokenCounter().count(" " * 1_000_000 + "x", "some-model") > 0


@pytest.fixture
def no_tokenizers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide both packages, and fail the test if a socket is opened."""
    monkeypatch.setitem(sys.modules, "rs_bpe", None)
    monkeypatch.setitem(sys.modules, "tiktoken", None)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)


@pytest.mark.usefixtures("no_tokenizers")
@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("The quick brown fox jumps over the lazy dog.", 10),
        ("Alle Menschen sind frei und gleich an Würde und Rechten geboren.", 14),
        ("人人生而自由,在尊严和权利上一律平等。", 16),
        ('{"id": 17, "name": "item 17", "value": 23.29}', 22),
    ],
)
def test_the_estimate_is_close_to_the_exact_count(text: str, exact: int) -> None:
    assert TokenCounter().count(text, "gpt-4o") == pytest.approx(exact, rel=0.35)


@pytest.mark.usefixtures("no_tokenizers")
def test_the_estimate_reads_only_the_beginning_of_very_long_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text of 9 MB took 0.4 s, which blocked every other call."""
    lengths = []

    def estimate(text: str) -> int:
        lengths.append(len(text))
        return len(text) // 4

    monkeypatch.setattr(tokens, "estimate_tokens", estimate)
    text = "abc " * 60_000
    assert TokenCounter().count(text * 10, "gpt-4o") == 600_000
    assert TokenCounter().count_messages([{"role": "", "content": text}] * 10, "gpt-4o") == 600_000 + 33
    assert lengths == [MAX_ESTIMATED_CHARS] * 2


@pytest.mark.usefixtures("no_tokenizers")
def test_texts_up_to_the_limit_are_read_completely() -> None:
    half = "x" * (MAX_ESTIMATED_CHARS // 2)
    assert TokenCounter().count_all([half, half], "m") == 2 * TokenCounter().count(half, "m")
    assert TokenCounter().count_all([half, half, half], "m") == 3 * TokenCounter().count(half, "m")


@pytest.mark.usefixtures("no_tokenizers")
def test_messages_cost_what_openais_cookbook_specifies() -> None:
    counter = TokenCounter()
    one = counter.count_messages([{"role": "user", "content": "Hello"}], "gpt-4o")
    assert one == 3 + 3 + 1 + 1  # the start of the answer, the message, its role, its content
    named = counter.count_messages([{"role": "user", "content": "Hello", "name": "zoe"}], "gpt-4o")
    assert named == one + 1 + 1


@pytest.mark.usefixtures("no_tokenizers")
def test_content_parts_and_tool_calls_are_counted() -> None:
    counter = TokenCounter()

    def cost(message: dict[str, Any]) -> int:
        return counter.count_messages([{"role": "user"} | message], "gpt-4o") - 7

    assert cost({"content": [{"type": "text", "text": "Hello"}]}) == 1
    assert cost({"content": [{"type": "image_url", "image_url": {"url": "data:" + "A" * 9999}}]}) == 765
    assert cost({"content": [{"type": "image_url", "image_url": {"url": "x", "detail": "low"}}]}) == 85
    assert cost({"content": [{"type": "input_audio", "input_audio": {"data": "AAAA"}}]}) == 300
    assert cost({"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "Hello"}}]}) == 2
    assert cost({"content": None, "tool_calls": None, "function_call": None}) == 0


def test_the_model_name_selects_the_vocabulary() -> None:
    of_cl100k = ["gpt-4", "gpt-4-turbo", "gpt-3.5-turbo", "gpt-35-turbo", "text-embedding-3-small"]
    assert {vocabulary_of(model) for model in of_cl100k} == {CL100K_BASE}
    assert {vocabulary_of(model) for model in ["gpt-4o-mini", "gpt-4.1", "gpt-5", "o3", "llama"]} == {O200K_BASE}


def test_vocabulary_files_have_tiktokens_names() -> None:
    """These are the files in `TIKTOKEN_CACHE_DIR` after tiktoken's own download."""
    assert CL100K_BASE.file_name == "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
    assert O200K_BASE.file_name == "fb374d419588a4632f3f557e76b4b70aebbca790"


@pytest.fixture
def fake_tiktoken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make a cache directory with a tiny vocabulary and an encoding of one token per byte."""

    class Encoding:
        def __init__(self, name: str) -> None:
            assert name == "tiny"

        def encode_ordinary(self, text: str) -> list[int]:
            assert len(text) <= TIKTOKEN_SLICE_CHARS
            return list(text.encode())

        def decode(self, ids: list[int], errors: str) -> str:
            return bytes(ids).decode(errors=errors)

    content = b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate([b"a", b"b"]))
    tiny = Vocabulary("tiny", 256, "https://example.invalid/tiny", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(tokens, "vocabulary_of", lambda model: tiny)
    monkeypatch.setitem(sys.modules, "rs_bpe", None)
    monkeypatch.setitem(sys.modules, "tiktoken", types.SimpleNamespace(get_encoding=Encoding))
    (tmp_path / tiny.file_name).write_bytes(content)
    return tmp_path


def test_tiktoken_counts_with_its_cached_vocabulary(fake_tiktoken: Path) -> None:
    assert TokenCounter(fake_tiktoken).count("abababab", "gpt-4o") == 8
    assert TokenCounter(fake_tiktoken).count("\ud800", "gpt-4o") == 1


def test_tiktoken_gets_long_texts_in_slices(fake_tiktoken: Path) -> None:
    """tiktoken 0.14 overflows its stack on a million spaces, and raises no `Exception` but a `BaseException`."""
    length = 3 * TIKTOKEN_SLICE_CHARS + 1
    assert TokenCounter(fake_tiktoken).count(" " * length, "gpt-4o") == length


def test_a_damaged_or_missing_vocabulary_leads_to_the_estimate(fake_tiktoken: Path) -> None:
    assert TokenCounter(fake_tiktoken / "elsewhere").count("abababab", "gpt-4o") == 1
    assert TokenCounter(None).count("abababab", "gpt-4o") == 1
    (file,) = fake_tiktoken.iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    assert TokenCounter(fake_tiktoken).count("abababab", "gpt-4o") == 1
    assert file.exists()


def test_the_bundled_vocabularies_count_like_tiktoken() -> None:
    pytest.importorskip("rs_bpe", reason="the extra `tokens` is not installed")
    text = "a <|endoftext|> b, don't  \n\n x 123456 日本語 e\u0301"
    assert TokenCounter().count(text, "gpt-4o") == 20  # both numbers are tiktoken 0.14's
    assert TokenCounter().count(text, "gpt-4") == 22
    assert TokenCounter().count("\ud800", "gpt-4o") == 1


def test_token_ids_are_decoded_with_tiktokens_cached_vocabulary(fake_tiktoken: Path) -> None:
    encoding = load_encoding(tokens.vocabulary_of("m"), fake_tiktoken)
    assert encoding is not None
    assert encoding.decode(list("naïve".encode())[:3]) == "na"


@pytest.mark.parametrize("text", ["Hello, wörld!", "  a\n\tb", "", "東京 🏃🏽 한국어"])
def test_token_ids_are_decoded_with_the_bundled_vocabulary(text: str) -> None:
    bundled: Any = pytest.importorskip("rs_bpe").openai.cl100k_base()
    encoding = load_encoding(CL100K_BASE, None)
    assert encoding is not None
    assert encoding.decode(bundled.encode(text)) == text


def test_a_character_that_is_cut_by_the_client_is_left_out() -> None:
    bundled: Any = pytest.importorskip("rs_bpe").openai.cl100k_base()
    encoding = load_encoding(CL100K_BASE, None)
    assert encoding is not None
    ids = bundled.encode("𓀀a𓀀")
    decoded = {encoding.decode(ids[start:end]) for start in range(4) for end in range(len(ids) - 3, len(ids) + 1)}
    assert decoded <= {"a", "𓀀a", "a𓀀", "𓀀a𓀀"}
    assert encoding.decode(ids[:1]) == "\ufffd"
