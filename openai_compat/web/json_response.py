"""Non-streaming responses, JSON unless their headers name another type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from flask import Response

from openai_compat.services.openai_objects import to_json

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

UNTRUSTED_HEADERS: Final = {"x-content-type-options": "nosniff", "content-security-policy": "sandbox"}
"""Headers of content that others wrote. A browser that opens it as a page runs no script of it in this origin."""


class BytesResponse(Response):
    """A response with one block of bytes as its body, JSON unless the headers name another type.

    Werkzeug's `Response` looks for locations to make absolute, bodies to encode and iterables to close. There are none
    here, and the search takes as long as the validation of the request does (`docs/internals/performance.md`).
    """

    def __init__(self, body: bytes, status: int, headers: Mapping[str, str]) -> None:
        complete = {"content-type": "application/json", "content-length": str(len(body)), **headers}
        super().__init__(status=status, headers=list(complete.items()))
        self._body = body

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(self.status, self.headers.to_wsgi_list())
        return () if environ["REQUEST_METHOD"] == "HEAD" else (self._body,)

    def get_data(self, as_text: bool = False) -> Any:
        return self._body.decode() if as_text else self._body


def json_response(value: Mapping[str, Any], status: int = HTTPStatus.OK, headers: Mapping[str, str] = {}) -> Response:
    """Return a response with `value` as its JSON body."""
    return BytesResponse(to_json(value), status, headers)
