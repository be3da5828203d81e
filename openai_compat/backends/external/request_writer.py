"""The call to an external API: what goes out for a chat request, by the row's declaration or in the usual form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from openai_compat.backends.parsing.openai_chat import read_content
from openai_compat.core.errors import InvalidRequestError, UnsupportedParameterError
from openai_compat.core.settings import ModelConfig
from openai_compat.core.types import ChatRequest, JSONObject
from openai_compat.core.validators import is_header_value

from .declaration import RequestDeclaration
from .expressions import WHOLE_DOCUMENT, Template, to_text

PASSED_ON: Final = frozenset({"stop", "max_tokens", "max_completion_tokens"})
"""Promises that count as kept where parameters go out under their own names."""
DECLARABLE: Final = frozenset({"tools", "response_format", "logit_bias", "web_search_options"}) | PASSED_ON
"""Promises that a declaration keeps by using the parameter. The others (`n`, `logprobs`, ...) ask for answers of a
shape that no reply is read for.
"""
DEPENDENT: Final = {"tool_choice": "tools", "parallel_tool_calls": "tools"}
"""Parameters that mean nothing without another."""
WHOLE_CONVERSATION: Final = frozenset({"messages", "conversation", "transcript", WHOLE_DOCUMENT})


class OutgoingRequest(NamedTuple):
    """A call, ready to be sent; `dropped` names what of the request it does not say."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    dropped: Mapping[str, str]


class RequestWriter:
    """Makes the calls of one row."""

    def __init__(self, entry: ModelConfig, declaration: RequestDeclaration | None) -> None:
        self._entry = entry
        self._declaration = declaration
        self._names = declaration.names() if declaration else set()
        self._has_own_form = declaration is None or not (declaration.body or declaration.form or declaration.query)

    @property
    def promises(self) -> frozenset[str]:
        """The promises that the row keeps."""
        if self._has_own_form:
            return PASSED_ON
        return DECLARABLE if WHOLE_DOCUMENT in self._names else DECLARABLE & self._names

    def unresolved(self, request: ChatRequest, *, is_streamed: bool) -> list[str]:
        """The expressions that find nothing in `request`, each once."""
        if self._declaration is None:
            return []
        document = to_document(request, self._entry, is_streamed=is_streamed)
        found = (each.source for each in self._declaration.expressions() if each.find(document) is None)
        return list(dict.fromkeys(found))

    def write(self, request: ChatRequest, *, is_streamed: bool) -> OutgoingRequest:
        """The call for `request`.

        Raises:
            UnsupportedParameterError: it has images or other parts of which nothing would go out.
            PayloadError: a value of it cannot stand in a header, or in the URL.
        """
        url = self._entry.base_url or ""
        declaration = self._declaration
        if declaration is None:
            return OutgoingRequest(
                "POST", url, {"content-type": "application/json"}, self._usual_body(request, is_streamed), {}
            )
        if not (self._has_own_form or self._names & {"messages", WHOLE_DOCUMENT}):
            _refuse_parts(request)
        document = to_document(request, self._entry, is_streamed=is_streamed)
        if declaration.url is not None:
            url = _to_url(declaration.url, document)
        if declaration.query is not None:
            query = urlencode(_pairs(declaration.query.render(document)))
            url += ("&" if "?" in url else "?") + query
        content, content_type = self._body(declaration, request, document, is_streamed)
        headers = {"content-type": content_type} if content is not None else {}
        if declaration.headers is not None:
            headers |= _to_headers(declaration.headers.render(document))
        return OutgoingRequest(declaration.method, url, headers, content, self._dropped(request))

    def _body(
        self, declaration: RequestDeclaration, request: ChatRequest, document: JSONObject, is_streamed: bool
    ) -> tuple[bytes | None, str]:
        if declaration.form is not None:
            return urlencode(_pairs(declaration.form.render(document))).encode(), "application/x-www-form-urlencoded"
        if declaration.body is not None:
            return json.dumps(declaration.body.render(document)).encode(), "application/json"
        if self._has_own_form and declaration.method != "GET":
            return self._usual_body(request, is_streamed), "application/json"
        return None, ""

    def _usual_body(self, request: ChatRequest, is_streamed: bool) -> bytes:
        body: dict[str, Any] = {
            "model": self._entry.upstream_model or self._entry.name,
            "messages": request.messages,
            "stream": is_streamed,
            **request.parameters,
        }
        return json.dumps(body).encode()

    def _dropped(self, request: ChatRequest) -> dict[str, str]:
        if self._has_own_form or WHOLE_DOCUMENT in self._names:
            return {}
        dropped = {
            name: "dropped"
            for name in request.parameters
            if name not in self._names and DEPENDENT.get(name) not in self._names
        }
        if len(request.messages) > 1 and not self._names & (WHOLE_CONVERSATION | {"history"}):
            dropped["messages"] = "last_user_message"
        return dropped


def to_document(request: ChatRequest, entry: ModelConfig, *, is_streamed: bool) -> dict[str, Any]:
    """What the expressions of a request look at: its parameters under their own names, and the conversation in several
    shapes.

    `messages` are OpenAI's own; `conversation` is the same as `{"role", "text"}` without the system's, `history` that
    without the last; `system_prompt`, `last_user_message` and `transcript` are texts.
    """
    texts = [(message["role"], read_content(message.get("content"))[0]) for message in request.messages]
    conversation = [{"role": role, "text": text} for role, text in texts if role not in {"system", "developer"}]
    system = [text for role, text in texts if role in {"system", "developer"}]
    return {
        **request.parameters,
        "model": entry.upstream_model or entry.name,
        "messages": request.messages,
        "stream": is_streamed,
        "conversation": conversation,
        "history": conversation[:-1],
        "system_prompt": "\n\n".join(system) if system else None,
        "last_user_message": next((text for role, text in reversed(texts) if role == "user"), texts[-1][1]),
        "transcript": "\n".join(f"{turn['role'].capitalize()}: {turn['text']}" for turn in conversation),
    }


def _refuse_parts(request: ChatRequest) -> None:
    for message in request.messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") not in {"text", "refusal"}:
                raise UnsupportedParameterError("messages", request.model, f"it takes text, and no {part.get('type')}.")


def _pairs(values: Any) -> list[tuple[str, str]]:
    """A list's items each under its name."""
    return [
        (name, to_text(item))
        for name, value in values.items()
        for item in (value if isinstance(value, list) else [value])
    ]


def _to_url(template: Template, document: JSONObject) -> str:
    """The URL, each value of the caller's a part of it and no more: none leads to another path."""
    url = template.render_text(document, lambda text: quote(text, safe=""))
    if not {".", ".."}.isdisjoint(urlsplit(url).path.split("/")):
        raise InvalidRequestError("The request has a value that cannot stand in the URL of a call.")
    return url


def _to_headers(values: Mapping[str, Any]) -> dict[str, str]:
    headers = {name.lower(): to_text(value) for name, value in values.items()}
    for name, value in headers.items():
        if not is_header_value(value):
            raise InvalidRequestError(f"The request has a value that cannot stand in the header '{name}' of a call.")
    return headers
