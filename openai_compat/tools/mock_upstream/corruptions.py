"""What an answer says when it goes wrong: refusals in many dialects, and healthy answers with something changed.

Each function is the behaviour of a model (see `faults.py`): it gets the exchange and the healthy answer. A refusal in
OpenAI's own words is raised as `ApiError`.
"""

from __future__ import annotations

import json

from .answers import DONE, JSON_TYPE, MockAnswer, to_event
from .delivery import send_healthy, send_pieces, write_pieces
from .errors import ApiError, Json
from .exchange import REASONS, Exchange

_HTML = "<html>\r\n<head><title>{0}</title></head>\r\n<body>\r\n<center><h1>{0}</h1></center>\r\n</body>\r\n</html>\r\n"
_BROKEN_EVENT = b'data: {"id":"chatcmpl-broken","choices":[{"index\n\n'
_SAFE = {"filtered": False, "severity": "safe"}
_PROMPT_FILTER = [{"prompt_index": 0, "content_filter_results": {"hate": _SAFE, "violence": _SAFE}}]


def refuse(_exchange: Exchange, answer: MockAnswer) -> None:
    """Refuse with the status and the retry headers that the options name."""
    options = answer.options
    error = ApiError(options.code)
    if options.retry_after >= 0:
        error.headers["retry-after"] = f"{options.retry_after:g}"
    if options.retry_after_ms >= 0:
        error.headers["retry-after-ms"] = f"{options.retry_after_ms:g}"
    if options.should_retry:
        error.headers["x-should-retry"] = options.should_retry
    raise error


def refuse_quota(_exchange: Exchange, _answer: MockAnswer) -> None:
    """Say that the account's quota is exhausted."""
    message = "You exceeded your current quota, please check your plan and billing details."
    raise ApiError(429, message, kind="insufficient_quota", code="insufficient_quota")


def refuse_length(_exchange: Exchange, _answer: MockAnswer) -> None:
    """Say that the prompt is too long."""
    message = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."
    raise ApiError(400, message, param="messages", code="context_length_exceeded")


def refuse_content(_exchange: Exchange, _answer: MockAnswer) -> None:
    """Say that the content filter was triggered, as Azure does."""
    message = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
    raise ApiError(400, message, param="prompt", code="content_filter")


def refuse_as_databricks(exchange: Exchange, answer: MockAnswer) -> None:
    """Refuse with Databricks' own error object."""
    _respond_json(exchange, answer.options.code, {"error_code": "BAD_REQUEST", "message": "Bad request: mock."})


def serve_as_databricks(exchange: Exchange, answer: MockAnswer) -> None:
    """Be healthy, but refuse `stream_options` as Databricks does."""
    if "stream_options" not in answer.payload:
        send_healthy(exchange, answer)
        return
    message = 'Bad request: json: unknown field "stream_options"\n'
    _respond_json(exchange, 400, {"error_code": "BAD_REQUEST", "message": message})


def refuse_as_vllm(exchange: Exchange, answer: MockAnswer) -> None:
    """Refuse with the error object of older vLLM servers: no envelope, and a number as the code."""
    code = answer.options.code
    error = {"object": "error", "message": "mock refusal", "type": "BadRequestError", "param": None, "code": code}
    _respond_json(exchange, code, error)


def refuse_as_html(exchange: Exchange, answer: MockAnswer) -> None:
    """Answer with the HTML page of a proxy in front of the upstream."""
    code = answer.options.code
    exchange.respond(code, "text/html", _HTML.format(f"{code} {REASONS.get(code, '')}").encode())


def _respond_json(exchange: Exchange, status: int, body: Json) -> None:
    """Answer with an object in nobody's envelope."""
    exchange.respond(status, JSON_TYPE, json.dumps(body).encode())


def reject_stream_options(exchange: Exchange, answer: MockAnswer) -> None:
    """Refuse `stream_options`, be healthy without it."""
    _reject("stream_options", exchange, answer)


def reject_max_tokens(exchange: Exchange, answer: MockAnswer) -> None:
    """Refuse `max_tokens`, be healthy without it."""
    _reject("max_tokens", exchange, answer)


def reject_max_completion_tokens(exchange: Exchange, answer: MockAnswer) -> None:
    """Refuse `max_completion_tokens`, be healthy without it."""
    _reject("max_completion_tokens", exchange, answer)


def _reject(name: str, exchange: Exchange, answer: MockAnswer) -> None:
    """Refuse a request that has the parameter `name`."""
    if name in answer.payload:
        message = f"Unsupported parameter: '{name}' is not supported with this model."
        raise ApiError(400, message, param=name, code="unsupported_parameter")
    send_healthy(exchange, answer)


def no_done(exchange: Exchange, answer: MockAnswer) -> None:
    """Leave out `[DONE]`."""
    if answer.is_stream:
        send_pieces(exchange, answer, answer.pieces[:-1])
    else:
        send_healthy(exchange, answer)


def no_end(exchange: Exchange, answer: MockAnswer) -> None:
    """Leave out `[DONE]`, and the end of the connection."""
    if not answer.is_stream:
        send_healthy(exchange, answer)
        return
    exchange.start(answer.content_type)
    write_pieces(exchange, answer, answer.pieces[:-1])
    exchange.hang()


def continue_prefill(exchange: Exchange, answer: MockAnswer) -> None:
    """Leave out what the last message, if it is the assistant's, has said already."""
    said = _last_words(answer)
    if said is None or not answer.is_stream:
        send_healthy(exchange, answer)
        return

    def edit(objects: list[Json]) -> list[Json]:
        left = said
        for choice in _choices(objects):
            content = choice["delta"].get("content") or ""
            if content and left.startswith(content):
                choice["delta"]["content"], left = "", left[len(content) :]
        return objects

    send_healthy(exchange, answer.edited(edit))


def reject_prefill(exchange: Exchange, answer: MockAnswer) -> None:
    """Refuse a conversation that ends with the assistant, be healthy with any other."""
    if _last_words(answer) is not None:
        raise ApiError(400, "This model does not support assistant message prefill.", param="messages")
    send_healthy(exchange, answer)


def _last_words(answer: MockAnswer) -> str | None:
    """Return what the assistant said last, if nobody spoke after it."""
    last = answer.payload.get("messages", [{}])[-1]
    return last.get("content") or "" if last.get("role") == "assistant" else None


def no_finish(exchange: Exchange, answer: MockAnswer) -> None:
    """Leave out the chunk with the reason to finish; where nothing is streamed, the reason is null."""

    def edit(objects: list[Json]) -> list[Json]:
        for choice in _choices(objects):
            choice["finish_reason"] = None
        return objects

    if answer.is_stream:
        send_healthy(exchange, answer.edited(lambda chunks: [chunk for chunk in chunks if not _is_last(chunk)]))
    else:
        send_healthy(exchange, answer.edited(edit))


def no_usage(exchange: Exchange, answer: MockAnswer) -> None:
    """Say nothing of usage, also when asked."""
    send_healthy(exchange, answer.edited(_without_usage))


def usage_in_last_chunk(exchange: Exchange, answer: MockAnswer) -> None:
    """Put the usage into the chunk with the reason to finish, also when nobody asked."""

    def edit(objects: list[Json]) -> list[Json]:
        chunks = _without_usage(objects)
        chunks[-1]["usage"] = answer.usage
        return chunks

    send_healthy(exchange, answer.edited(edit))


def empty_error(exchange: Exchange, answer: MockAnswer) -> None:
    """Give every object an empty `error`."""
    send_healthy(exchange, answer.edited(lambda objects: [{**item, "error": {}} for item in objects]))


def empty_choices_first(exchange: Exchange, answer: MockAnswer) -> None:
    """Begin a stream as Azure does, with a chunk that has no choices; where nothing is streamed, add its field."""
    added = {"prompt_filter_results": _PROMPT_FILTER}

    def edit(objects: list[Json]) -> list[Json]:
        if not answer.is_stream:
            return [{**item, **added} for item in objects]
        return [{"choices": [], "created": 0, "id": "", "model": "", "object": "", **added}, *objects]

    send_healthy(exchange, answer.edited(edit))


def error_in_stream(exchange: Exchange, answer: MockAnswer) -> None:
    """Send an error event after some chunks, and end there; where nothing is streamed, refuse."""
    error = ApiError(answer.options.code)
    if not answer.is_stream:
        raise error
    send_pieces(exchange, answer, [*answer.beginning, to_event(error.to_envelope())])


def bad_json_event(exchange: Exchange, answer: MockAnswer) -> None:
    """Put one broken event among good ones."""
    if answer.is_stream:
        rest = answer.pieces[len(answer.beginning) :]
        send_pieces(exchange, answer, [*answer.beginning, _BROKEN_EVENT, *rest])
    else:
        send_healthy(exchange, answer)


def bad_json(exchange: Exchange, answer: MockAnswer) -> None:
    """Leave out the last brace of every object."""
    if answer.is_stream:
        broken = [piece.replace(b"}\n\n", b"\n\n") for piece in answer.pieces if piece != DONE]
        send_pieces(exchange, answer, [*broken, DONE])
    else:
        exchange.respond(200, JSON_TYPE, b"".join(answer.pieces)[:-1])


def _choices(objects: list[Json]) -> list[Json]:
    """Return the choices of all objects."""
    return [choice for item in objects for choice in item.get("choices", [])]


def _is_last(chunk: Json) -> bool:
    """Tell whether a chunk ends a choice."""
    return any(choice.get("finish_reason") for choice in chunk.get("choices", []))


def _without_usage(objects: list[Json]) -> list[Json]:
    """Return the objects without their usage, and without the chunk that is there for nothing else."""
    kept = [item for item in objects if item.get("choices") != []]
    for item in kept:
        item.pop("usage", None)
    return kept
