"""Passthrough with a models file: which upstream gets a request, under which name, and what is refused."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.live_server import LiveServer
from tests.support.raw_server import RawServer, read_request

KEY = "sk-of-the-default-upstream"


@dataclass(frozen=True)
class Received:
    """One request as an upstream received it."""

    line: str
    headers: dict[str, str]
    body: bytes


class Upstream:
    """An upstream that records its requests and answers with its own name."""

    def __init__(self, name: str) -> None:
        self.received: list[Received] = []
        self._body = json.dumps(
            {"upstream": name, "text": name, "id": "x", "object": "response", "output": []}
        ).encode()
        self.server = RawServer(self._answer)
        self._lock = threading.Lock()

    def _answer(self, client: socket.socket) -> None:
        head, _, body = read_request(client).partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (text.partition(": ") for text in lines)}
        with self._lock:
            self.received.append(Received(line, headers, body))
        client.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(self._body)
        )
        client.sendall(self._body)

    def last(self) -> Received:
        (request,) = self.received
        return request


@dataclass(frozen=True)
class Setup:
    server: LiveServer
    public: Upstream
    private: Upstream

    def send(
        self, path: str, body: Any = None, method: str = "POST", headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Return the status and the JSON of the answer."""
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        connection.request(method, path, content, {"Content-Type": "application/json", **(headers or {})})
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        return response.status, answer

    def is_untouched(self) -> bool:
        """Return True if no upstream received anything."""
        return not self.public.received and not self.private.received


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    public, private = Upstream("public"), Upstream("private")
    with public.server, private.server:
        models = [
            {"name": "private", "kind": "openai", "base_url": f"{private.server.url}/v1",
             "upstream_model": "vendor/private", "api_key_env": "PRIVATE_KEY"},
            {"name": "echo", "kind": "echo"},
            {"name": "routed", "kind": "echo", "fallbacks": ["private"]},
            {"name": "hooked", "kind": "openai", "base_url": f"{private.server.url}/v1",
             "hooks": {"before_request": "json:dumps"}},
        ]  # fmt: skip
        path = tmp_path_factory.mktemp("models") / "models.json"
        path.write_text(json.dumps(models))
        environment = {
            "OPENAI_BASE_URL": f"{public.server.url}/v1",
            "OPENAI_API_KEY": KEY,
            "PRIVATE_KEY": "sk-private",
            "MODELS_FILE": str(path),
            "MODEL_ALLOW_LIST": "private, echo, routed, hooked, gpt-5, whisper-1",
            "MAX_REQUEST_BYTES": "200000",
        }
        with LiveServer(environment) as server:
            yield Setup(server, public, private)


@pytest.fixture
def setup(running: Setup) -> Setup:
    running.public.received.clear()
    running.private.received.clear()
    return running


ROOTS = ["/v1", "/api/v1", "/openai/v1", "/openai", ""]


@pytest.mark.parametrize("root", ROOTS)
def test_a_configured_model_is_asked_at_its_own_upstream(setup: Setup, root: str) -> None:
    status, answer = setup.send(f"{root}/moderations?a=b", {"model": "private", "input": "secret"})
    assert (status, answer["upstream"]) == (200, "private")
    request = setup.private.last()
    assert request.line == "POST /v1/moderations?a=b HTTP/1.1"
    assert json.loads(request.body) == {"model": "vendor/private", "input": "secret"}
    assert request.headers["authorization"] == "Bearer sk-private"
    assert not setup.public.received


@pytest.mark.parametrize("root", ROOTS)
def test_another_allowed_model_goes_to_the_default_upstream(setup: Setup, root: str) -> None:
    body = b'{"model":  "gpt-5", "input": "\xc3\xa9"}'
    assert setup.send(f"{root}/moderations", body)[1]["upstream"] == "public"
    request = setup.public.last()
    assert (request.body, request.headers["authorization"]) == (body, f"Bearer {KEY}")


@pytest.mark.parametrize("root", ROOTS)
def test_a_model_outside_the_allow_list_is_a_404(setup: Setup, root: str) -> None:
    status, answer = setup.send(f"{root}/moderations", {"model": "gpt-5-pro", "input": "x"})
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    assert setup.is_untouched()


def test_a_model_of_another_protocol_is_a_501(setup: Setup) -> None:
    status, answer = setup.send("/v1/moderations", {"model": "echo", "input": "x"})
    assert (status, answer["error"]["code"]) == (501, "endpoint_not_available")
    assert "use /v1/chat/completions" in answer["error"]["message"]
    assert setup.is_untouched()


def test_a_model_with_a_hook_is_a_501(setup: Setup) -> None:
    status, answer = setup.send("/v1/moderations", {"model": "hooked", "input": "x"})
    assert (status, answer["error"]["code"]) == (501, "hook_not_available")
    assert setup.is_untouched()


def test_the_first_target_of_the_protocol_is_asked(setup: Setup) -> None:
    assert setup.send("/v1/moderations", {"model": "routed", "input": "x"})[1]["upstream"] == "private"
    assert json.loads(setup.private.last().body)["model"] == "vendor/private"


def test_a_request_without_a_model_goes_to_the_default_upstream(setup: Setup) -> None:
    assert setup.send("/v1/files/f?purpose=batch", method="GET")[1]["upstream"] == "public"
    assert setup.public.last().line == "GET /v1/files/f?purpose=batch HTTP/1.1"


def test_a_model_in_the_query_counts(setup: Setup) -> None:
    assert setup.send("/v1/things?model=private&x=1", b"v=0", headers={"Content-Type": "application/sdp"})[0] == 200
    assert setup.private.last().line == "POST /v1/things?model=vendor%2Fprivate&x=1 HTTP/1.1"
    assert setup.send("/v1/things?model=gpt-5-pro", method="GET")[0] == 404
    assert setup.send("/v1/things?%6dodel=gpt-5-pro", method="GET")[0] == 404
    assert setup.send("/v1/things?model=gpt-5", {"model": "private"})[0] == 400
    assert not setup.public.received


def test_a_model_that_is_deleted_must_be_allowed(setup: Setup) -> None:
    assert setup.send("/v1/models/ft:other", method="DELETE")[0] == 404
    assert setup.is_untouched()
    assert setup.send("/v1/models/gpt-5", method="DELETE")[1]["upstream"] == "public"


SPELLINGS = [
    "/v1/v1/chat/completions",
    "/v1/chat/completions;x",
    "/v1/chat/completions%20",
    "/v1/chat%252Fcompletions",
    "/v1/Chat/Completions",
    "/v1//chat/completions",
    "/V1/chat/completions",
    "/api/v1/v1/completions",
    "/openai/chat/completions",
    "/openai/v1/embeddings/.",
    "/openai/deployments/private/chat/completions;x",
    "/chat/completions;x",
]


@pytest.mark.parametrize("path", SPELLINGS)
def test_another_spelling_of_an_endpoint_is_a_404(setup: Setup, path: str) -> None:
    status, answer = setup.send(path, {"model": "private", "messages": [{"role": "user", "content": "secret"}]})
    assert (status, answer["error"]["code"]) == (404, "unknown_url")
    assert setup.is_untouched()


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "/chat/completions/", "/v1/chat%2Fcompletions"])
def test_a_slash_at_the_end_is_ignored(setup: Setup, path: str) -> None:
    status, answer = setup.send(path, {"model": "echo", "messages": [{"role": "user", "content": "hello"}]})
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "hello")


@pytest.mark.parametrize("path", ["/v1/Models", "/v1/v1/models", "/v1/models;x", "/openai/MODELS/gpt-5-pro"])
def test_another_spelling_of_the_models_is_a_404(setup: Setup, path: str) -> None:
    assert setup.send(path, method="GET")[0] == 404
    assert setup.is_untouched()


def test_the_list_of_models_ignores_a_slash_at_the_end(setup: Setup) -> None:
    status, answer = setup.send("/v1/models/", method="GET")
    assert status == 200
    assert "private" in {model["id"] for model in answer["data"]}


def test_a_duplicate_key_cannot_name_a_second_model(setup: Setup) -> None:
    assert setup.send("/v1/moderations", b'{"model": "gpt-5", "model": "gpt-5-pro"}')[0] == 400
    assert setup.send("/v1/moderations", b' {"model": "gpt-5-pro"}', headers={"Content-Type": "text/plain"})[0] == 404
    assert setup.is_untouched()


def test_a_compressed_body_is_judged_as_well(setup: Setup) -> None:
    encoded = {"Content-Encoding": "gzip"}
    assert setup.send("/v1/moderations", gzip.compress(b'{"model": "gpt-5-pro"}'), headers=encoded)[0] == 404
    body = gzip.compress(b'{"model": "gpt-5"}')
    assert setup.send("/v1/moderations", body, headers=encoded)[0] == 200
    assert (setup.public.last().body, setup.public.last().headers["content-encoding"]) == (body, "gzip")
    status, answer = setup.send("/v1/moderations", b"xyz", headers={"Content-Encoding": "br"})
    assert status == 415
    assert "'br'" in answer["error"]["message"]


def test_an_azure_client_reaches_the_responses(setup: Setup) -> None:
    with openai.AzureOpenAI(azure_endpoint=setup.server.url, api_key="any", api_version="2025-04-01") as client:
        client.responses.create(model="private", input="hello")
    request = setup.private.last()
    assert request.line == "POST /v1/responses HTTP/1.1"
    assert json.loads(request.body)["model"] == "vendor/private"


@pytest.mark.parametrize("model", ["private", "whisper-1"])
def test_an_azure_client_transcribes(setup: Setup, model: str) -> None:
    file = io.BytesIO(b"\x00\xff" * 1000)
    with openai.AzureOpenAI(azure_endpoint=setup.server.url, api_key="any", api_version="2025-04-01") as client:
        answer = client.audio.transcriptions.create(model=model, file=("a.mp3", file))
    upstream = setup.private if model == "private" else setup.public
    assert answer.text == ("private" if model == "private" else "public")
    request = upstream.last()
    assert request.line == "POST /v1/audio/transcriptions HTTP/1.1"
    assert (b"vendor/private" in request.body) is (model == "private")
    assert b"\x00\xff" * 1000 in request.body


BOUNDARY = {"Content-Type": "multipart/form-data; boundary=bound"}
FILE = b'--bound\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"\x00\xff" * 40_000 + b"\r\n"
END = b"--bound--\r\n"


def field(value: bytes) -> bytes:
    return b'--bound\r\nContent-Disposition: form-data; name="model"\r\n\r\n' + value + b"\r\n"


@pytest.mark.parametrize("is_first", [True, False], ids=["before the file", "after the file"])
def test_the_model_of_a_form_is_judged(setup: Setup, is_first: bool) -> None:
    def form(model: bytes) -> bytes:
        return (field(model) + FILE if is_first else FILE + field(model)) + END

    assert setup.send("/v1/audio/transcriptions", form(b"gpt-5-pro"), headers=BOUNDARY)[0] == 404
    assert setup.is_untouched()
    status, answer = setup.send("/v1/audio/transcriptions", form(b"private"), headers=BOUNDARY)
    assert (status, answer.get("upstream")) == (200, "private"), answer
    assert setup.private.last().body == form(b"vendor/private")
    status, answer = setup.send("/v1/audio/transcriptions", form(b"whisper-1"), headers=BOUNDARY)
    assert (status, answer.get("upstream")) == (200, "public"), answer
    assert setup.public.last().body == form(b"whisper-1")


def test_a_large_file_before_the_model_is_a_413(setup: Setup) -> None:
    large = FILE.replace(b"\x00\xff", b"\x00" * 10)
    status, answer = setup.send("/v1/audio/transcriptions", large + field(b"whisper-1") + END, headers=BOUNDARY)
    assert (status, answer["error"]["param"]) == (413, "model")
    assert "Send it before the file" in answer["error"]["message"]
    assert setup.send("/v1/audio/transcriptions", field(b"whisper-1") + large + END, headers=BOUNDARY)[0] == 200


def test_a_large_upload_without_a_model_is_streamed(setup: Setup) -> None:
    large = FILE.replace(b"\x00\xff", b"\x00" * 100) + END
    assert setup.send("/v1/files", large, headers=BOUNDARY)[1]["upstream"] == "public"
    assert setup.public.last().body == large


def test_a_late_model_of_another_upstream_is_refused_where_files_are_streamed(setup: Setup) -> None:
    for model in (b"private", b"gpt-5-pro"):
        form = FILE.replace(b"\x00\xff", b"\x00" * 100) + field(model) + END
        assert setup.send("/v1/files", form, headers=BOUNDARY)[0] in {400, 404}
    assert setup.is_untouched()


def test_azures_path_names_the_model_of_a_form_without_one(setup: Setup) -> None:
    path = "/openai/deployments/private/audio/translations?api-version=1&x=y"
    assert setup.send(path, FILE + END, headers=BOUNDARY)[1]["upstream"] == "private"
    request = setup.private.last()
    assert request.line == "POST /v1/audio/translations?x=y HTTP/1.1"
    assert request.body == field(b"vendor/private") + FILE + END


def test_azures_path_names_a_model_that_is_not_allowed(setup: Setup) -> None:
    body = {"model": "gpt-5", "input": "x"}
    assert setup.send("/openai/deployments/gpt-5-pro/audio/speech", body)[0] == 404
    assert setup.send("/openai/deployments/gpt-5/anything", body)[0] == 404
    assert setup.is_untouched()


def test_an_unknown_path_without_a_prefix_is_a_404(setup: Setup) -> None:
    assert setup.send("/favicon.ico", method="GET")[0] == 404
    assert setup.is_untouched()


def test_the_passthrough_can_be_limited(tmp_path: Path) -> None:
    public = Upstream("public")
    environment = {"OPENAI_BASE_URL": f"{public.server.url}/v1", "PASSTHROUGH": "files, fine_tuning/jobs"}
    with public.server, LiveServer(environment) as server:
        limited = Setup(server, public, public)
        for path in ("/v1/files", "/files/x/content", "/openai/fine_tuning/jobs"):
            assert limited.send(path, method="GET")[0] == 200
        served = len(public.received)
        for path in ("/v1/moderations", "/v1/filesystem", "/fine_tuning", "/v1/x/files"):
            assert limited.send(path, {"input": "x"})[1]["error"]["code"] == "unknown_url"
        assert len(public.received) == served


def test_the_passthrough_can_be_turned_off() -> None:
    public = Upstream("public")
    with public.server, LiveServer({"OPENAI_BASE_URL": f"{public.server.url}/v1", "PASSTHROUGH": "none"}) as server:
        assert Setup(server, public, public).send("/v1/files", method="GET")[0] == 404
        assert not public.received


def test_a_configured_model_needs_no_default_upstream(tmp_path: Path) -> None:
    private = Upstream("private")
    models = [{"name": "private", "kind": "openai", "base_url": f"{private.server.url}/v1"}]
    (tmp_path / "models.json").write_text(json.dumps(models))
    with private.server, LiveServer({"MODELS_FILE": str(tmp_path / "models.json")}) as server:
        setup = Setup(server, private, private)
        assert setup.send("/v1/moderations", {"model": "private"})[0] == 200
        assert setup.send("/v1/moderations", {"model": "other"})[1]["error"]["code"] == "model_not_found"
        assert setup.send("/v1/files", method="GET")[1]["error"]["code"] == "unknown_url"
