"""Bodies of the passthrough, in blocks of every size."""

from __future__ import annotations

import gzip
import io
import json

import pytest
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from openai_compat.core.byte_budget import ByteBudget
from openai_compat.core.errors import InvalidRequestError, RequestTooLargeError, UnsupportedMediaTypeError
from openai_compat.web.passthrough_body import FormBody, RequestBody, read_body

TYPE = "multipart/form-data; boundary=bound"
MODEL = b'--bound\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
LANGUAGE = b'--bound\r\nContent-Disposition: form-data; name="language"\r\n\r\nen\r\n'
CONTENT = b"\r\n--boun\r\n\x00\xff" * 500
FILE = (
    b'--bound\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\nContent-Type: audio/mpeg\r\n\r\n'
    + CONTENT
    + b"\r\n"
)
END = b"--bound--\r\n"


class Trickle(io.RawIOBase):
    """A body that arrives in blocks of `size` bytes. `unread` are the bytes that nobody has read."""

    def __init__(self, body: bytes, size: int) -> None:
        self.unread = body
        self._size = size

    def read(self, _limit: int = -1) -> bytes:
        block, self.unread = self.unread[: self._size], self.unread[self._size :]
        return block


def read(
    body: bytes,
    content_type: str = "application/json",
    *,
    size: int = 65_536,
    limit: int = 100_000,
    is_judged: bool = True,
    reads_files: bool = False,
    encoding: str = "",
) -> tuple[RequestBody, Trickle]:
    environ = EnvironBuilder(method="POST", content_type=content_type, data=body).get_environ()
    if encoding:
        environ["HTTP_CONTENT_ENCODING"] = encoding
    source = Trickle(body, size)
    request = Request(environ)
    request.__dict__["stream"] = source
    budget = ByteBudget(0)
    return read_body(request, limit, budget, is_judged=is_judged, reads_files=reads_files), source  # type: ignore[arg-type]


def sent(body: RequestBody) -> bytes:
    content = b"".join(body.content or ())
    assert body.length == len(content)
    return content


def test_a_json_object_names_its_model_and_keeps_its_bytes() -> None:
    body, _ = read(b'{"model":  "m", "input": "\xc3\xa9"}')
    assert body.model == "m"
    body.set_model("m")
    assert sent(body) == b'{"model":  "m", "input": "\xc3\xa9"}'


@pytest.mark.parametrize("text", [b'{"model":  "m", "input": 1}', b'{"x": {"model": "y"}, "model": "m"}'])
def test_a_json_object_gets_the_upstreams_name(text: bytes) -> None:
    body, _ = read(text, size=3)
    body.set_model("upstream")
    assert json.loads(sent(body)) == {**json.loads(text), "model": "upstream"}


def test_a_json_object_is_recognised_under_any_content_type() -> None:
    assert read(b' \n{"model": "m"}', "text/plain")[0].model == "m"
    assert read(b'{"model": "m"}', "application/octet-stream", size=1)[0].model == "m"


@pytest.mark.parametrize("text", [b"", b'{"input": 1}', b'{"model": null}', b"[1]", b'["model"]'])
def test_a_body_may_name_no_model(text: bytes) -> None:
    body, _ = read(text)
    assert body.model is None
    assert b"".join(body.content or ()) == text


@pytest.mark.parametrize(
    "text",
    [b'{"model": "a", "model": "b"}', b'{"model": ["a"]}', b"{", b'\xef\xbb\xbf{"model": "m"}',
     '{"model": "m"}'.encode("utf-16"), '{"model": "m"}'.encode("utf-16-be")],
)  # fmt: skip
def test_a_model_that_two_parsers_could_read_differently_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        read(text)


def test_other_bodies_are_not_read() -> None:
    body, source = read(b"\x00binary" * 1000, "application/octet-stream", size=10, limit=20)
    assert len(source.unread) == 6990
    assert sent(body) == b"\x00binary" * 1000


def test_a_body_is_not_read_where_every_model_goes_to_one_upstream() -> None:
    body, source = read(b'{"model": "a", "model": "b"}', is_judged=False, encoding="br")
    assert (body.model, body.encoding, len(source.unread)) == (None, "br", 28)


def test_a_json_object_is_limited() -> None:
    with pytest.raises(RequestTooLargeError):
        read(b'{"model": "' + b"m" * 1000 + b'"}', limit=1000, size=100)


def test_a_compressed_object_keeps_its_encoding_unless_it_changes() -> None:
    compressed = gzip.compress(b'{"model": "m"}')
    body, _ = read(compressed, encoding="gzip")
    assert (body.model, body.encoding, sent(body)) == ("m", "gzip", compressed)
    body, _ = read(compressed, encoding="gzip")
    body.set_model("upstream")
    assert (body.encoding, sent(body)) == ("", b'{"model": "upstream"}')


def test_an_encoding_that_hides_the_model_is_refused() -> None:
    with pytest.raises(UnsupportedMediaTypeError, match="'br'"):
        read(b"xyz", encoding="br")
    with pytest.raises(UnsupportedMediaTypeError):
        read(MODEL + END, TYPE, encoding="gzip")


def test_an_url_encoded_form_is_refused() -> None:
    with pytest.raises(UnsupportedMediaTypeError):
        read(b"model=m", "application/x-www-form-urlencoded")


SIZES = [1, 2, 7, 50, 65_536]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", [MODEL + FILE + END, LANGUAGE + MODEL + FILE + LANGUAGE + END, MODEL + END])
def test_a_form_names_its_model_before_the_file(form: bytes, size: int) -> None:
    body, source = read(form, TYPE, size=size)
    assert body.model == "whisper-1"
    assert size > 100 or len(source.unread) >= len(form) - len(LANGUAGE + MODEL) - 100
    body.set_model("upstream-model")
    assert sent(body) == form.replace(b"whisper-1", b"upstream-model")


@pytest.mark.parametrize("size", SIZES)
def test_a_form_that_names_its_model_after_the_file_is_read_up_to_it(size: int) -> None:
    form = FILE + MODEL + LANGUAGE + END
    body, _ = read(form, TYPE, size=size, reads_files=True)
    assert body.model == "whisper-1"
    body.set_model("w")
    assert sent(body) == form.replace(b"whisper-1", b"w")


def test_a_file_before_the_model_is_limited() -> None:
    with pytest.raises(RequestTooLargeError, match="Send it before the file"):
        read(FILE + MODEL + END, TYPE, size=100, limit=1000, reads_files=True)


@pytest.mark.parametrize("size", SIZES)
def test_a_file_is_not_read_where_forms_name_no_model(size: int) -> None:
    form = LANGUAGE + FILE + END
    body, source = read(form, TYPE, size=size)
    assert body.model is None
    assert size > 100 or len(source.unread) > len(CONTENT) - 100
    assert sent(body) == form


@pytest.mark.parametrize("size", [1, 2, 7, 50, 1000])
def test_a_model_after_the_file_is_checked_before_the_form_ends(size: int) -> None:
    seen: list[str] = []
    body, _ = read(FILE + MODEL + END, TYPE, size=size)
    body.watch(seen.append)
    sent(body)
    assert seen == ["whisper-1"]

    def refuse(model: str) -> None:
        raise InvalidRequestError(model)

    body, _ = read(FILE + MODEL + END, TYPE, size=size)
    body.watch(refuse)
    received: list[bytes] = []
    with pytest.raises(InvalidRequestError):
        received.extend(body.content or ())
    assert END not in b"".join(received)


@pytest.mark.parametrize("size", SIZES)
def test_a_second_model_is_refused(size: int) -> None:
    for second in (b"whisper-1", b"other"):
        with pytest.raises(InvalidRequestError, match="twice"):
            sent(read(MODEL + FILE + MODEL.replace(b"whisper-1", second) + END, TYPE, size=size)[0])


@pytest.mark.parametrize("size", SIZES)
def test_a_form_without_a_model_gets_one(size: int) -> None:
    body, _ = read(LANGUAGE + FILE + END, TYPE, size=size, reads_files=True)
    body.set_model("whisper-1")
    assert sent(body) == MODEL + LANGUAGE + FILE + END


@pytest.mark.parametrize(
    ("form", "content_type"),
    [
        (MODEL + END, "multipart/form-data"),
        (b"--bound\r\nX: y\r\n\r\nz\r\n" + END, TYPE),
        (b"--bound\r\nX: " + b"y" * 300_000, TYPE),
        (MODEL.replace(b"whisper-1", b"m" * 2000) + END, TYPE),
        (MODEL.replace(b"whisper-1", b"\xff") + END, TYPE),
    ],
)
def test_a_form_that_cannot_be_read_is_refused(form: bytes, content_type: str) -> None:
    with pytest.raises(InvalidRequestError):
        read(form, content_type, limit=1_000_000)


@pytest.mark.parametrize("form", [(MODEL + END).replace(b"\r\n", b"\n"), b"no form"])
def test_a_form_in_another_format_is_not_renamed(form: bytes) -> None:
    body, _ = read(form, TYPE)
    assert isinstance(body, FormBody)
    with pytest.raises(InvalidRequestError):
        body.set_model("other")
