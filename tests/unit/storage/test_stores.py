"""Stores of responses, conversations and chat completions, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from secrets import token_hex

import pytest

from openai_compat.storage.opened import Stores
from openai_compat.storage.pages import Cursor, Entry, Order, Page, UnknownCursorError
from openai_compat.storage.records import INPUT, ITEMS, OUTPUT, DuplicateItemError, NewObject


def new_id(prefix: str) -> str:
    return f"{prefix}_{token_hex(8)}"


def entries(*ids: str) -> list[Entry]:
    return [Entry(id, f'"{id}"') for id in ids]


def ids_of(page: Page | None) -> list[str]:
    assert page is not None
    return [entry.id for entry in page.entries]


def add_response(stores: Stores, owner: str, *, previous: str | None = None, text: str = "") -> str:
    id = new_id("resp")
    sections = {INPUT: entries(f"{text}-in"), OUTPUT: entries(f"{text}-out")}
    stores.responses.create(owner, NewObject(id, "{}", 1, sections, status="completed", previous_id=previous))
    return id


def test_only_the_owner_reads_changes_and_deletes_an_object(stores: Stores, owner: str) -> None:
    id = new_id("conv")
    stores.conversations.create(owner, NewObject(id, '{"a": "ü\\u0000"}', 7, {ITEMS: entries("msg_1")}))
    cursor = Cursor(10, "asc")
    for stranger in ("", token_hex(8)):
        assert stores.conversations.get(stranger, id) is None
        assert not stores.conversations.update(stranger, id, "{}")
        assert not stores.conversations.append(stranger, id, entries("msg_2"))
        assert stores.conversations.page_of_items(stranger, id, ITEMS, cursor) is None
        assert stores.conversations.all_items(stranger, id) is None
        assert stores.conversations.get_item(stranger, id, "msg_1") is None
        assert not stores.conversations.delete_item(stranger, id, "msg_1")
        assert stores.responses.find_items(stranger, ["msg_1"]) == {}
        assert not stores.conversations.delete(stranger, id)
    found = stores.conversations.get(owner, id)
    assert found is not None
    assert (found.body, found.created_at) == ('{"a": "ü\\u0000"}', 7)
    assert stores.responses.get(owner, id) is None, "an object is of one kind"
    assert stores.conversations.delete(owner, id)
    assert stores.conversations.get(owner, id) is None
    assert stores.responses.find_items(owner, ["msg_1"]) == {}, "items are deleted with their object"


@pytest.mark.parametrize("id", ["", "a\x00b", "\ud800", "ü", "x" * 600])
def test_an_id_that_a_database_may_refuse_is_not_found(stores: Stores, owner: str, id: str) -> None:
    assert stores.responses.get(owner, id) is None
    assert stores.responses.chain(owner, id) is None
    assert not stores.responses.delete(owner, id)
    assert stores.conversations.get_item(owner, "conv_1", id) is None
    assert stores.responses.find_items(owner, [id]) == {}


@pytest.mark.parametrize(
    ("order", "pages"),
    [("asc", [["a", "b"], ["c", "d"], ["e"]]), ("desc", [["e", "d"], ["c", "b"], ["a"]])],
)
def test_pages_follow_each_other(stores: Stores, owner: str, order: Order, pages: list[list[str]]) -> None:
    id = new_id("resp")
    stores.responses.create(owner, NewObject(id, "{}", 1, {INPUT: entries(*"abcde")}))
    after = None
    for number, expected in enumerate(pages, 1):
        page = stores.responses.page_of_items(owner, id, INPUT, Cursor(2, order, after))
        assert page is not None
        assert (ids_of(page), page.has_more) == (expected, number < len(pages))
        after = expected[-1]
    with pytest.raises(UnknownCursorError):
        stores.responses.page_of_items(owner, id, INPUT, Cursor(2, order, "f"))


def test_a_chain_has_the_input_and_output_of_each_response_in_order(stores: Stores, owner: str) -> None:
    first = add_response(stores, owner, text="1")
    second = add_response(stores, owner, previous=first, text="2")
    third = add_response(stores, owner, previous=second, text="3")
    chain = stores.responses.chain(owner, third)
    assert chain is not None
    assert list(chain.items) == ['"1-in"', '"1-out"', '"2-in"', '"2-out"', '"3-in"', '"3-out"']
    assert chain.missing is None
    stores.responses.delete(owner, first)
    chain = stores.responses.chain(owner, third)
    assert chain is not None
    assert chain.missing == first
    assert stores.responses.chain(owner, first) is None
    assert stores.responses.chain("another", third) is None


def test_the_first_of_two_final_states_of_a_response_stays(stores: Stores, owner: str) -> None:
    id = new_id("resp")
    stores.responses.create(owner, NewObject(id, "1", 1, status="in_progress", is_background=True))
    running = {"queued", "in_progress"}
    update = stores.responses.update
    assert update(owner, id, body="2", status="completed", output=entries("msg_1"), if_status=running)
    assert not update(owner, id, body="3", status="cancelled", output=[], if_status=running)
    found = stores.responses.get(owner, id)
    assert found is not None
    assert (found.body, found.status, found.is_background) == ("2", "completed", True)
    assert ids_of(stores.responses.page_of_items(owner, id, OUTPUT, Cursor(5, "asc"))) == ["msg_1"]
    assert update(owner, id, body="4", status="completed", output=entries("msg_2"))
    assert stores.responses.find_items(owner, ["msg_1", "msg_2"]) == {"msg_2": '"msg_2"'}


def test_events_are_read_after_a_sequence_number(stores: Stores, owner: str) -> None:
    id = add_response(stores, owner)
    assert stores.responses.append_events(owner, id, [(0, "a"), (1, "b")])
    assert stores.responses.append_events(owner, id, [(2, "c")])
    assert stores.responses.events_after(owner, id, -1, 2) == [(0, "a"), (1, "b")]
    assert stores.responses.events_after(owner, id, 0, 9) == [(1, "b"), (2, "c")]
    assert not stores.responses.append_events("another", id, [(3, "d")])
    assert stores.responses.events_after("another", id, -1, 9) is None


def test_items_of_a_conversation_stay_in_order(stores: Stores, owner: str) -> None:
    id = new_id("conv")
    stores.conversations.create(owner, NewObject(id, "{}", 1, {ITEMS: entries("a")}))
    assert stores.conversations.append(owner, id, entries("b", "c"))
    assert stores.conversations.delete_item(owner, id, "c")
    assert not stores.conversations.delete_item(owner, id, "c")
    assert stores.conversations.append(owner, id, entries("d"))
    assert stores.conversations.all_items(owner, id) == ['"a"', '"b"', '"d"']
    for twice in (["a"], ["e", "e"]):
        with pytest.raises(DuplicateItemError, match=twice[0]):
            stores.conversations.append(owner, id, entries("f", *twice))
    assert stores.conversations.all_items(owner, id) == ['"a"', '"b"', '"d"']
    assert stores.conversations.get_item(owner, id, "d") == '"d"'
    assert stores.conversations.get_item(owner, id, "f") is None


def test_conversations_of_an_owner_are_listed_in_pages(stores: Stores, owner: str) -> None:
    ids = [new_id("conv") for _ in range(5)]
    for id in ids:
        stores.conversations.create(owner, NewObject(id, f'"{id}"', 1))
        stores.conversations.create("another", NewObject(new_id("conv"), "{}", 1))
    stores.completions.create(owner, NewObject(new_id("chatcmpl"), "{}", 1))
    stores.conversations.append(owner, ids[0], entries("a"))
    page = stores.conversations.page(owner, Cursor(2, "desc"))
    assert (page.entries, page.has_more) == (entries(ids[4], ids[3]), True)
    page = stores.conversations.page(owner, Cursor(2, "desc", ids[1]))
    assert (page.entries, page.has_more) == (entries(ids[0]), False)
    assert ids_of(stores.conversations.page(owner, Cursor(9, "asc", ids[2]))) == ids[3:]
    for stranger in ("", token_hex(8)):
        assert ids_of(stores.conversations.page(stranger, Cursor(9, "asc"))) == []
        with pytest.raises(UnknownCursorError):
            stores.conversations.page(stranger, Cursor(9, "asc", ids[0]))


def test_concurrent_calls_lose_no_item(stores: Stores, owner: str) -> None:
    id = new_id("conv")
    stores.conversations.create(owner, NewObject(id, "{}", 1))
    names = [[f"{writer}-{number}" for number in range(10)] for writer in range(4)]

    def write(own: list[str]) -> None:
        for name in own:
            stores.conversations.append(owner, id, entries(name))

    threads = [threading.Thread(target=write, args=(own,)) for own in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    page = stores.conversations.page_of_items(owner, id, ITEMS, Cursor(100, "asc"))
    assert sorted(ids_of(page)) == sorted(name for own in names for name in own)


def test_completions_are_found_by_model_and_metadata(stores: Stores, owner: str) -> None:
    tags = [{}, {"k": "1"}, {"k": "1", "l": "2"}, {"k": "2"}]
    ids = [new_id("chatcmpl") for _ in tags]
    for number, (id, pairs) in enumerate(zip(ids, tags, strict=True)):
        new = NewObject(id, "{}", 1, {}, model=f"model-{number % 2}", tags=pairs)
        stores.completions.create(owner, new)
    stores.completions.create("another", NewObject(new_id("chatcmpl"), "{}", 1, tags={"k": "1"}))
    everything = Cursor(10, "asc")
    page = stores.completions.page
    assert ids_of(page(owner, everything, None, {})) == ids
    assert ids_of(page(owner, everything, "model-1", {})) == ids[1::2]
    assert ids_of(page(owner, everything, None, {"k": "1"})) == ids[1:3]
    assert ids_of(page(owner, everything, None, {"k": "1", "l": "2"})) == ids[2:3]
    assert ids_of(page(owner, Cursor(10, "desc", ids[3]), None, {})) == ids[2::-1]
    assert stores.completions.update(owner, ids[0], "[]", {"k": "1"})
    assert ids_of(page(owner, everything, None, {"k": "1"})) == ids[0:3]
    with pytest.raises(UnknownCursorError):
        page("another", Cursor(10, "asc", ids[0]), None, {})
