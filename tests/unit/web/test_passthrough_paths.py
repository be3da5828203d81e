"""Paths of the passthrough."""

from __future__ import annotations

import pytest

from openai_compat.web.passthrough_paths import is_own_endpoint, is_served, split_deployment

CHAT_IN_OTHER_WORDS = [
    "chat/completions",
    "chat/completions/",
    "chat//completions",
    "chat%2Fcompletions",
    "chat%252Fcompletions/",
    "chat\\completions",
    "chat/completions;x",
    "chat;x=y/completions",
    "chat/completions%20",
    "chat/completions%00",
    "chat/completions%3Fx",
    "chat/completions.json",
    "Chat/COMPLETIONS",
    "v1/chat/completions",
    "v1/v1/api/v1/openai/chat/completions",
    "openai/deployments/gpt-5/chat/completions",
    "engines/gpt-5/completions",
    "engines/gpt-5/embeddings/",
    "Embeddings",
    "v1/completions",
]


@pytest.mark.parametrize("path", CHAT_IN_OTHER_WORDS)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_another_spelling_of_an_inference_endpoint_is_recognised(method: str, path: str) -> None:
    assert is_own_endpoint(method, path)


@pytest.mark.parametrize("path", ["models/", "Models", "models/x", "v1/models", "%6dodels;x", "v1//models/gpt-5"])
def test_another_spelling_of_the_models_endpoint_is_recognised(path: str) -> None:
    assert is_own_endpoint("GET", path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "chat/completions"),
        ("GET", "chat/completions/chatcmpl-1"),
        ("POST", "chat/completions/chatcmpl-1"),
        ("DELETE", "chat/completions/chatcmpl-1"),
        ("DELETE", "models/ft:mine"),
        ("POST", "responses/resp_1/cancel"),
        ("GET", "responses/resp_1"),
        ("GET", "files/models"),
        ("GET", "v1"),
        ("POST", "audio/transcriptions"),
    ],
)
def test_other_endpoints_of_the_api_are_not_this_servers(method: str, path: str) -> None:
    assert not is_own_endpoint(method, path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("files", True), ("files/x", True), ("filesystem", False), ("FILES", False), ("fine_tuning/jobs/1", True),
     ("fine_tuning", False), ("x/files", False), ("files%2Fx", True)],
)  # fmt: skip
def test_a_prefix_ends_with_a_segment(path: str, expected: bool) -> None:
    assert is_served(path, ("files", "fine_tuning/jobs")) is expected
    assert is_served(path, ("all",))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("deployments/whisper/audio/transcriptions", ("whisper", "audio/transcriptions")),
        ("deployments/org/whisper/audio/speech", ("org/whisper", "audio/speech")),
        ("deployments/dall-e/images/generations", ("dall-e", "images/generations")),
        ("deployments", None),
        ("deployments/x", None),
        ("deployments/x/anything", None),
    ],
)
def test_the_path_of_azure_names_the_model(path: str, expected: tuple[str, str] | None) -> None:
    assert split_deployment(path) == expected
