"""Behaviours of models that return errors of several vendors, or healthy answers with a change.

Each function receives the exchange and the healthy answer. `faults.py` assigns them to models. Errors in OpenAI's
format are raised as `ApiError`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from .answers import DONE, JSON_TYPE, MESSAGES, RESPONSES, MockAnswer, to_event
from .delivery import send_healthy, send_parts, write_parts
from .errors import ApiError, Json
from .exchange import REASONS, Exchange

_HTML = "<html>\r\n<head><title>{0}</title></head>\r\n<body>\r\n<center><h1>{0}</h1></center>\r\n</body>\r\n</html>\r\n"
_BROKEN_EVENT = b'data: {"id":"chatcmpl-broken","object\n\n'
_SAFE = {"filtered": False, "severity": "safe"}
_PROMPT_FILTER = [{"prompt_index": 0, "content_filter_results": {"hate": _SAFE, "violence": _SAFE}}]


def status_error(_exchange: Exchange, answer: MockAnswer) -> None:
    """Return the status and the retry headers that the options name."""
    options = answer.options
    error = ApiError(options.code)
    if options.retry_after >= 0:
        error.headers["retry-after"] = f"{options.retry_after:g}"
    if options.retry_after_ms >= 0:
        error.headers["retry-after-ms"] = f"{options.retry_after_ms:g}"
    if options.should_retry:
        error.headers["x-should-retry"] = options.should_retry
    raise error


def quota_error(_exchange: Exchange, _answer: MockAnswer) -> None:
    """Return the error for an exhausted quota."""
    message = "You exceeded your current quota, please check your plan and billing details."
    raise ApiError(429, message, error_type="insufficient_quota", code="insufficient_quota")


def context_length_error(_exchange: Exchange, answer: MockAnswer) -> None:
    """Return the error for a prompt that is too long."""
    if answer.endpoint == MESSAGES:
        raise ApiError(400, "prompt is too long: 9001 tokens > 8192 maximum")
    message = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."
    raise ApiError(400, message, param="messages", code="context_length_exceeded")


def content_filter_error(_exchange: Exchange, _answer: MockAnswer) -> None:
    """Return Azure's error for a prompt that the content filter rejected."""
    message = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
    raise ApiError(400, message, param="prompt", code="content_filter")


def databricks_error(exchange: Exchange, answer: MockAnswer) -> None:
    """Return Databricks' error object."""
    _respond_json(exchange, answer.options.code, {"error_code": "BAD_REQUEST", "message": "Bad request: mock."})


def reject_stream_options_as_databricks(exchange: Exchange, answer: MockAnswer) -> None:
    """Return Databricks' error for `stream_options`. Any other request gets a healthy answer."""
    if "stream_options" not in answer.payload:
        send_healthy(exchange, answer)
        return
    message = 'Bad request: json: unknown field "stream_options"\n'
    _respond_json(exchange, 400, {"error_code": "BAD_REQUEST", "message": message})


def vllm_error(exchange: Exchange, answer: MockAnswer) -> None:
    """Return the error object of older vLLM servers, without an envelope and with a number as the code."""
    code = answer.options.code
    error = {"object": "error", "message": "mock error", "type": "BadRequestError", "param": None, "code": code}
    _respond_json(exchange, code, error)


def html_error(exchange: Exchange, answer: MockAnswer) -> None:
    """Return the HTML page of a proxy in front of the upstream."""
    code = answer.options.code
    exchange.respond(code, "text/html", _HTML.format(f"{code} {REASONS.get(code, '')}").encode())


def _respond_json(exchange: Exchange, status: int, body: Json) -> None:
    """Respond with a JSON object that is not in OpenAI's envelope."""
    exchange.respond(status, JSON_TYPE, json.dumps(body).encode())


def reject_stream_options(exchange: Exchange, answer: MockAnswer) -> None:
    """Return 400 for `stream_options`."""
    _reject("stream_options", exchange, answer)


def reject_max_tokens(exchange: Exchange, answer: MockAnswer) -> None:
    """Return 400 for `max_tokens`."""
    _reject("max_tokens", exchange, answer)


def reject_max_completion_tokens(exchange: Exchange, answer: MockAnswer) -> None:
    """Return 400 for `max_completion_tokens`."""
    _reject("max_completion_tokens", exchange, answer)


def _reject(name: str, exchange: Exchange, answer: MockAnswer) -> None:
    """Return 400 for the parameter `name`, otherwise a healthy answer."""
    if name in answer.payload:
        message = f"Unsupported parameter: '{name}' is not supported with this model."
        raise ApiError(400, message, param=name, code="unsupported_parameter")
    send_healthy(exchange, answer)


def no_done(exchange: Exchange, answer: MockAnswer) -> None:
    """Send the answer without `[DONE]`, or without the last event of a response."""
    if answer.is_stream:
        send_parts(exchange, answer, answer.parts[:-1])
    else:
        send_healthy(exchange, answer)


def no_end(exchange: Exchange, answer: MockAnswer) -> None:
    """Send the answer without `[DONE]`, and keep the connection open."""
    if not answer.is_stream:
        send_healthy(exchange, answer)
        return
    exchange.start(answer.content_type)
    write_parts(exchange, answer, answer.parts[:-1])
    exchange.hang()


def continue_prefill(exchange: Exchange, answer: MockAnswer) -> None:
    """Send the answer without the text of a final assistant message, as its continuation."""
    prefill = _prefill(answer)
    if prefill is None or not answer.is_stream:
        send_healthy(exchange, answer)
        return

    def edit(objects: list[Json]) -> list[Json]:
        remaining = prefill
        for choice in _choices(objects):
            content = choice["delta"].get("content") or ""
            if content and remaining.startswith(content):
                choice["delta"]["content"], remaining = "", remaining[len(content) :]
        return objects

    send_healthy(exchange, answer.edited(edit))


def reject_prefill(exchange: Exchange, answer: MockAnswer) -> None:
    """Return 400 for a conversation that ends with an assistant message."""
    if _prefill(answer) is not None:
        raise ApiError(400, "This model does not support assistant message prefill.", param="messages")
    send_healthy(exchange, answer)


def _prefill(answer: MockAnswer) -> str | None:
    """Return the content of a final assistant message, None if the last message has another role."""
    last = answer.payload.get("messages", [{}])[-1]
    return last.get("content") or "" if last.get("role") == "assistant" else None


def no_finish(exchange: Exchange, answer: MockAnswer) -> None:
    """Send the answer without the chunk with the finish reason. A non-streaming answer gets null as the reason."""

    def edit(objects: list[Json]) -> list[Json]:
        for choice in _choices(objects):
            choice["finish_reason"] = None
        for message in objects:
            if "stop_reason" in message:
                message["stop_reason"] = None
        return objects

    if answer.is_stream:
        send_healthy(exchange, answer.edited(lambda chunks: [chunk for chunk in chunks if not _is_last(chunk)]))
    else:
        send_healthy(exchange, answer.edited(edit))


def no_usage(exchange: Exchange, answer: MockAnswer) -> None:
    """Send the answer without usage, even if it is requested."""
    send_healthy(exchange, answer.edited(_without_usage))


def usage_in_last_chunk(exchange: Exchange, answer: MockAnswer) -> None:
    """Put usage into the chunk with the finish reason, even if it is not requested."""

    def edit(objects: list[Json]) -> list[Json]:
        chunks = _without_usage(objects)
        chunks[-1]["usage"] = answer.usage
        return chunks

    send_healthy(exchange, answer.edited(edit))


def empty_error(exchange: Exchange, answer: MockAnswer) -> None:
    """Add an empty `error` to every object."""
    send_healthy(exchange, answer.edited(lambda objects: [{**item, "error": {}} for item in objects]))


def empty_choices_first(exchange: Exchange, answer: MockAnswer) -> None:
    """Begin a stream with a chunk without choices, as Azure does. A non-streaming answer gets its field."""
    added = {"prompt_filter_results": _PROMPT_FILTER}

    def edit(objects: list[Json]) -> list[Json]:
        if not answer.is_stream:
            return [{**item, **added} for item in objects]
        return [{"choices": [], "created": 0, "id": "", "model": "", "object": "", **added}, *objects]

    send_healthy(exchange, answer.edited(edit))


def error_in_stream(exchange: Exchange, answer: MockAnswer) -> None:
    """End a stream with an error event after some chunks. Without streaming, return the error."""
    error = ApiError(answer.options.code)
    if not answer.is_stream:
        raise error
    send_parts(exchange, answer, [*answer.parts_before_fault, *_error_events(answer, error)])


def _error_events(answer: MockAnswer, error: ApiError) -> Iterator[bytes]:
    """Yield the error event of a stream. Responses have two (source: a recorded stream of OpenAI)."""
    if answer.endpoint == MESSAGES:
        yield to_event(error.to_anthropic_envelope())
        return
    if answer.has_done:
        yield to_event(error.to_envelope())
        return
    number = len(answer.parts_before_fault)
    yield to_event({"type": "error", "sequence_number": number, **error.to_envelope()})
    failure = {"code": error.code or error.type, "message": str(error)}
    response = {**answer.objects[0]["response"], "status": "failed", "error": failure}
    yield to_event({"type": "response.failed", "sequence_number": number + 1, "response": response})


def no_responses(exchange: Exchange, answer: MockAnswer) -> None:
    """Return 404 for the Responses API, as servers without it do. Other endpoints are healthy."""
    if answer.endpoint == RESPONSES:
        raise ApiError(404, f"Invalid URL (POST {exchange.request.path})")
    send_healthy(exchange, answer)


def bad_json_event(exchange: Exchange, answer: MockAnswer) -> None:
    """Insert one invalid event."""
    if answer.is_stream:
        remaining = answer.parts[len(answer.parts_before_fault) :]
        send_parts(exchange, answer, [*answer.parts_before_fault, _BROKEN_EVENT, *remaining])
    else:
        send_healthy(exchange, answer)


def bad_json(exchange: Exchange, answer: MockAnswer) -> None:
    """Send the answer without the last brace of every object."""
    if answer.is_stream:
        broken = [part.replace(b"}\n\n", b"\n\n") for part in answer.parts if part != DONE]
        send_parts(exchange, answer, [*broken, DONE] if answer.has_done else broken)
    else:
        exchange.respond(200, JSON_TYPE, b"".join(answer.parts)[:-1])


def _choices(objects: list[Json]) -> list[Json]:
    """Return the choices of all objects."""
    return [choice for item in objects for choice in item.get("choices", [])]


def _is_last(chunk: Json) -> bool:
    """Return True if a chunk ends a choice, or an event of the Messages API has the reason for the end."""
    if chunk.get("type") == "message_delta":
        return True
    return any(choice.get("finish_reason") for choice in chunk.get("choices", []))


def _without_usage(objects: list[Json]) -> list[Json]:
    """Return the objects without usage, and without the chunk that has only usage."""
    remaining = [item for item in objects if item.get("choices") != []]
    for item in remaining:
        item.pop("usage", None)
    return remaining
