"""Writer of requests to an external API, in the declared form or in the default form."""

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
"""Parameters that count as supported if they are sent under their own names."""
DECLARABLE: Final = frozenset({"tools", "response_format", "logit_bias", "web_search_options"}) | PASSED_ON
"""Parameters that a declaration supports if it uses them.

The others (`n`, `logprobs`, ...) change the shape of the answer in a way that no reply reader supports.
"""
DEPENDENT: Final = {"tool_choice": "tools", "parallel_tool_calls": "tools"}
"""Parameters that have no effect without another."""
WHOLE_CONVERSATION: Final = frozenset({"messages", "conversation", "transcript", WHOLE_DOCUMENT})


class OutgoingRequest(NamedTuple):
    """Request to the external API. `dropped` names the parameters of the client's request that it does not contain."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    dropped: Mapping[str, str]


class RequestWriter:
    """Writer of the requests for one model config."""

    def __init__(self, entry: ModelConfig, declaration: RequestDeclaration | None) -> None:
        self._entry = entry
        self._declaration = declaration
        self._used_keys = declaration.used_keys() if declaration else set()
        self._has_default_body = declaration is None or not (declaration.body or declaration.form or declaration.query)

    @property
    def supported_parameters(self) -> frozenset[str]:
        """The chat parameters that the model config supports."""
        if self._has_default_body:
            return PASSED_ON
        return DECLARABLE if WHOLE_DOCUMENT in self._used_keys else DECLARABLE & self._used_keys

    @property
    def sends_whole_prompt(self) -> bool:
        """True if the API gets the system messages and all turns, in any form."""
        if self._has_default_body or not self._used_keys.isdisjoint({"messages", WHOLE_DOCUMENT}):
            return True
        return "system_prompt" in self._used_keys and not self._used_keys.isdisjoint(WHOLE_CONVERSATION)

    def unresolved(self, request: ChatRequest, *, is_streamed: bool) -> list[str]:
        """Return the expressions that find nothing in `request`, without duplicates."""
        if self._declaration is None:
            return []
        document = to_document(request, self._entry, is_streamed=is_streamed)
        expressions = self._declaration.expressions()
        sources = (expression.source for expression in expressions if expression.find(document) is None)
        return list(dict.fromkeys(sources))

    def write(self, request: ChatRequest, *, is_streamed: bool) -> OutgoingRequest:
        """Return the HTTP request for a chat request.

        Raises:
            UnsupportedParameterError: the chat request has images or other parts that would not be sent.
            InvalidRequestError: one of its values is not allowed in a header or in the URL.
        """
        url = self._entry.base_url or ""
        declaration = self._declaration
        if declaration is None:
            return OutgoingRequest(
                "POST", url, {"content-type": "application/json"}, self._default_body(request, is_streamed), {}
            )
        if not (self._has_default_body or self._used_keys & {"messages", WHOLE_DOCUMENT}):
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
        if self._has_default_body and declaration.method != "GET":
            return self._default_body(request, is_streamed), "application/json"
        return None, ""

    def _default_body(self, request: ChatRequest, is_streamed: bool) -> bytes:
        body: dict[str, Any] = {
            "model": self._entry.upstream_model or self._entry.name,
            "messages": request.messages,
            "stream": is_streamed,
            **request.parameters,
        }
        return json.dumps(body).encode()

    def _dropped(self, request: ChatRequest) -> dict[str, str]:
        if self._has_default_body or WHOLE_DOCUMENT in self._used_keys:
            return {}
        dropped = {
            name: "dropped"
            for name in request.parameters
            if name not in self._used_keys and DEPENDENT.get(name) not in self._used_keys
        }
        if len(request.messages) > 1 and not self._used_keys & (WHOLE_CONVERSATION | {"history"}):
            dropped["messages"] = "last_user_message"
        return dropped


def to_document(request: ChatRequest, entry: ModelConfig, *, is_streamed: bool) -> dict[str, Any]:
    """Return the document for the expressions of a request, with its parameters and the conversation in several forms.

    `messages` are OpenAI's messages. `conversation` has them as `{"role", "text"}` without the system messages, and
    `history` is the conversation without the last message. `system_prompt`, `last_user_message` and `transcript` are
    texts.
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
                reason = f"it accepts text, but not {part.get('type')}."
                raise UnsupportedParameterError("messages", request.model, reason)


def _pairs(values: Any) -> list[tuple[str, str]]:
    """Return the name and value pairs of a form or query. A list gives one pair for each item."""
    return [
        (name, to_text(item))
        for name, value in values.items()
        for item in (value if isinstance(value, list) else [value])
    ]


def _to_url(template: Template, document: JSONObject) -> str:
    """Return the URL with the client's values escaped, so that no value can change the path."""
    url = template.render_text(document, lambda text: quote(text, safe=""))
    if not {".", ".."}.isdisjoint(urlsplit(url).path.split("/")):
        raise InvalidRequestError("The request has a value that is not allowed in the URL of the upstream call.")
    return url


def _to_headers(values: Mapping[str, Any]) -> dict[str, str]:
    headers = {name.lower(): to_text(value) for name, value in values.items()}
    for name, value in headers.items():
        if not is_header_value(value):
            raise InvalidRequestError(
                f"The request has a value that is not allowed in the header '{name}' of the upstream call."
            )
    return headers
