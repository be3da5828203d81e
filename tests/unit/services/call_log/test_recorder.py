"""The queue of ended calls, and its way into the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from openai_compat.accounts.price_book import PriceBook
from openai_compat.core.errors import StorageUnavailableError
from openai_compat.core.observation import AttemptRecord, EndedRequest, KeptBodies
from openai_compat.core.prices import Price
from openai_compat.core.settings import ModelConfig
from openai_compat.core.types import Usage
from openai_compat.services.call_log import recorder as module
from openai_compat.services.call_log.recorder import CallRecorder
from openai_compat.services.call_log.rows import MAX_NAME_CHARS, is_logged, to_bodies, to_row
from openai_compat.storage import Storage

PRICED = ModelConfig("gpt", "openai", price=Price(input=1_000_000, output=2_000_000))


def ended(**values: Any) -> EndedRequest:
    defaults: dict[str, Any] = {
        "request_id": "req_1", "operation": "chat/completions", "status": 200, "error": None, "model": "assistant",
        "kind": "alias", "served_by": "gpt", "started_at": 100.0, "ended_at": 101.5, "first_token_at": 100.25,
        "is_streamed": True, "usage": Usage(10, 20, cached_tokens=4, reasoning_tokens=5), "attempts": [],
        "project_id": "proj_1", "key_id": "key_1", "key_name": "ci", "served": PRICED, "adapted": "", "trace": None,
    }  # fmt: skip
    return EndedRequest(**defaults | values)


class FakeCalls:
    """The store of calls. It may be away, or refuse a row."""

    def __init__(self) -> None:
        self.rows: list[Mapping[str, Any]] = []
        self.bodies: list[Mapping[str, Any]] = []
        self.attempts: list[tuple[int, bool]] = []
        self.is_away = False
        self.refused: str | None = None

    def add(
        self, rows: Sequence[Mapping[str, Any]], bodies: Sequence[Mapping[str, Any]], size: int, *, is_repeated: bool
    ) -> None:
        self.attempts.append((len(rows), is_repeated))
        if self.is_away:
            raise StorageUnavailableError
        if any(row["model"] == self.refused for row in rows):
            raise ValueError("refused")
        self.rows += rows
        self.bodies += bodies


class FakeStorage:
    def __init__(self) -> None:
        self.calls = FakeCalls()


@pytest.fixture
def storage() -> FakeStorage:
    return FakeStorage()


def make(storage: FakeStorage, *, keeps_bodies: bool = False) -> CallRecorder:
    recorder = CallRecorder(cast(Storage, storage), PriceBook(), 1000, keeps_bodies=keeps_bodies)
    recorder._is_working = True  # without a thread, so that only the tests store
    return recorder


def test_calls_wait_until_they_are_stored_together(storage: FakeStorage) -> None:
    recorder = make(storage)
    for number in range(3):
        recorder.observe(ended(request_id=f"req_{number}"))
    assert storage.calls.rows == []
    recorder.flush()
    recorder.flush()
    assert [row["request_id"] for row in storage.calls.rows] == ["req_0", "req_1", "req_2"]
    assert len({row["id"] for row in storage.calls.rows}) == 3


def test_calls_wait_for_a_database_that_is_away_with_the_same_ids(storage: FakeStorage) -> None:
    recorder = make(storage)
    recorder.observe(ended())
    storage.calls.is_away = True
    with pytest.raises(StorageUnavailableError):
        recorder.flush()
    recorder.observe(ended())
    storage.calls.is_away = False
    recorder.flush()
    assert [row["id"][-2:] for row in storage.calls.rows] == ["00", "01"]
    assert storage.calls.attempts == [(1, False), (1, True), (1, False)]  # the first may have been stored


def test_the_queue_is_bounded_and_counts_what_it_drops(storage: FakeStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED", 5)
    recorder = make(storage)
    for _ in range(8):
        recorder.observe(ended())
    assert recorder.dropped == 3
    recorder.flush()
    assert len(storage.calls.rows) == 5


def test_a_batch_that_the_database_refuses_holds_up_no_other(
    storage: FakeStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    storage.calls.refused = "bad"
    recorder = make(storage)
    for model in ("good", "bad", "good", "good"):
        recorder.observe(ended(model=model))
    recorder.flush()
    assert (len(storage.calls.rows), recorder.dropped) == (2, 2)


def test_closing_stores_what_waits(storage: FakeStorage) -> None:
    recorder = make(storage)
    recorder.observe(ended())
    recorder.close()
    assert len(storage.calls.rows) == 1


@pytest.mark.parametrize("operation", ["chat/completions", "/chat/completions", "responses", "create_message", "proxy"])
def test_calls_are_logged(operation: str) -> None:
    assert is_logged(ended(operation=operation))


@pytest.mark.parametrize("operation", ["", "healthz", "list_models", "overview", "sign_in", "asset"])
def test_other_requests_are_not_logged(operation: str) -> None:
    assert not is_logged(ended(operation=operation))


def test_requests_without_a_valid_key_do_not_fill_the_log() -> None:
    assert not is_logged(ended(operation="create_chat_completion", status=401))
    assert is_logged(ended(operation="create_chat_completion", status=400))


def test_a_row_has_times_tokens_and_cost() -> None:
    row = to_row("call_1", 1_800_000_001.5, ended(), PriceBook())
    assert (row["at_ms"], row["first_token_ms"], row["duration_ms"]) == (1_800_000_000_000, 250, 1500)
    assert (row["model"], row["target"], row["is_failed"]) == ("assistant", "gpt", False)
    assert (row["input_tokens"], row["cached_tokens"], row["output_tokens"], row["reasoning_tokens"]) == (10, 4, 20, 5)
    assert row["cost_nano"] == 6 * 1000 + 20 * 2000  # cached tokens have no price


def test_attempts_have_times_relative_to_the_call() -> None:
    attempts = [
        AttemptRecord("down", 100.0, None, 100.1, "upstream_busy"),
        AttemptRecord("gpt", 100.2, 100.25),
    ]
    row = to_row("call_1", 1.0, ended(attempts=attempts), PriceBook())
    assert row["attempts"] == (
        '[{"target": "down", "start_ms": 0, "first_byte_ms": null, "end_ms": 100, "error": "upstream_busy"}, '
        '{"target": "gpt", "start_ms": 200, "first_byte_ms": 250, "end_ms": 1500, "error": null}]'
    )


@pytest.mark.parametrize(
    ("values", "is_failed"),
    [({"status": 200}, False), ({"status": 503}, True), ({"status": 499}, True), ({"error": "upstream_cut"}, True)],
)
def test_an_error_within_a_stream_is_a_failure(values: dict[str, Any], is_failed: bool) -> None:
    assert to_row("call_1", 1.0, ended(**values), PriceBook())["is_failed"] is is_failed


def test_a_call_without_usage_or_price_has_no_cost() -> None:
    assert to_row("call_1", 1.0, ended(usage=None), PriceBook())["cost_nano"] is None
    assert to_row("call_1", 1.0, ended(usage=None), PriceBook())["input_tokens"] is None
    assert to_row("call_1", 1.0, ended(served=None), PriceBook())["cost_nano"] is None


def test_names_of_clients_are_cut_and_fit_the_database() -> None:
    row = to_row("call_1", 1.0, ended(model="a\0\ud800" + "x" * 1000, served_by=""), PriceBook())
    assert row["model"] == "a�?" + "x" * (MAX_NAME_CHARS - 3)


def test_bodies_are_masked(storage: FakeStorage) -> None:
    recorder = make(storage, keeps_bodies=True)
    request = b'{"api_key": "abc", "messages": [{"content": "my key is sk-abcdefgh12345"}]}'
    answer = [b'data: {"delta": "use sk-abc', b'defgh12345 for it"}\n\n']
    recorder.observe(ended(bodies=KeptBodies(request, answer)))
    recorder.observe(ended())
    recorder.flush()
    recorder.close()
    (body,) = storage.calls.bodies
    assert body["call_id"] == storage.calls.rows[0]["id"]
    assert body["request"] == '{"api_key": "***", "messages": [{"content": "my key is ***"}]}'
    assert body["answer"] == 'data: {"delta": "use ***'


def test_a_body_that_was_cut_is_masked_as_text() -> None:
    cut = (b'{"content": "' + b"x" * 20_000)[:16_384]
    found = to_bodies("call_1", ended(bodies=KeptBodies(cut)))
    assert found is not None
    assert found["request"] == cut.decode()
    assert to_bodies("call_1", ended()) is None
