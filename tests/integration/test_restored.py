"""A backup that is restored, on both databases: what was delivered since is owed again, under the ids of then."""

import asyncio
import json
import random
import sqlite3
from contextlib import contextmanager
from datetime import timedelta

import pytest

from fulfilment.contract import Delivered
from poller.alarms import alarm_message
from statemachine import own_statements
from statemachine.phases import Alarm, Source
from storage import event_feed, outbox
from storage.database import Database
from storage.ids import WEBHOOK_PREFIX, is_id
from tests.support.databases import copy_of
from tests.support.pipeline_world import World
from tests.support.worker_desk import Desk
from worker.dispatch import Dispatcher

SINKS = ("shop", "ledger")


class Shop:
    """Takes every effect, and keeps its id as it is told to: a repeat is skipped."""

    def __init__(self, name):
        self.name, self.came, self.done = name, [], {}

    async def deliver(self, owed, now):
        self.came.append(owed.id)
        self.done.setdefault(owed.id, (owed.effect, json.loads(owed.payload)["data"]))
        return Delivered()

    async def aclose(self):
        pass

    def fulfilled(self):
        """Effects that were not skipped, with the provider's name of their payment or their account."""
        return sorted((effect, data.get("provider_ref") or data["account"]) for effect, data in self.done.values())


class Backups:
    """Databases of one kind that are copied as a whole."""

    def __init__(self, request):
        self._kind, self._opened = request.param, []
        self._template, self._folder = request.getfixturevalue("template"), request.getfixturevalue("tmp_path")
        self._server = request.getfixturevalue("postgresql") if request.param == "postgresql" else None

    def new(self):
        return self._keep(self._server.copy() if self._server else copy_of(self._template, self._path()))

    def of(self, database):
        if self._server:
            return self._keep(self._server.backup(database))
        source, path = sqlite3.connect(database.engine.url.database), self._path()
        with sqlite3.connect(path) as target:
            source.backup(target)
        source.close()
        target.close()
        return self._keep(Database(f"sqlite:///{path}"))

    def close(self):
        for database in self._opened:
            if self._server:
                self._server.drop(database)
            database.close()

    def _path(self):
        return self._folder / f"{len(self._opened)}.db"

    def _keep(self, database):
        self._opened.append(database)
        return database


@pytest.fixture(params=["sqlite", "postgresql"])
def backups(request):
    kept = Backups(request)
    yield kept
    kept.close()


@contextmanager
def desk_at(database, at=None):
    """The service on that database, at an instant of its clock."""
    world = World(None, None, database=database)
    world.clock.now = at or world.clock.now
    try:
        yield Desk(world)
    finally:
        world.runner.close()


def dispatch(desk, shops):
    """All that is owed is delivered, each effect where it is owed."""

    async def whole():
        dispatcher = Dispatcher(desk.database, {shop.name: shop for shop in shops}, desk.clock, random.Random(7))
        while await dispatcher.step():
            pass

    asyncio.run(whole())


def an_alarm(desk):
    since = desk.clock() - timedelta(hours=1)
    desk.keep(
        alarm_message("acme", Alarm.SILENT, since=since, is_over=False, reason="nothing came", details={}, now=since)
    )


def heard(desk):
    """What the provider has to say, by its webhooks first and by its answers after a restore."""
    desk.answer(Source.POLL, "confirmed", "pi_new")
    desk.answer(Source.POLL, "confirmed", "pi_open")
    desk.answer(Source.POLL, "confirmed", "pi_wanted", reference="order-2")
    desk.answer(Source.POLL, "confirmed", "pi_review", amount=4.51)
    an_alarm(desk)
    desk.world.settle()


def before_the_backup(desk):
    """Payments that are known, one of them by our own wish, and one with its amount."""
    desk.told("awaiting_payment", "pi_open")
    desk.told("awaiting_payment", "pi_review")


def after_the_backup(desk):
    """One that is wanted by us, and others that webhooks tell of."""
    payment = desk.wish("order-2")
    desk.answer(Source.CREATE, "awaiting_payment", "pi_wanted", about=payment, reference="order-2")
    desk.world.settle()
    for ref in ("pi_new", "pi_open", "pi_wanted"):
        desk.told("confirmed", ref)
    desk.told("confirmed", "pi_review", amount=4.51)
    an_alarm(desk)
    desk.world.settle()


def test_a_shop_that_keeps_ids_fulfils_once_whatever_is_owed_again_after_a_restore(backups):
    """Adopted, known before, wanted by us after the backup, under review, and an alarm: each under the id of then."""
    shops = [Shop(sink) for sink in SINKS]
    database = backups.new()
    with desk_at(database) as desk:
        before_the_backup(desk)
        dispatch(desk, shops)
        backup = backups.of(database)
        after_the_backup(desk)
        dispatch(desk, shops)
        now = desk.clock()
    before = [shop.fulfilled() for shop in shops]
    came = [len(shop.came) for shop in shops]
    with desk_at(backup, now) as desk:
        heard(desk)
        dispatch(desk, shops)

    assert [shop.fulfilled() for shop in shops] == before
    assert [effect for effect, _ in before[0]] == [
        "account.silent",
        *["payment.paid"] * 3,
        "payment.review_required",
    ]
    assert [len(shop.came) - count for shop, count in zip(shops, came, strict=True)] == [5, 5]  # all of it came again
    assert set(shops[0].done).isdisjoint(shops[1].done)


def test_what_was_owed_before_the_provider_gave_a_name_has_an_id_that_outlives_a_restore_too(backups):
    """A create call that is refused is told under the reference; a restore to before its end tells the same id."""
    shop, database = Shop("shop"), backups.new()
    with desk_at(database) as desk:
        payment = desk.wish("order-1")
        backup = backups.of(database)
        refused = own_statements.CallFailed("create", "refused", "no", None, is_ambiguous=False)
        desk.say(refused, payment)
        desk.world.settle()
        dispatch(desk, [shop])
        now = desk.clock()
    with desk_at(backup, now) as desk:
        desk.say(refused, payment)
        desk.world.settle()
        dispatch(desk, [shop])

    assert [effect for effect, _ in shop.done.values()] == ["payment.failed"]
    assert len(shop.came) == 2


def test_a_reader_of_the_feed_can_tell_what_it_did_before_the_restore(backups):
    """The feed is read anew from 0, and each effect has the `effect_id` that it had, whatever its payment's id is."""
    database = backups.new()
    with desk_at(database) as desk:
        before_the_backup(desk)
        backup = backups.of(database)
        after_the_backup(desk)
        now = desk.clock()
    with desk_at(backup, now) as desk:
        heard(desk)

    found = []
    for each in (database, backup):
        event_feed.caught_up(each)
        with each.read() as unit:
            told = event_feed.find(unit, ["acme"], after=0, limit=100)
        found.append({json.loads(one.payload)["data"]["effect_id"]: one for one in told})
    assert found[0].keys() == found[1].keys()
    assert len(found[0]) == 5


def test_a_cursor_from_before_the_restore_is_never_read_on_from(backups):
    """At every number that was given since the backup, however many effects are numbered again."""
    database = backups.new()
    with desk_at(database) as desk:
        before_the_backup(desk)
        desk.told("confirmed", "pi_kept")
        cursor_kept = cursors(database)
        backup = backups.of(database)
        after_the_backup(desk)
        now = desk.clock()
    cursors_since = cursors(database)[len(cursor_kept) :]
    with desk_at(backup, now) as desk:
        heard(desk)
        for nth in range(5):
            desk.told("confirmed", f"pi_later_{nth}")
    numbers = [cursor.number for cursor in cursors(backup)]

    assert numbers[-1] > cursors_since[-1].number
    with backup.read() as unit:
        assert all(event_feed.holds(unit, cursor) for cursor in cursor_kept)
        assert not any(event_feed.holds(unit, cursor) for cursor in cursors_since)


def cursors(database):
    """Of everything that is owed, numbered."""
    event_feed.caught_up(database)
    with database.read() as unit:
        return [told.cursor for told in event_feed.find(unit, ["acme"], after=0, limit=100)]


def test_what_waited_for_its_number_in_the_backup_has_another_mark_afterwards(backups):
    """It may get the number that it had, with others before it than there were."""
    database = backups.new()
    with desk_at(database) as desk:
        desk.told("confirmed", "pi_1")
        backup = backups.of(database)
    (cursor,) = cursors(database)
    (again,) = cursors(backup)

    assert cursor.number == again.number == 1
    with backup.read() as unit:
        assert (event_feed.holds(unit, cursor), event_feed.holds(unit, again)) == (False, True)


def test_an_effect_is_found_by_the_id_that_the_shop_was_given(backups):
    """As it stands in the shop's log, with or without what `webhook-id` begins with."""
    database = backups.new()
    shop = Shop("shop")
    with desk_at(database) as desk:
        desk.told("confirmed", "pi_1")
        dispatch(desk, [shop, Shop("ledger")])
        (owed,) = desk.owed(desk.payment().id)

    (given,) = shop.came
    assert is_id(given)
    assert given != owed.id
    with database.read() as unit:
        assert {outbox.get(unit, text).id for text in (given, f"{WEBHOOK_PREFIX}{given}", owed.id)} == {owed.id}
