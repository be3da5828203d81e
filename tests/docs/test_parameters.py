"""The parameter tables in docs/reference/backends.md, compared with the behaviour of a live server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
import requests

from openai_compat.backends.registry import KINDS
from openai_compat.core.profiles import ADAPTED_HEADER, DROPPED
from openai_compat.sidecars.huggingface.models.supported_parameters import SAMPLED
from scripts.parameter_treatment import BY_TEMPLATE, DEPENDS_ON, HUGGINGFACE, LLAMA_CPP, parameters_of, treatment_of
from tests.support.live_server import LiveServer
from tests.support.recording_api import RecordingAPI
from tests.support.tiny_models import PLAIN_TEMPLATE, TOOL_TEMPLATE, save_reciting_model
from tests.support.tools import has_extra

TOOL = {"name": "f", "parameters": {"type": "object", "properties": {}}}
CHAT: dict[str, Any] = {
    "audio": {"voice": "alloy", "format": "mp3"},
    "function_call": "auto",
    "functions": [TOOL],
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "max_completion_tokens": 5,
    "max_tokens": 5,
    "modalities": ["text", "audio"],
    "n": 2,
    "parallel_tool_calls": False,
    "response_format": {"type": "json_object"},
    "stop": ["x"],
    "tool_choice": "auto",
    "tools": [{"type": "function", "function": TOOL}],
    "top_logprobs": 2,
    "web_search_options": {"search_context_size": "low"},
    "frequency_penalty": 0.5,
    "metadata": {"a": "b"},
    "moderation": {"model": "omni-moderation-latest"},
    "prediction": {"type": "content", "content": "x"},
    "presence_penalty": 0.5,
    "prompt_cache_key": "k",
    "prompt_cache_options": {"a": "b"},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "low",
    "safety_identifier": "s",
    "seed": 7,
    "service_tier": "flex",
    "store": True,
    "temperature": 0.5,
    "top_p": 0.5,
    "user": "u",
    "verbosity": "low",
}
LOCAL_KINDS = {HUGGINGFACE, LLAMA_CPP}
REMOTE_KINDS = [kind for kind in KINDS if kind not in LOCAL_KINDS]
each_remote_kind = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.extra(kind)] if kind == "haystack" else []) for kind in REMOTE_KINDS]
)
OWN_VALUES = {
    ("anthropic", "response_format"): {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
}
"""Values where a kind honours a parameter, but not with the one that all others know."""
CURRENT_NAMES = {"functions": "tools", "function_call": "tool_choice"}
"""The names under which backends with a translated request get deprecated parameters."""
COMPLETION: dict[str, Any] = {name: CHAT[name] for name in parameters_of(is_chat=False) if name in CHAT}
COMPLETION |= {"best_of": 2, "echo": True, "logprobs": 2, "suffix": "the end"}
NEEDS = {"top_logprobs": {"logprobs": True}} | {name: {other: CHAT[other]} for name, other in DEPENDS_ON.items()}
ENDPOINTS: dict[bool, tuple[str, dict[str, Any], dict[str, Any]]] = {
    True: ("chat/completions", {"messages": [{"role": "user", "content": "Hello"}]}, CHAT),
    False: ("completions", {"prompt": "Hello"}, COMPLETION),
}


@pytest.fixture(scope="module")
def api() -> Iterator[RecordingAPI]:
    with RecordingAPI("Hello") as api:
        yield api


@pytest.fixture(scope="module")
def server(api: RecordingAPI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Yield a server with a model of each kind, named like its kind."""
    file = tmp_path_factory.mktemp("kinds") / "models.json"
    address = {"base_url": api.url}
    kinds = [kind for kind in REMOTE_KINDS if kind != "haystack" or has_extra(kind)]
    entries = [{"name": kind, "kind": kind, **({} if kind == "echo" else address)} for kind in kinds]
    file.write_text(json.dumps(entries))
    with LiveServer({"MODELS_FILE": str(file), "DATABRICKS_TOKEN": "dapi-1"}) as server:
        yield server


@pytest.mark.parametrize("is_chat", [True, False], ids=["chat", "completions"])
@each_remote_kind
def test_parameters_are_treated_as_documented(kind: str, is_chat: bool, server: LiveServer, api: RecordingAPI) -> None:
    path, body, values = ENDPOINTS[is_chat]
    for parameter in parameters_of(is_chat=is_chat):
        needed = NEEDS.get(parameter, {}) if is_chat else {}
        value = OWN_VALUES.get((kind, parameter), values[parameter])
        sent = {"model": kind, **body, **needed, parameter: value}
        reply = requests.post(f"{server.base_url}/{path}", json=sent, timeout=10)
        observed = _observed_treatment(reply, parameter, set(needed), api.bodies)
        documented = treatment_of(kind, parameter, is_chat=is_chat)
        is_accepted = documented in {"supported", "ignored"} and observed in {"accepted", "forwarded"}
        assert is_accepted or observed == documented, f"{parameter}: {reply.text}"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Yield a server with two local models. Only the chat template of `tools` supports tools."""
    folder = tmp_path_factory.mktemp("local")
    templates = {"plain": PLAIN_TEMPLATE, "tools": TOOL_TEMPLATE}
    folders = {name: save_reciting_model(folder / name, template) for name, template in templates.items()}
    entries = [{"name": name, "hf_repo": str(weights), "device": "cpu"} for name, weights in folders.items()]
    (folder / "models.json").write_text(json.dumps(entries))
    with LiveServer({"MODELS_FILE": str(folder / "models.json"), "OMP_NUM_THREADS": "1"}) as server:
        yield server


@pytest.mark.extra("local")
@pytest.mark.parametrize("is_chat", [True, False], ids=["chat", "completions"])
@pytest.mark.parametrize("model", ["plain", "tools"])
def test_parameters_of_local_models_are_treated_as_documented(model: str, is_chat: bool, local: LiveServer) -> None:
    path, body, values = ENDPOINTS[is_chat]
    for parameter in parameters_of(is_chat=is_chat):
        needed = NEEDS.get(parameter, {}) if is_chat else {}
        sent = {"model": model, "max_tokens": 4, "seed": 1, **body, **needed, parameter: _for_bytes(values[parameter])}
        reply = requests.post(f"{local.base_url}/{path}", json=sent, timeout=60)
        documented = treatment_of(HUGGINGFACE, parameter, is_chat=is_chat)
        expected = {BY_TEMPLATE: "accepted" if model == "tools" else DROPPED, "rejected": "rejected"}
        assert _observed_treatment(reply, parameter, set(needed), []) == expected.get(documented, "accepted"), parameter


@pytest.mark.extra("local")
def test_the_documented_sampling_parameters_are_those_of_the_sampler() -> None:
    from openai_compat.sidecars.huggingface.models.sampling import SamplingOptions

    assert {option.name for option in fields(SamplingOptions)} - {"logit_bias", "top_logprobs"} == SAMPLED


def _for_bytes(value: Any) -> Any:
    """Return the value with a token of the test models, whose vocabulary is the bytes."""
    return {"1": -100} if value == CHAT["logit_bias"] else value


def _observed_treatment(
    reply: requests.Response, parameter: str, needed: set[str], bodies: list[dict[str, Any]]
) -> str:
    received = bodies.pop() if bodies else {}
    if reply.status_code == 501:
        return "no endpoint"
    if reply.status_code == 200:
        adapted = dict(part.split("=") for part in reply.headers.get(ADAPTED_HEADER, "").split(", ") if part)
        if parameter in adapted:
            assert parameter not in received
            return DROPPED if adapted[parameter] == DROPPED else f"as `{adapted[parameter]}`"
        return "forwarded" if {parameter, CURRENT_NAMES.get(parameter)} & received.keys() else "accepted"
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (400, "unsupported_parameter"), f"{parameter}: {reply.text}"
    assert error["param"] in {parameter, *needed, DEPENDS_ON.get(parameter)}
    return "rejected"
