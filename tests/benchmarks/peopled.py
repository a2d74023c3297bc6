"""A database as it is after months, of so many payments: most went well, and of everything else there is some."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection, text

from api.credentials import Environment, new_key
from service.passwords import ScryptCost, hash_password
from service.permissions import KeyScope, Role
from service.users import new_person
from storage import api_keys, console_users, operator_actions, quarantine, reconciliations
from storage.database import Database
from storage.ids import new_id
from storage.reconciliations import ReconciliationRequest
from storage.tables import RejectedDelivery
from storage.types import ReconciliationStatus
from tests.benchmarks import events
from tests.benchmarks.databases import opened, settle
from tests.benchmarks.growing import Growing

NAME: Final = "benchmark"
PASSWORD: Final = "a long enough password for a benchmark"

_INBOX_QUEUED: Final = (
    "INSERT INTO inbox_queue (message_id, account, status, available_at, attempts, claim_token, readings) "
    "SELECT id, account, '{status}', received_at, 1, 1, 1 FROM inbox_message WHERE delivery_key LIKE '{key}'"
)

#: How rows differ from those that went well: by the first digits of their random name, one in 16, 256, 4096, ...
_CHANGES: Final = (
    "UPDATE payment SET phase = 'expired', state = 'expired' WHERE provider_ref LIKE 'pi_0%'",
    "UPDATE payment SET phase = 'failed', state = 'failed' WHERE provider_ref LIKE 'pi_1a%'",
    "UPDATE payment SET phase = 'open', state = 'awaiting_payment' WHERE provider_ref LIKE 'pi_2b%'",
    "UPDATE payment SET phase = 'processing', state = 'payment_detected' WHERE provider_ref LIKE 'pi_3cc%'",
    "UPDATE payment SET review = 'conflict', review_note = 'a note' WHERE provider_ref LIKE 'pi_4dd%'",
    "UPDATE payment SET phase = 'refunded', state = 'refunded' WHERE provider_ref LIKE 'pi_5eee%'",
    _INBOX_QUEUED.format(status="parked", key="evt_0ab%"),
    _INBOX_QUEUED.format(status="dead", key="evt_1abc%"),
    "UPDATE decision SET outcome = 'parked' FROM inbox_queue AS q WHERE q.message_id = decision.message_id",
    "UPDATE inbox_message SET source = 'poll' WHERE delivery_key LIKE 'evt_2%'",
)
#: Effects that are not delivered, by the last digits of their ids: dead, and pending.
_QUEUED: Final = (
    """
    INSERT INTO outbox_queue (outbox_id, payment_id, account, effect, sink, number, status, attempts, last_error, seal,
        claim_token, next_attempt_at, is_first)
    SELECT id, payment_id, account, effect, sink, number, '{status}', 1, 'HTTP 503', seal, 1, created_at, false
    FROM outbox_message WHERE {of} LIKE '{digits}%'
    """,
    "DELETE FROM outbox_delivered WHERE outbox_id IN (SELECT outbox_id FROM outbox_queue)",
)
#: The feed goes on with what is new; what was there before has its numbers.
_NUMBERED: Final = (
    """
    UPDATE event SET number = numbered.n FROM (
        SELECT subject, effect, occurrence, row_number() OVER (ORDER BY outbox_id) AS n FROM event
    ) AS numbered
    WHERE (event.subject, event.effect, event.occurrence) = (numbered.subject, numbered.effect, numbered.occurrence)
    """,
    "DELETE FROM event_feed",
    "INSERT INTO event_feed (name, last_number) SELECT 'effects', count(*) FROM event",
)
#: So that the last rows are of now.
_MONTH_MS: Final = 30 * 24 * 3600 * 1000

_REJECTED: Final = 2_000
_ACTIONS: Final = 20_000
_RECONCILIATIONS: Final = 200
_KEYS: Final = 50


@dataclass(frozen=True, slots=True)
class Peopled:
    """What is in it, to be asked for."""

    url: str
    payments: int
    api_keys: list[str]  #: one for each list, so that none is called too often
    ids: dict[str, str]  #: by table, a row in the middle
    reference: str  #: of that payment
    provider_ref: str


def peopled(url: str, payments: int) -> Peopled:
    """The database of this URL, whose schema is the newest, is filled."""
    Growing(url, over_ms=_MONTH_MS).grow(payments)
    with opened(url) as database:
        _vary(database)
        _add(database)
        keys = _people(database)
    settle(url)
    with opened(url) as database, database.read() as unit:
        found = "SELECT id, reference, provider_ref FROM payment WHERE reference = :reference"
        row = unit.execute(text(found), {"reference": f"order-{payments // 2}"}).one()
        ids = {"payments": _id(row[0])}
        about = {"inbox": "message_id FROM decision", "outbox": "id FROM outbox_message"}
        for name, what in about.items():
            one = text(f"SELECT {what} WHERE payment_id = :id")
            ids[name] = _id(unit.execute(one, {"id": row[0]}).scalar_one())
        for name, table in (("quarantine", "rejected_delivery"), ("reconciliations", "reconciliation")):
            one = text(f"SELECT id FROM {table} ORDER BY id LIMIT 1")  # noqa: S608 - our own names
            ids[name] = _id(unit.execute(one).scalar_one())
    return Peopled(url, payments, keys, ids, row[1], row[2])


def _id(found: object) -> str:
    """With dashes, whatever the database writes."""
    digits = str(found).replace("-", "")
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


@contextmanager
def _unguarded(connection: Connection) -> Iterator[None]:
    """What was received, decided and delivered is never changed: its triggers are away meanwhile."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        yield
        return
    names = ("outbox_delivered_no_delete", "inbox_message_no_update", "decision_no_update")
    query = text("SELECT sql FROM sqlite_master WHERE name = :name")
    found = [connection.execute(query, {"name": name}).scalar_one() for name in names]
    for name in names:
        connection.execute(text(f"DROP TRIGGER {name}"))
    yield
    for trigger in found:
        connection.exec_driver_sql(trigger)


def _vary(database: Database) -> None:
    of = "id" if database.engine.dialect.name == "sqlite" else "replace(CAST(id AS text), '-', '')"
    with database.engine.connect() as opened_:
        connection = opened_.execution_options(receipted_write=True, receipted_patience=None)  # it takes what it takes
        with connection.begin(), _unguarded(connection):
            for change in (*_CHANGES, *_NUMBERED):
                connection.execute(text(change))
            for status, digits in (("dead", "0ab"), ("pending", "1abc")):
                for change in _QUEUED:
                    queued = change.format(of=f"substr({of}, 18)", status=status, digits=digits)  # digits at random
                    connection.execute(text(queued))


def _add(database: Database) -> None:
    now = datetime.now(UTC)
    with database.write() as unit:
        for number in range(_REJECTED):
            rejected = RejectedDelivery(
                id=new_id(),
                account=events.ACCOUNT,
                received_at=now,
                reason="signature_wrong" if number % 10 else "too_old",
                client="192.0.2.1",
                headers=[["content-type", "application/json"]],
                body=b"x" * 900,
            )
            quarantine.keep(unit, rejected, at_most=_REJECTED)
        for number in range(_ACTIONS):
            action = "replay" if number % 50 else "resolve"
            operator_actions.note(
                unit, account=events.ACCOUNT, at=now, actor="ada", action=action, subject=new_id(), reason="a reason"
            )
        for number in range(_RECONCILIATIONS):
            wanted = ReconciliationRequest(events.ACCOUNT, now - timedelta(days=1), now, "schedule")
            row = reconciliations.begin(unit, wanted, "benchmark", now, timedelta(minutes=1))
            assert row is not None
            drift = [{"payment": new_id(), "was": "open", "is": "paid"}] * (number % 20)
            reconciliations.finish(unit, row, now, ReconciliationStatus.DONE, drift=drift, listed=number)


def _people(database: Database) -> list[str]:
    now = datetime.now(UTC)
    keys = [new_key(f"benchmark-{number}", Environment.LIVE, tuple(KeyScope), now) for number in range(_KEYS)]
    with database.write() as unit:
        console_users.add(
            unit, new_person(NAME, Role.ADMIN, hash_password(PASSWORD, ScryptCost(4, 8, 1)), now, is_temporary=False)
        )
        for record, _ in keys:
            api_keys.add(unit, record)
    return [key for _, key in keys]
