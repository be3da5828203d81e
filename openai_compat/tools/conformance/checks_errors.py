"""Questions about errors and headers."""

from __future__ import annotations

import json

from .client import CheckSkipped, ConformanceClient, error_of, expect, shown
from .registry import Section

ERRORS = Section("errors")
HEADERS = Section("headers")
NESTED = 20_000


@ERRORS.question(
    "an unknown path is a 404 in the envelope", why="clients show `error.message`; a page of HTML is noise"
)
def unknown_path(interview: ConformanceClient) -> None:
    error_of(interview.send("GET", "no/such/path"), 404)


@ERRORS.question("a wrong method is a 405 (or 404) in the envelope", why="the same")
def wrong_method(interview: ConformanceClient) -> None:
    error_of(interview.send("DELETE", "embeddings"), 404, 405)


@ERRORS.question("broken JSON is a 400", why="422 and 500 are not in OpenAI's clients' tables: 500 is retried in vain")
def broken_json(interview: ConformanceClient) -> None:
    error_of(interview.send("POST", "chat/completions", b'{"model": '), 400)


@ERRORS.question("a body that is no object is a 400", why="a server that fails on it (500) is asked three times over")
def body_is_no_object(interview: ConformanceClient) -> None:
    for body in (b"[1]", b"null", b"3"):
        error_of(interview.send("POST", "chat/completions", body), 400)


@ERRORS.question("messages missing is a 400 that names them in `param`", why="forms point at the field by `param`")
def messages_missing(interview: ConformanceClient) -> None:
    error = error_of(interview.post("chat/completions", {"model": interview.subject.model}), 400)
    expect("messages" in str(error["param"]), f"param {error['param']!r}")


@ERRORS.question("messages of a wrong type are a 400 that names them in `param`", why="the same")
def messages_of_a_wrong_type(interview: ConformanceClient) -> None:
    error = error_of(interview.post("chat/completions", {"model": interview.subject.model, "messages": "hi"}), 400)
    expect("messages" in str(error["param"]), f"param {error['param']!r}")


@ERRORS.question("strange JSON is never a 5xx", why="NaN, deep nesting, half a surrogate: each has stopped a server")
def strange_json(interview: ConformanceClient) -> None:
    plain = interview.chat_payload()
    nested = {**plain, "metadata": json.loads("[" * 200 + "]" * 200)}
    bodies = {
        "NaN": json.dumps({**plain, "temperature": float("nan")}).encode(),
        "a lone surrogate": json.dumps(interview.chat_payload("\ud800")).encode(),
        "200 levels": json.dumps(nested).encode(),
        f"{NESTED} levels": b"[" * NESTED + b"]" * NESTED,
    }
    for what, body in bodies.items():
        answer = interview.send("POST", "chat/completions", body)
        expect(answer.status < 500, f"{what}: status {answer.status}: {shown(answer.body)}")


@ERRORS.question("an unknown model is a 404 `model_not_found`", why="agents fall back to another model by this code")
def unknown_model(interview: ConformanceClient) -> None:
    payload = {**interview.chat_payload(), "model": "no-such-model-anywhere"}
    answer = interview.post("chat/completions", payload)
    if answer.status == 200:
        raise CheckSkipped("it answers for any model name")
    error = error_of(answer, 404)
    expect(error["code"] == "model_not_found", f"code {error['code']!r}")


@ERRORS.question("a wrong key is a 401 `invalid_api_key`", why="`AuthenticationError` tells users to look at their key")
def wrong_key(interview: ConformanceClient) -> None:
    if "Authorization" not in interview.subject.headers:
        raise CheckSkipped("without --api-key it is not known whether the server asks for one")
    payload = interview.chat_payload()
    answer = interview.post("chat/completions", payload, {"Authorization": "Bearer sk-wrong"})
    if answer.status == 200:
        raise CheckSkipped("it takes any key")
    error = error_of(answer, 401)
    expect(error["code"] == "invalid_api_key", f"code {error['code']!r}")


@HEADERS.question("an answer has an x-request-id", why="`_request_id` is what users send to support")
def request_id(interview: ConformanceClient) -> None:
    expect(interview.chat_answer.headers.get("x-request-id"), "no x-request-id")


@HEADERS.question("an error has an x-request-id too", why="it is errors that people ask about")
def request_id_of_errors(interview: ConformanceClient) -> None:
    answer = interview.send("POST", "chat/completions", b'{"model": ')
    expect(answer.headers.get("x-request-id"), f"no x-request-id (status {answer.status})")


@HEADERS.question("an event stream has an x-request-id too", why="nothing else finds it in the log")
def request_id_of_streams(interview: ConformanceClient) -> None:
    expect(interview.stream_answer.headers.get("x-request-id"), "no x-request-id")


@HEADERS.question("an answer is compressed only for a client that can take it", why="some read the bytes as they are")
def compression(interview: ConformanceClient) -> None:
    encoding = interview.chat_answer.headers.get("content-encoding", "identity")
    expect(encoding == "identity", f"content-encoding {encoding}, unasked")


@HEADERS.question("a browser's page may call, with the official client's headers", why="the preflight fails otherwise")
def preflight(interview: ConformanceClient) -> None:
    origin = interview.subject.origin
    if origin is None:
        raise CheckSkipped("without --origin it is not known which pages may call")
    wanted = ("authorization", "content-type", "x-stainless-lang", "x-stainless-retry-count")
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    headers["Access-Control-Request-Headers"] = ",".join(wanted)
    answer = interview.send("OPTIONS", "chat/completions", None, headers)
    allowed = answer.headers.get("access-control-allow-headers", "").lower()
    expect(answer.status in {200, 204}, f"status {answer.status}")
    expect(answer.headers.get("access-control-allow-origin") in {origin, "*"}, "the origin is not allowed")
    refused = [name for name in wanted if name not in allowed and allowed != "*"]
    expect(not refused, f"not allowed: {', '.join(refused)}")
    is_open = answer.headers.get("access-control-allow-origin") == "*"
    expect(not is_open or "access-control-allow-credentials" not in answer.headers, "* together with credentials")
