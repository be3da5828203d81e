"""Third-party code that uses former import paths and names."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from openai_compat.backends import base
from openai_compat.backends.auth.base import Credentials
from openai_compat.backends.http.client import UpstreamClient
from openai_compat.backends.resources import BackendResources
from openai_compat.core import former_names
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.concurrency import ConcurrencyLimiter
from openai_compat.core.errors import OverloadedError
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.timeouts import Timeouts
from openai_compat.core.types import CallContext
from tests.support.snippets import plain_environment
from tests.support.tools import ROOT

# The first example of docs/extending.md, as it stood in that page.
SHOUTING = '''\
from collections.abc import Iterator
from dataclasses import dataclass

from openai_compat.backends.base import Backend, SupportsChat
from openai_compat.domain import CallContext, ChatDelta, ChatRequest


@dataclass(frozen=True)
class ShoutingOptions:
    mark: str = "!"


class ShoutingBackend(Backend, SupportsChat):
    """Says what the user said, louder."""

    Options = ShoutingOptions

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta]:
        for word in str(request.messages[-1]["content"]).upper().split():
            yield ChatDelta(content=word + self.options.mark + " ")
        yield ChatDelta(finish_reason="stop")
'''

# What the rules of that page named: promises, problems among rows, silence.
PATIENT = """\
from openai_compat.backends.base import Backend, SupportsChat, SupportsCompletions
from openai_compat.domain import ChatDelta, TextDelta
from openai_compat.streams import SILENCE


class PatientBackend(Backend, SupportsChat, SupportsCompletions):
    chat_promises = frozenset({"n"})
    completion_promises = frozenset({"stop"})

    @classmethod
    def find_problems(cls, entry, options, settings):
        return ["is wrong"] if entry.name == "wrong" else []

    @classmethod
    def problems_among(cls, entry, settings, entries):
        return [] if "loud" in entries else ["needs the model loud"]

    def chat(self, request, context):
        yield SILENCE
        for choice in range(request.parameters["n"]):
            yield ChatDelta(index=choice, content=f"{context.silence_seconds:g}")
            yield ChatDelta(index=choice, finish_reason="stop")

    def complete(self, request, context):
        yield TextDelta(text="x", finish_reason="stop")
"""

# The example of a rate limit from that page, with `PayloadError` beside it.
LIMITS = """\
import time
from collections import defaultdict, deque

from openai_compat.errors import PayloadError, RateLimitedError

CALLS, SECONDS = 1, 60
answered = defaultdict(deque)


def limit(request, call):
    if request.get("user") == "stranger":
        raise PayloadError("No such team.")
    now, times = time.monotonic(), answered[call.header("authorization")]
    while times and times[0] < now - SECONDS:
        times.popleft()
    if len(times) >= CALLS:
        raise RateLimitedError(f"{CALLS} calls a minute are enough.", retry_after=int(times[0] + SECONDS - now) + 1)
    times.append(now)
"""

MODELS = [
    {"name": "loud", "kind": "shouting:ShoutingBackend", "mark": "!!"},
    {"name": "patient", "kind": "patient:PatientBackend"},
    {"name": "limited", "kind": "echo", "hooks": {"before_request": "limits:limit"}},
]
PROGRAM = """\
import json, sys
from openai_compat import create_app
from openai_compat.core.errors import ConfigurationError
try:
    client = create_app().test_client()
except ConfigurationError as error:
    sys.exit(error.message)
def ask(model, **keys):
    body = {"model": model, "messages": [{"role": "user", "content": "hello there"}], **keys}
    reply = client.post("/v1/chat/completions", json=body)
    content = reply.get_json()
    return [reply.status_code, [choice["message"]["content"] for choice in content["choices"]] if "choices" in content
            else content["error"]["message"]]
print(json.dumps([
    ask("loud"), ask("patient", n=2), ask("patient", stop="x"),
    ask("limited", user="stranger"), ask("limited"), ask("limited"),
]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {"shouting.py": SHOUTING, "patient.py": PATIENT, "limits.py": LIMITS}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def run(folder: Path, models: list[dict[str, object]]) -> subprocess.CompletedProcess[str]:
    (folder / "models.json").write_text(json.dumps(models))
    path = f"{ROOT}:{folder}"
    environment = plain_environment({"PYTHONPATH": path, "MODELS_FILE": "models.json"})
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, env=environment, capture_output=True, text=True, timeout=50
    )


def test_backends_and_hooks_with_former_names_work(folder: Path) -> None:
    done = run(folder, MODELS)
    assert done.returncode == 0, done.stderr
    loud, patient, refused, stranger, first, second = json.loads(done.stdout)
    assert loud == [200, ["HELLO!! THERE!! "]]
    assert patient == [200, ["0", "0"]]
    assert refused == [400, "Unsupported parameter: 'stop' is not supported with the model 'patient'."]
    assert stranger == [400, "No such team."]
    assert (first[0], second) == (200, [429, "1 calls a minute are enough."])


def test_problems_that_former_methods_find_are_reported(folder: Path) -> None:
    alone = run(folder, MODELS[1:2])
    assert "model 'patient': needs the model loud" in alone.stderr
    wrong = run(folder, [*MODELS, {"name": "wrong", "kind": "patient:PatientBackend"}])
    assert "model 'wrong': is wrong" in wrong.stderr


@pytest.mark.parametrize(
    ("former", "present"),
    [
        ("openai_compat.domain:ChatDelta", "openai_compat.core.types:ChatDelta"),
        ("openai_compat.errors:UpstreamError", "openai_compat.core.errors:UpstreamError"),
        *(
            (f"openai_compat.errors:{name}", f"openai_compat.core.errors:{former_names.NAMES[name]}")
            for name in former_names.NAMES
            if name.endswith("Error")
        ),
        ("openai_compat.streams:SILENCE", "openai_compat.core.streams:HEARTBEAT"),
        ("openai_compat.streams:Silence", "openai_compat.core.streams:Heartbeat"),
        ("openai_compat.streams:Pending", "openai_compat.core.streams:BackgroundStart"),
        ("openai_compat.backends.upstream:Forwarder", "openai_compat.backends.http.client:UpstreamClient"),
        ("openai_compat.backends.upstream:UpstreamReply", "openai_compat.backends.http.client:StreamedResponse"),
        ("openai_compat.backends.credentials:Credentials", "openai_compat.backends.auth.base:Credentials"),
        ("openai_compat.settings:ModelEntry", "openai_compat.core.settings:ModelConfig"),
        ("openai_compat.hooks:HookCall", "openai_compat.core.hooks:HookCall"),
        ("openai_compat.profiles:PROFILES", "openai_compat.core.profiles:PROFILES"),
        ("openai_compat.tokens:TokenCounter", "openai_compat.core.tokens:TokenCounter"),
        (
            "openai_compat.local.entries:LocalModel",
            "openai_compat.backends.huggingface.model_options:LocalModel",
        ),
        ("openai_compat.local.hub:pull", "openai_compat.sidecars.huggingface.models.hub:pull"),
    ],
)
@pytest.mark.filterwarnings("ignore:openai_compat.local is now:DeprecationWarning")
def test_a_former_path_leads_to_the_present_object(former: str, present: str) -> None:
    (old_path, old_name), (new_path, new_name) = former.split(":"), present.split(":")
    sys.modules.pop(old_path, None)
    with pytest.warns(DeprecationWarning, match=f"{old_path} is now {new_path}"):
        module = import_module(old_path)
    assert getattr(module, old_name) is getattr(import_module(new_path), new_name)


@pytest.mark.extra("haystack")
@pytest.mark.filterwarnings("ignore:openai_compat.pipelines is now:DeprecationWarning")
def test_the_pipeline_generator_has_its_former_path() -> None:
    with pytest.warns(DeprecationWarning, match=r"pipelines\.generator is now openai_compat\.sidecars\.haystack\.gen"):
        former = import_module("openai_compat.pipelines.generator")
    assert former.HaystackPipeline is import_module("openai_compat.sidecars.haystack.generator").HaystackPipeline


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_errors_name_the_present_path() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"openai_compat\.sidecars\.huggingface\.models\.answers"):
        import_module("openai_compat.local.answers")
    with pytest.raises(AttributeError, match=r"module 'openai_compat\.core\.errors' has no attribute 'NoSuchError'"):
        import_module("openai_compat.errors").NoSuchError  # noqa: B018 - the access is the test


def test_other_missing_modules_are_reported_as_usual() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'openai_compat\.nothing'"):
        import_module("openai_compat.nothing")


def test_the_cancellation_token_has_its_former_name_in_the_former_module() -> None:
    sys.modules.pop("openai_compat.streams", None)
    with pytest.warns(DeprecationWarning, match="openai_compat.streams is now openai_compat.core.streams"):
        assert import_module("openai_compat.streams").Cancellation is CancellationToken


@pytest.mark.parametrize(
    ("former", "present"),
    [
        ("ForwardedCall", "UpstreamRequest"),
        ("ForwardedReply", "UpstreamResponse"),
        ("CHAT_PROMISES", "CHAT_PARAMETERS"),
        ("COMPLETION_PROMISES", "COMPLETION_PARAMETERS"),
        ("options_of", "option_names"),
    ],
)
def test_the_backend_interface_has_its_former_names(former: str, present: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"base.{former} is now {present}"):
        assert getattr(base, former) is getattr(base, present)


def test_the_backend_interface_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match=r"'openai_compat\.backends\.base' has no attribute 'NoSuchName'"):
        base.NoSuchName  # noqa: B018 - the access is the test


def test_a_forwarding_backend_may_use_former_names() -> None:
    class OldReply(base.UpstreamResponse):
        status, headers = 200, {}

        def blocks(self):
            yield b"{}"

        def read(self):
            return b"{}"

        def close(self):
            self.ended = "aborted"

        def expect_end(self, seconds):
            self.limit = seconds

        def close_after_end(self):
            self.ended = "kept alive"

    class OldBackend(base.Backend, base.SupportsForwarding):
        refused = ()

        def may_ask_for_usage(self, model):
            return model not in self.refused

        def learned_no_usage(self, model):
            self.refused = (*self.refused, model)

        def forward(self, call, context):
            return OldReply()

    backend = OldBackend(ModelConfig("m", "old"), None, BackendResources(Settings(), UpstreamClient(Settings())))
    assert backend.may_request_usage("m")
    backend.mark_usage_unsupported("m")
    assert not backend.may_request_usage("m")
    reply = backend.forward(base.UpstreamRequest("GET", "models", {}), CallContext("id"))
    reply.limit_remaining(2.0)
    reply.release()
    assert (reply.limit, reply.ended) == (2.0, "kept alive")


def test_a_reply_of_this_package_has_the_former_methods() -> None:
    calls = []

    class Reply(base.UpstreamResponse):
        status, headers = 200, {}
        blocks = read = close = None

        def limit_remaining(self, seconds):
            calls.append(seconds)

        def release(self):
            calls.append("released")

    with pytest.warns(DeprecationWarning, match="expect_end is now limit_remaining"):
        Reply().expect_end(3.0)
    with pytest.warns(DeprecationWarning, match="close_after_end is now release"):
        Reply().close_after_end()
    assert calls == [3.0, "released"]


def test_credentials_may_use_former_names() -> None:
    class OldCredentials(Credentials):
        is_callers = True

        def authorization(self, context):
            return "Bearer old"

        def renewed(self, refused, context):
            return "Bearer new"

    credentials = OldCredentials()
    assert credentials.is_caller_owned
    assert credentials.refresh("Bearer old", CallContext("id")) == "Bearer new"


def test_resources_have_their_former_names() -> None:
    client = UpstreamClient(Settings())
    resources = BackendResources(Settings(), client)
    with pytest.warns(DeprecationWarning, match=r"resources\.forwarder is now resources\.http_client"):
        assert resources.forwarder is client
    with pytest.warns(DeprecationWarning, match=r"resources\.gate is now resources\.limiter_for"):
        assert isinstance(resources.gate(ModelConfig("m", "echo", max_concurrent=2)), ConcurrencyLimiter)
    with pytest.warns(DeprecationWarning, match="limiter_for"):
        assert resources.gate(ModelConfig("m", "echo")) is None


def test_a_call_waits_at_its_gate() -> None:
    gate = ConcurrencyLimiter(1, 0, 0.0)
    context = CallContext("id")
    gate.acquire(context.cancellation)
    with pytest.raises(OverloadedError):
        UpstreamClient(Settings()).send(
            "GET", "http://127.0.0.1:9/", headers={}, timeouts=Timeouts(), context=context, gate=gate
        )


def test_a_callback_can_be_forgotten() -> None:
    token, calls = CancellationToken(), []
    token.on_cancel(calls.clear)
    with pytest.warns(DeprecationWarning, match="forget is now remove_callback"):
        token.forget(calls.clear)
    calls.append("kept")
    token.cancel()
    assert calls == ["kept"]


def test_a_context_has_the_former_name_of_its_interval() -> None:
    assert CallContext("id", heartbeat_interval=3.0).silence_seconds == 3.0
