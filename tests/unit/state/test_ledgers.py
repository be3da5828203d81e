"""Ledgers, which one suite covers."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent import GreenletExit

from openai_compat.state.base import StoreError
from openai_compat.state.ledger import (
    Charge,
    ColdLedgerError,
    Ledger,
    Level,
    Meter,
    Refusal,
    Settlement,
    sliding_meter,
)
from openai_compat.state.redis_ledger import CONNECTIONS, RedisLedger
from openai_compat.state.sqlite_ledger import SQLiteLedger
from tests.support.redis_server import running_redis

MINUTE = 60.0
NOON = 1_800_000_000.0
"""Start of a window of a minute, of an hour and of a day's half."""
TOTAL = Meter("key_1", "budget:total:UTC", 1000)
PLACES = Meter("key_1", "concurrent_requests", 2)
FACTORIES: dict[str, Callable[..., Ledger]] = {"sqlite": SQLiteLedger, "redis": RedisLedger}


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_redis(tmp_path_factory.mktemp("redis")) as redis:
        yield redis.url


@pytest.fixture(params=["sqlite", "redis"])
def open_ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], Ledger]]:
    """Yield a function that opens the same cold ledger for another process."""
    opened: list[Ledger] = []
    place = str(tmp_path / "deep" / "ledger.db")
    if request.param == "redis":
        place = request.getfixturevalue("redis_url")
        _flush(place)

    def open_it(holder: str) -> Ledger:
        opened.append(FACTORIES[request.param](place, holder))
        return opened[-1]

    yield open_it
    for ledger in opened:
        ledger.close()


@pytest.fixture
def two(open_ledger: Callable[[str], Ledger]) -> tuple[Ledger, Ledger]:
    """Return a started ledger as two workers have it."""
    ledgers = open_ledger("worker-1"), open_ledger("worker-2")
    ledgers[0].start(1)
    return ledgers


def _flush(url: str) -> None:
    ledger = RedisLedger(url, "flush")
    ledger._redis.flushall()
    ledger.close()


def _reserve(ledger: Ledger, id: str, *charges: Charge) -> list[Level]:
    levels = ledger.reserve(id, charges)
    assert not isinstance(levels, Refusal)
    return list(levels)


def _level(ledger: Ledger, meter: Meter) -> Level:
    (level,) = ledger.levels([meter])
    return level


def _per_minute(now: float, limit: int = 10) -> Meter:
    return sliding_meter("key_1", "requests_per_minute", limit, MINUTE, now)


def test_charges_of_all_workers_count_up_to_the_limit(two: tuple[Ledger, Ledger]) -> None:
    one, other = two
    charge = Charge(_per_minute(NOON), 4)
    assert _reserve(one, "a", charge) == [Level(4)]
    assert _reserve(other, "b", charge) == [Level(8)]
    assert one.reserve("c", [charge]) == Refusal(charge, Level(8))
    assert _reserve(one, "d", Charge(_per_minute(NOON), 2)) == [Level(10)]


def test_a_sliding_window_counts_the_previous_one_by_its_rest(two: tuple[Ledger, Ledger]) -> None:
    one, other = two
    _reserve(one, "a", Charge(_per_minute(NOON), 10))
    quarter = _per_minute(NOON + 75)
    assert _level(other, quarter) == Level(0, 10)
    assert _level(other, quarter).used(quarter) == 7
    refused = other.reserve("b", [Charge(quarter, 4)])
    assert isinstance(refused, Refusal)
    assert _reserve(other, "c", Charge(quarter, 3)) == [Level(3, 10)]
    later = _per_minute(NOON + 120)
    assert _level(one, later) == Level(0, 3)
    assert _level(one, _per_minute(NOON + 180)) == Level()


def test_a_window_of_the_calendar_starts_anew(two: tuple[Ledger, Ledger]) -> None:
    one, other = two
    august = Meter("key_1", "budget:month:UTC", 100, 31 * 86400.0, 1_785_542_400, 0.0, 3600.0)
    september = Meter("key_1", "budget:month:UTC", 100, 30 * 86400.0, 1_788_220_800, 0.0, 3600.0)
    _reserve(one, "a", Charge(august, 100, is_held=True))
    one.settle("a", [Settlement(august, 100, 100)], None)
    assert isinstance(other.reserve("b", [Charge(august, 1)]), Refusal)
    assert _reserve(other, "c", Charge(september, 100)) == [Level(100)]


def test_a_refusal_charges_nothing(two: tuple[Ledger, Ledger]) -> None:
    one, other = two
    last = Charge(Meter("org-1", "budget:total:UTC", 5), 6, is_held=True)
    charges = [Charge(_per_minute(NOON), 1), Charge(PLACES, 1, is_held=True), last]
    assert one.reserve("a", charges) == Refusal(last, Level())
    assert other.levels([charge.meter for charge in charges]) == [Level(), Level(), Level()]


def test_what_is_held_counts_until_the_call_ends(two: tuple[Ledger, Ledger]) -> None:
    one, other = two
    place = Charge(PLACES, 1, is_held=True)
    assert _reserve(one, "a", place) == [Level(held=1)]
    assert _reserve(other, "b", place) == [Level(held=2)]
    assert one.reserve("c", [place]) == Refusal(place, Level(held=2))
    other.settle("b", [Settlement(PLACES, released=1)], None)
    assert _reserve(one, "d", place) == [Level(held=2)]


def test_a_hold_outlives_the_window_of_its_budget(two: tuple[Ledger, Ledger]) -> None:
    one, other = two
    ending, next_one = (Meter("key_1", "budget:hour:UTC", 10, 3600.0, window, rest=0.01) for window in (1, 2))
    _reserve(one, "a", Charge(ending, 9, is_held=True))
    time.sleep(0.05)
    assert _level(other, next_one) == Level(held=9)
    refused = other.reserve("b", [Charge(next_one, 9, is_held=True)])
    assert isinstance(refused, Refusal)
    one.settle("a", [Settlement(ending, 9, 9)], None)
    assert _level(other, next_one).held == 0


def test_a_settlement_replaces_the_hold_by_the_cost_and_may_exceed_the_limit(two: tuple[Ledger, Ledger]) -> None:
    one, other = two
    _reserve(one, "a", Charge(TOTAL, 900, is_held=True))
    assert isinstance(other.reserve("b", [Charge(TOTAL, 200, is_held=True)]), Refusal)
    one.settle("a", [Settlement(TOTAL, 900, 1500)], "record")
    assert _level(other, TOTAL) == Level(1500)
    assert _level(other, TOTAL).remaining(TOTAL) == 0


def test_tokens_are_corrected_in_the_window_of_the_call(two: tuple[Ledger, Ledger]) -> None:
    one, other = two
    begin, later, much_later = (_per_minute(NOON + seconds, 1000) for seconds in (0, 60, 120))
    for id in "ab":
        _reserve(one, id, Charge(begin, 100))
    _reserve(one, "c", Charge(later, 10))
    one.settle("a", [Settlement(begin, added=-70)], None)
    assert _level(other, later) == Level(10, 130)
    _reserve(one, "d", Charge(much_later, 1))
    one.settle("b", [Settlement(begin, added=-70)], None)
    assert _level(other, much_later) == Level(1, 10)


def test_a_correction_leaves_no_negative_amount(two: tuple[Ledger, Ledger]) -> None:
    one, other = two
    _reserve(one, "a", Charge(_per_minute(NOON), 5))
    one.settle("correction", [Settlement(_per_minute(NOON), added=-3)], None)
    one.settle("a", [Settlement(_per_minute(NOON), added=-5)], None)
    assert _level(other, _per_minute(NOON)) == Level()


def test_a_call_without_a_cost_is_charged_and_settled(two: tuple[Ledger, Ledger]) -> None:
    one, other = two
    assert _reserve(one, "a", Charge(TOTAL, 0, is_held=True)) == [Level()]
    one.settle("a", [Settlement(TOTAL, 0, 0)], "record")
    assert _level(other, TOTAL) == Level()


def test_amounts_are_exact_up_to_the_largest_budget(two: tuple[Ledger, Ledger]) -> None:
    one, other = two
    huge = Meter("org-1", "budget:total:UTC", 10**18)
    amount = 10**17 + 1
    for id in "abc":
        _reserve(one, id, Charge(huge, amount, is_held=True))
        one.settle(id, [Settlement(huge, amount, amount)], None)
    assert _level(other, huge) == Level(3 * amount)


def test_holds_of_a_process_without_a_sign_of_life_are_released(two: tuple[Ledger, Ledger]) -> None:
    one, other = two
    now = time.time()
    charges = [Charge(PLACES, 1, is_held=True), Charge(TOTAL, 500, is_held=True), Charge(_per_minute(NOON), 3)]
    one.reserve("a", charges)
    other.reserve("b", charges)
    other.keep_alive(now + 29)
    assert _level(other, PLACES) == Level(held=2)
    other.keep_alive(now + 40)
    meters = [charge.meter for charge in charges]
    assert other.levels(meters) == [Level(held=1), Level(held=500), Level(6)]


def test_a_call_whose_hold_was_released_is_still_paid(two: tuple[Ledger, Ledger]) -> None:
    one, other = two
    _reserve(one, "a", Charge(TOTAL, 500, is_held=True))
    other.keep_alive(time.time() + 40)
    _reserve(other, "b", Charge(TOTAL, 100, is_held=True))
    one.settle("a", [Settlement(TOTAL, 500, 300)], "record")
    assert _level(other, TOTAL) == Level(300, held=100)
    assert [body for _, body in other.records(10)] == ["record"]


def test_records_are_kept_in_their_order_until_they_are_deleted(two: tuple[Ledger, Ledger]) -> None:
    one, other = two
    for number in range(5):
        one.settle(f"call-{number}", [], f'{{"n": {number}, "text": "é"}}')
    one.settle("call-5", [], None)
    first = other.records(2)
    assert [body for _, body in first] == ['{"n": 0, "text": "é"}', '{"n": 1, "text": "é"}']
    other.delete_records([id for id, _ in first])
    assert [body[6:7] for _, body in one.records(10)] == ["2", "3", "4"]
    one.delete_records([])
    assert one.drop_records(1) == 2
    assert [body[6:7] for _, body in one.records(10)] == ["4"]
    assert other.drop_records(0) == 3


def test_a_process_that_is_late_deletes_no_new_record(two: tuple[Ledger, Ledger]) -> None:
    late, other = two
    for number in range(3):
        late.settle(f"a{number}", [], f"record {number}")
    ids = [id for id, _ in late.records(10)]
    other.delete_records(ids)
    assert other.records(10) == []
    other.settle("b", [], "new")
    late.delete_records(ids)
    ((id, body),) = other.records(10)
    assert body == "new"
    other.delete_records([id])
    late.delete_records(ids)
    late.settle("c", [], "newer")
    assert [body for _, body in late.records(1)] == ["newer"]
    assert late.drop_records(1) == 0


def test_one_process_at_a_time_works_on_the_records(two: tuple[Ledger, Ledger]) -> None:
    one, other = two
    assert one.begin_turn(NOON, 15)
    assert not other.begin_turn(NOON + 14, 15)
    assert other.begin_turn(NOON + 15, 15)
    other.end_turn()
    assert one.begin_turn(NOON + 16, 15)


def test_a_change_of_an_account_changes_the_version_for_all(two: tuple[Ledger, Ledger]) -> None:
    one, other = two
    assert other.version() == 1
    one.bump_version()
    other.bump_version()
    assert one.version() == other.version() == 3
    one.start(100)
    assert other.version() == 3


def test_a_correction_keeps_the_holds(two: tuple[Ledger, Ledger]) -> None:
    one, other = two
    _reserve(one, "a", Charge(TOTAL, 10, is_held=True))
    one.settle("correction", [Settlement(TOTAL, added=70)], None)
    assert _level(other, TOTAL) == Level(70, held=10)


def test_what_another_process_left_is_settled_under_its_name(two: tuple[Ledger, Ledger]) -> None:
    one, other = two
    _reserve(one, "a", Charge(TOTAL, 500, is_held=True))
    _reserve(other, "b", Charge(TOTAL, 100, is_held=True))
    stopped = other.for_holder(one.holder)
    stopped.settle("a", [Settlement(TOTAL, 500, 300)], "record")
    stopped.close()
    assert _level(other, TOTAL) == Level(300, held=100)


def test_what_a_process_left_releases_no_hold_of_others_after_its_own_were_released(
    two: tuple[Ledger, Ledger],
) -> None:
    one, other = two
    _reserve(one, "a", Charge(TOTAL, 500, is_held=True))
    other.keep_alive(time.time() + 40)
    _reserve(other, "b", Charge(TOTAL, 600, is_held=True))
    stopped = other.for_holder(one.holder)
    stopped.settle("a", [Settlement(TOTAL, 500, 300)], "record")
    stopped.close()
    assert _level(other, TOTAL) == Level(300, held=600)


def test_a_cold_ledger_charges_nothing_until_it_was_restored(open_ledger: Callable[[str], Ledger]) -> None:
    one, other = open_ledger("worker-1"), open_ledger("worker-2")
    week = sliding_meter("key_1", "budget:7d:UTC", 1000, 7 * 86400.0, NOON)
    assert one.version() is None
    with pytest.raises(ColdLedgerError):
        one.reserve("a", [Charge(TOTAL, 1)])
    with pytest.raises(ColdLedgerError):
        one.settle("a", [Settlement(TOTAL, 0, 1)], "record")
    one.bump_version()
    assert other.version() is None
    one.restore([(TOTAL, Level(600)), (week, Level(20, 30))])
    one.restore([(TOTAL, Level(700))])
    one.start(5)
    other.restore([(TOTAL, Level(0))])
    assert other.version() == 5
    assert other.levels([TOTAL, week]) == [Level(700), Level(20, 30)]
    assert other.records(10) == []
    other.settle("a", [Settlement(TOTAL, 0, 1)], "record")
    assert _level(one, TOTAL) == Level(701)


def test_sqlite_meters_at_zero_are_deleted(tmp_path: Path) -> None:
    now = [NOON]
    ledger = SQLiteLedger(str(tmp_path / "ledger.db"), "worker", lambda: now[0])
    ledger.start(0)
    other = sliding_meter("key_2", "requests_per_minute", 9, MINUTE, NOON)
    held = Meter("key_3", "concurrent_requests", 9)
    for meter in (_per_minute(NOON), TOTAL, other, held):
        _reserve(ledger, f"of {meter.owner}", Charge(meter, 1, is_held=meter is held))
    now[0] += 121
    ledger.tidy(now[0])
    assert _owners(ledger) == {"key_1", "key_3"}
    ledger.settle("of key_3", [Settlement(held, released=1)], None)
    ledger.tidy(now[0])
    assert _owners(ledger) == {"key_1"}
    ledger.close()


def _owners(ledger: SQLiteLedger) -> set[str]:
    return {owner for (owner,) in ledger._file.read("SELECT owner FROM books")}


def test_redis_keys_of_meters_expire_with_what_they_count(redis_url: str) -> None:
    _flush(redis_url)
    ledger = RedisLedger(redis_url, "worker")
    ledger.start(0)
    day = sliding_meter("key_1", "requests_per_day", 9, 86400.0, NOON)
    held = Meter("key_3", "concurrent_requests", 9)
    for id, meter in (("a", _per_minute(NOON)), ("b", day), ("c", Meter("key_2", "budget:total:UTC", 9))):
        _reserve(ledger, id, Charge(meter, 1))
    _reserve(ledger, "d", Charge(held, 1, is_held=True))
    seconds = [ledger._redis.ttl(f"openai-compat:{{ledger}}:m:{owner}") for owner in ("key_1", "key_2", "key_3")]
    assert seconds[0] > 86400
    assert seconds[1] == -1
    assert 0 < seconds[2] <= 86400
    ledger.close()


def _lose_reply(ledger: RedisLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next command of `ledger` be executed and its reply be lost."""
    exchange = ledger._exchange

    def lose(*arguments: Any) -> None:
        monkeypatch.setattr(ledger, "_exchange", exchange)
        exchange(*arguments)
        raise OSError("the reply was lost")

    monkeypatch.setattr(ledger, "_exchange", lose)


@pytest.fixture
def redis_ledger(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisLedger]:
    """Yield a ledger that tries again at once after a failure, and whose scripts are known to Redis."""
    monkeypatch.setattr("openai_compat.state.redis_ledger.RETRY_SECONDS", 0)
    _flush(redis_url)
    ledger = RedisLedger(redis_url, "worker")
    ledger.start(1)
    _reserve(ledger, "first", Charge(TOTAL, 0, is_held=True))
    ledger.settle("first", [], None)
    yield ledger
    ledger.close()


def test_a_settlement_whose_reply_was_lost_takes_effect_once(
    redis_ledger: RedisLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    _reserve(redis_ledger, "a", Charge(TOTAL, 100, is_held=True))
    _lose_reply(redis_ledger, monkeypatch)
    with pytest.raises(StoreError):
        redis_ledger.settle("a", [Settlement(TOTAL, 100, 80)], "record")
    redis_ledger.settle("b", [Settlement(TOTAL, 0, 1)], "other")
    redis_ledger.settle("a", [Settlement(TOTAL, 100, 80)], "record")
    assert _level(redis_ledger, TOTAL) == Level(81)
    assert [body for _, body in redis_ledger.records(10)] == ["record", "other"]


def test_a_reservation_whose_reply_was_lost_is_undone(
    redis_ledger: RedisLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    charges = [Charge(PLACES, 1, is_held=True), Charge(TOTAL, 100, is_held=True), Charge(_per_minute(NOON), 3)]
    _lose_reply(redis_ledger, monkeypatch)
    with pytest.raises(StoreError):
        redis_ledger.reserve("a", charges)
    meters = [charge.meter for charge in charges]
    assert redis_ledger.levels(meters) == [Level(held=1), Level(held=100), Level(3)]
    redis_ledger.keep_alive(time.time())
    assert redis_ledger.levels(meters) == [Level(), Level(), Level()]
    redis_ledger.settle("a", [Settlement(TOTAL, 0, 40)], "record")
    assert _level(redis_ledger, TOTAL) == Level(40)
    assert len(redis_ledger.records(10)) == 1


def test_a_reservation_that_arrives_after_it_was_given_up_charges_nothing(
    redis_ledger: RedisLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[Any, ...]] = []
    exchange = redis_ledger._exchange

    def delay(*arguments: Any) -> None:
        sent.append(arguments)
        raise TimeoutError("no reply")

    monkeypatch.setattr(redis_ledger, "_exchange", delay)
    with pytest.raises(StoreError):
        redis_ledger.reserve("a", [Charge(PLACES, 1, is_held=True)])
    monkeypatch.setattr(redis_ledger, "_exchange", exchange)
    redis_ledger.keep_alive(time.time())
    exchange(*sent[0])
    assert _level(redis_ledger, PLACES) == Level()


def test_marks_of_settled_calls_do_not_accumulate(redis_ledger: RedisLedger) -> None:
    for number in range(20):
        _reserve(redis_ledger, f"call-{number}", Charge(TOTAL, 1, is_held=True))
        redis_ledger.settle(f"call-{number}", [Settlement(TOTAL, 1, 1)], None)
    assert redis_ledger._redis.hlen("openai-compat:{ledger}:holds:worker") == 1


def test_scripts_that_redis_has_forgotten_are_sent_again(redis_ledger: RedisLedger) -> None:
    redis_ledger._redis.script_flush()
    assert _reserve(redis_ledger, "a", Charge(TOTAL, 7, is_held=True)) == [Level(held=7)]
    redis_ledger.settle("a", [Settlement(TOTAL, 7, 7)], None)
    assert _level(redis_ledger, TOTAL) == Level(7)


def test_a_command_that_was_broken_off_leaves_its_reply_to_no_other(
    redis_ledger: RedisLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection_class = redis_ledger._redis.connection_pool.connection_class
    can_read = connection_class.can_read

    def end_the_greenlet(connection: Any, timeout: float = 0) -> bool:
        if timeout:
            raise GreenletExit
        return bool(can_read(connection, timeout))

    redis_ledger.bump_version()
    redis_ledger._redis.client_pause(100)  # milliseconds in which the reply does not arrive
    with monkeypatch.context() as patched:
        patched.setattr(connection_class, "can_read", end_the_greenlet)
        with pytest.raises(GreenletExit):
            redis_ledger.begin_turn(NOON, 15)
    assert redis_ledger.version() == 2


def test_a_connection_that_redis_has_closed_in_an_idle_second_is_replaced(
    redis_ledger: RedisLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert redis_ledger.version() == 1
    admin = redis_ledger._redis
    own = admin.client_id()
    for client in admin.client_list():
        if int(client["id"]) != own:
            admin.client_kill_filter(_id=client["id"])
    monkeypatch.setattr("openai_compat.state.redis_connections.KEPT_SECONDS", 0)
    for _ in range(CONNECTIONS):
        assert redis_ledger.version() == 1


def test_an_absent_redis_is_tried_once_a_second(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "redis.sock"))
        listener.listen()
        listener.setblocking(False)
        ledger = RedisLedger(f"unix://{tmp_path / 'redis.sock'}", "worker")
        for _ in range(20):
            with pytest.raises(StoreError):
                ledger.version()
            with pytest.raises(StoreError):
                ledger.reserve("a", [Charge(TOTAL, 1)])
        listener.accept()[0].close()
        with pytest.raises(BlockingIOError):
            listener.accept()
        ledger.close()


def _settle_calls(ledger: Ledger, count: int) -> None:
    for number in range(count):
        ledger.settle(f"call-{number}", [Settlement(TOTAL, 0, 1)], "record" * 100)


def test_a_full_disk_charges_nothing_and_is_no_error_afterwards(tmp_path: Path) -> None:
    ledger = SQLiteLedger(str(tmp_path / "ledger.db"), "worker")
    ledger.start(1)
    database = ledger._file._database
    assert database is not None
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")
    charge = Charge(TOTAL, 10, is_held=True)
    with pytest.raises(StoreError, match="full"):
        _settle_calls(ledger, 100)
    spent = _level(ledger, TOTAL).current
    assert spent == len(ledger.records(100)) < 100
    database.execute("PRAGMA max_page_count = 1000000")
    assert _reserve(ledger, "last", charge) == [Level(spent, held=10)]
    ledger.close()


def test_a_ledger_without_a_place_is_away(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    ledger = SQLiteLedger(str(tmp_path / "file" / "ledger.db"), "worker")
    with pytest.raises(StoreError):
        ledger.reserve("a", [Charge(TOTAL, 1)])


def test_a_file_that_is_replaced_is_opened_anew(tmp_path: Path) -> None:
    ledger = SQLiteLedger(str(tmp_path / "ledger.db"), "worker")
    ledger.start(1)
    _reserve(ledger, "a", Charge(TOTAL, 10, is_held=True))
    for file in tmp_path.glob("ledger.db*"):
        file.unlink()
    assert ledger.version() is None
    with pytest.raises(ColdLedgerError):
        ledger.reserve("b", [Charge(TOTAL, 10, is_held=True)])
    ledger.start(2)
    assert _reserve(ledger, "b", Charge(TOTAL, 10, is_held=True)) == [Level(held=10)]
    ledger.close()
