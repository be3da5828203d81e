"""State of one call."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.core.errors import InvalidRequestError
from openai_compat.services.responses.state import CallState

RESPONSE: dict[str, Any] = {"output": []}


class FakeStore:
    """Store that records the order of its calls, and is its own lease."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.items = ()
        self.is_read_only = False
        self.referenced: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        def record(*_: Any) -> Any:
            self.calls.append(name)
            return self

        return record


def state_of(fake: Any, **fields: Any) -> CallState:
    state = CallState(fake, {"input": "Hi", "conversation": "conv_1", **fields}, "owner")
    assert len(state.input) == 1
    return state


def test_a_conversation_is_given_back_once_its_items_are_stored() -> None:
    """The client may send the next call as soon as it sees the end."""
    store = FakeStore()
    state = state_of(store)
    state.keep(RESPONSE, b"{}")
    assert store.calls == ["lock", "load", "save", "append", "release"]
    state.release()
    assert store.calls[-2:] == ["append", "release"], "it is given back once"


def test_a_call_without_storage_gives_its_conversation_back() -> None:
    store = FakeStore()
    state_of(store, store=False).keep(RESPONSE, b"{}")
    assert store.calls == ["lock", "load", "release"]


HELLO = {"role": "user", "content": "Hi"}


def prepare(*items: Any) -> None:
    store: Any = FakeStore()
    CallState(store, {"input": list(items)}, "owner").prepare()


@pytest.mark.parametrize("kind", [["message"], {"a": 1}, 1])
def test_the_type_of_an_item_must_be_a_text(kind: Any) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        prepare(HELLO, {**HELLO, "type": kind})
    assert (raised.value.param, raised.value.code) == ("input[1].type", "invalid_type")


def test_two_items_with_the_same_id_are_refused() -> None:
    """A list of input items is read on from an id, so that a second one would never be passed."""
    with pytest.raises(InvalidRequestError) as raised:
        prepare({**HELLO, "id": "a"}, {**HELLO, "id": "a"})
    assert (raised.value.param, raised.value.code) == ("input", "duplicate_item")
