"""Configuration of models of kind llama_cpp, and what their requests and refusals become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openai_compat.backends.http.messages import UpstreamRequest
from openai_compat.backends.llama_cpp.model_options import LlamaCppModel
from openai_compat.backends.llama_cpp.request import adapt, drop_tools, offer_tools, read_refusal
from openai_compat.backends.local.engine_config import EngineConfig, to_engine_config
from openai_compat.core.errors import (
    ContextLengthExceededError,
    InvalidRequestError,
    NotFoundError,
    UnsupportedParameterError,
    UpstreamStatusError,
)
from openai_compat.core.types import CallContext
from tests.unit.backends.huggingface.test_backend import load, problems

GGUF = {"kind": "llama_cpp", "gguf_file": "./a.gguf"}
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("add", "divide")]


class Refusal:
    def __init__(self, status: int, error: dict[str, Any]) -> None:
        self.status = status
        self.body = json.dumps({"error": error}).encode()

    def read(self) -> bytes:
        return self.body


def adapted(
    path: str = "chat/completions", *, reads_media: bool = False, **parameters: Any
) -> tuple[dict[str, Any], bool]:
    """Return the request for llama.cpp, and True if it has tools to call."""
    request = UpstreamRequest("POST", path, {}, json.dumps(parameters).encode())
    call, content = adapt(request, "m", reads_media=reads_media, slots=4)
    if content is not None:
        call = offer_tools(call, content, "m")
    assert isinstance(call.body, bytes)
    return json.loads(call.body), content is not None


def choice_of(name: str, *, mode: str | None = None) -> dict[str, Any]:
    """Return the choice of one tool, or with a mode that of a list with one tool."""
    named = {"type": "function", "function": {"name": name}}
    return named if mode is None else {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named]}}


def test_every_invalid_key_of_an_entry_is_reported(tmp_path: Path) -> None:
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "a": ({"gguf_file": None}, "needs a `gguf_file`"),
        "b": ({"threads": 0}, "threads must be a whole number, 1 or more"),
        "c": ({"gpu_layers": -1}, "gpu_layers must be a whole number, 0 or more"),
        "d": ({"pooling": "max"}, "pooling must be one of none, mean, cls, last, rank"),
        "e": ({"mmproj_file": ""}, "mmproj_file must be a non-empty string"),
        "f": ({"capabilities": ["chat", "embeddings"]}, "either embeddings or text"),
        "g": ({"chat_template_file": 1}, "chat_template_file must be a string"),
        "h": ({"base_url": "http://elsewhere/v1"}, "kind llama_cpp runs here"),
        "i": ({"max_batch": 0}, "max_batch must be a whole number, 1 or more"),
        "j": ({"dtype": "float32"}, "dtype"),
    }
    found = problems(tmp_path, [{"name": name, **GGUF, **keys} for name, (keys, _) in wrong.items()]).splitlines()
    for name, (_, word) in wrong.items():
        assert any(problem.startswith(f"model '{name}'") and word in problem for problem in found), name
    assert len(found) == len(wrong)


def test_models_of_both_kinds_share_one_engine(tmp_path: Path) -> None:
    entries = [{"name": "packed", **GGUF, "threads": 2}, {"name": "writer", "hf_repo": "org/name"}]
    config = to_engine_config(load(tmp_path, entries, PRELOAD_MODELS="packed,writer", MAX_CONTEXT_TOKENS="512"))
    assert EngineConfig.from_json(config.to_json()) == config
    packed, writer = config.models
    assert (packed.kind, writer.kind, config.preload) == ("llama_cpp", "huggingface", ("packed", "writer"))
    assert packed.default_context_tokens == 512
    paths = {config.socket_path(tmp_path, name).name for name in ("packed", "writer")}
    assert len(paths) == 2


def test_the_hub_gets_asked_for_every_part_of_a_model() -> None:
    split = LlamaCppModel(name="a", hf_repo="org/name", gguf_file="q4/m-00001-of-00003.gguf", mmproj_file="mm.gguf")
    assert split.hub_files == ("q4/m-*-of-00003.gguf", "mm.gguf")


@pytest.mark.parametrize(
    ("choice", "mode"),
    [
        (choice_of("divide"), "required"),
        (choice_of("divide", mode="required"), "required"),
        (choice_of("divide", mode="auto"), "auto"),
    ],
)
def test_a_choice_of_certain_tools_offers_only_these(choice: Any, mode: str) -> None:
    body, has_tools = adapted(model="m", tools=TOOLS, tool_choice=choice)
    assert (body, has_tools) == ({"model": "m", "tools": [TOOLS[1]], "tool_choice": mode}, True)


def test_a_choice_of_an_unknown_tool_is_the_clients_error() -> None:
    with pytest.raises(InvalidRequestError, match="there is no tool 'open'") as refusal:
        adapted(tools=TOOLS, tool_choice=choice_of("open"))
    assert refusal.value.param == "tool_choice"


def test_images_and_audio_need_a_projector() -> None:
    """llama.cpp answers with 500, which would be repeated and held against the model."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}]
    with pytest.raises(InvalidRequestError, match="needs `mmproj_file`") as refusal:
        adapted(messages=messages)
    assert refusal.value.param == "messages[0].content[1]"
    call = UpstreamRequest("POST", "chat/completions", {}, json.dumps({"messages": messages}).encode())
    assert adapt(call, "m", reads_media=True, slots=4) == (call, None)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}},
        {"type": "image_url", "image_url": {"url": " HTTPS://example.com/a.png", "detail": "low"}},
        {"type": "image_url", "image_url": "file:///etc/passwd"},
        {"type": "input_audio", "input_audio": {"data": "http://127.0.0.1/a.wav", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "http://127.0.0.1/a.mp4"}},
    ],
)
def test_llama_cpp_fetches_no_address_that_a_request_names(part: dict[str, Any]) -> None:
    text = {"type": "text", "text": "https://example.com shows"}
    with pytest.raises(InvalidRequestError, match="fetches no addresses") as refusal:
        adapted(reads_media=True, messages=[{"role": "user", "content": [text, part]}])
    assert refusal.value.param == "messages[0].content[1]"


@pytest.mark.parametrize(
    ("path", "parameters", "param"),
    [
        ("chat/completions", {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ("chat/completions", {"n_probs": 50_000}, "n_probs"),
        ("completions", {"logprobs": 21}, "logprobs"),
        ("chat/completions", {"n": 5}, "n"),
        ("completions", {"prompt": ["a"] * 5}, "prompt"),
        ("completions", {"prompt": [[1], [2]], "n": 3}, "prompt"),
        ("completions", {"prompt": ["a", "b"], "n_cmpl": 3}, "prompt"),
        ("chat/completions", {"n": 5.0}, "n"),
        ("chat/completions", {"logprobs": True, "top_logprobs": 1e5}, "top_logprobs"),
        ("chat/completions", {"repeat_last_n": 2**31 - 1, "repeat_penalty": 1.1}, "repeat_last_n"),
        ("completions", {"dry_penalty_last_n": 2**31 - 1, "dry_multiplier": 1}, "dry_penalty_last_n"),
    ],
)
def test_one_call_takes_no_more_than_its_lease(path: str, parameters: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        adapted(path, **parameters)
    assert refusal.value.param == param


def test_what_fits_into_a_lease_is_not_changed() -> None:
    for parameters in (
        {"prompt": ["a"] * 4, "logprobs": 5},
        {"prompt": [1, 2, 3, 4, 5], "n": 4},
        {"prompt": ["a", *range(9)]},
    ):
        assert adapted("completions", **parameters) == (parameters, False)


def test_log_probabilities_without_alternatives_are_not_lost() -> None:
    for parameters in ({"logprobs": True}, {"logprobs": True, "top_logprobs": 0}):
        assert adapted(**parameters) == ({"logprobs": True, "top_logprobs": 1}, False)
    assert adapted(logprobs=True, top_logprobs=3)[0]["top_logprobs"] == 3


@pytest.mark.parametrize("path", ["chat/completions/input_tokens", "chat/completions/", "infill", "../props"])
def test_other_endpoints_of_llama_cpp_cannot_be_reached(path: str) -> None:
    """They read media, too."""
    with pytest.raises(NotFoundError):
        adapted(path, reads_media=True, messages=[])


@pytest.mark.parametrize("body", [b"[1]", b"{", b"\xff", iter((b"{}",))])
def test_a_body_that_cannot_be_checked_is_refused(body: Any) -> None:
    with pytest.raises(InvalidRequestError):
        adapt(UpstreamRequest("POST", "chat/completions", {}, body), "m", reads_media=True, slots=4)


def test_a_refusal_in_the_history_is_a_text() -> None:
    parts = [{"type": "refusal", "refusal": "Sorry: no"}, {"type": "text", "text": "http://example.com"}]
    messages = {"messages": [{"role": "assistant", "content": parts}]}
    assert adapted(reads_media=True, **messages) == (messages, False)


def test_a_call_in_the_history_that_was_cut_is_the_clients_error() -> None:
    """llama.cpp answers with 500, which opens the circuit for everyone."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"city":'}}
    with pytest.raises(InvalidRequestError, match="not valid JSON") as refusal:
        adapted(messages=[{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [call]}])
    assert refusal.value.param == "messages[1].tool_calls[0].function.arguments"


@pytest.mark.parametrize(
    ("parameters", "has_tools"),
    [
        ({"tools": TOOLS}, True),
        ({"tools": TOOLS, "tool_choice": "required"}, True),
        ({"tools": TOOLS, "tool_choice": "none"}, False),
        ({"tools": []}, False),
        ({"messages": [{"role": "user", "content": 'the word "tools"'}]}, False),
        ({"messages": ["a", {"content": ["a", {"type": 1}], "tool_calls": [1, {"function": 2}]}], "n": "2"}, False),
    ],
)
def test_other_requests_are_not_changed(parameters: dict[str, Any], *, has_tools: bool) -> None:
    assert adapted(**parameters) == (parameters, has_tools)


def test_tools_that_the_template_would_ignore_are_dropped_and_listed() -> None:
    content: Any = {"model": "m", "tools": TOOLS, "tool_choice": "auto"}
    context = CallContext("a")
    call = drop_tools(UpstreamRequest("POST", "chat/completions", {}, b""), content, "m", context)
    assert call.body == b'{"model": "m"}'
    assert context.reply_headers == {"x-openai-compat-adapted": "tools=dropped, tool_choice=dropped"}
    drop_tools(call, {**content, "tool_choice": choice_of("add", mode="auto")}, "m", context)
    for choice in ("required", choice_of("add"), choice_of("add", mode="required")):
        with pytest.raises(UnsupportedParameterError) as refusal:
            drop_tools(call, {**content, "tool_choice": choice}, "m", context)
        assert refusal.value.param == "tool_choice"


def test_functions_that_the_template_would_ignore_are_dropped_and_listed() -> None:
    parameters: Any = {"model": "m", "functions": [{"name": "add"}], "function_call": "auto"}
    call = UpstreamRequest("POST", "chat/completions", {}, json.dumps(parameters).encode())
    call, content = adapt(call, "m", reads_media=False, slots=4)
    assert content is not None
    context = CallContext("a")
    assert drop_tools(call, content, "m", context).body == b'{"model": "m"}'
    assert context.reply_headers == {"x-openai-compat-adapted": "functions=dropped, function_call=dropped"}
    with pytest.raises(UnsupportedParameterError) as refusal:
        drop_tools(call, {**content, "function_call": {"name": "add"}}, "m", context)
    assert refusal.value.param == "function_call"


@pytest.mark.parametrize(
    ("path", "parameters", "name"),
    [
        ("chat/completions", {"functions": [{"name": "add"}]}, "functions"),
        ("chat/completions", {"tools": [{"type": "custom", "custom": {"name": "add"}}]}, "tools"),
        ("completions", {"prompt": "a", "echo": True}, "echo"),
        ("completions", {"prompt": "a", "suffix": "b"}, "suffix"),
        ("completions", {"prompt": "a", "n": 2, "best_of": 3}, "best_of"),
    ],
)
def test_what_llama_cpp_would_ignore_is_refused(path: str, parameters: dict[str, Any], name: str) -> None:
    with pytest.raises(UnsupportedParameterError) as refusal:
        adapted(path, **parameters)
    assert refusal.value.param == name


def test_defaults_of_parameters_that_llama_cpp_ignores_are_accepted() -> None:
    parameters = {"prompt": "a", "echo": False, "suffix": None, "n": 2, "best_of": 2}
    assert adapted("completions", **parameters) == (parameters, False)


def test_a_prompt_that_is_too_long_gets_the_error_of_openai() -> None:
    error: Any = {"code": 400, "message": "exceeds", "n_prompt_tokens": 3031, "n_ctx": 2048}
    too_long = read_refusal(Refusal(400, error))  # type: ignore[arg-type]
    assert isinstance(too_long, ContextLengthExceededError)
    assert too_long.message == "prompt is too long: 3031 tokens > 2048 maximum"
    other = read_refusal(Refusal(400, {"code": 400, "message": "bad grammar"}))  # type: ignore[arg-type]
    assert isinstance(other, UpstreamStatusError)
    assert (other.upstream_status, other.message) == (400, "bad grammar")
