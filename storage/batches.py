"""Statements of the worker on a batch of messages: one for each table."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, Final

from statemachine.phases import Source
from storage import hashing
from storage.bulk import Columns, Delete, Insert, Update, array, instants, unnest
from storage.columns import columns_of, table_of
from storage.database import Unit
from storage.errors import LeaseLost, UnreadableRow
from storage.payment_polls import GONE
from storage.tables import InboxMessage, Payment, PaymentName, PaymentPoll, Transition
from storage.tables_inbox import QueuedMessage, RecordedDecision
from storage.types import CLOCK_WAS_WRONG, InboxStatus
from storage.unreadable_rows import UnreadableRecord

#: Account, kind, and a name within them.
Key = tuple[str, str, str]

_PENDING: Final = f"status = '{InboxStatus.PENDING.value}'"
#: The same in words that fit no index: a row that is known is looked up, and not searched for among all that wait.
_STILL_PENDING: Final = f"coalesce({_PENDING}, false)"


# -- messages

_OURS: Final = (
    *(Source.MERCHANT, Source.POLLER, Source.OPERATOR),
    *(Source.CREATE, Source.CANCEL, Source.CAPTURE, Source.REFUND),
)
_MESSAGE: Final = Columns(
    table_of(InboxMessage),
    (
        *("id", "account", "source", "body", "headers", "envelope_digest", "received_at", "provider_time", "kind"),
        *("ref", "http_status", "about", "variant_of"),
    ),
    # they tell whether a statement is our own, and matter to nobody else
    given={"headers": f"CASE WHEN source IN ({', '.join(repr(s.value) for s in _OURS)}) THEN headers END"},
)

_CLAIM: Final = ("message_id", "claim_token")
_queue: Final = table_of(QueuedMessage)
_WAITING: Final = ("status", "attempts", "claim_token", "readings", "awaits")
_QUEUED: Final = Columns(_queue, ("message_id", *_WAITING))
_waiting: Final = itemgetter(*_WAITING)
_DONE: Final = Delete(_queue, _CLAIM, only=_STILL_PENDING)
_KEEP: Final = Update(_queue, ("status", "attempts", "awaits", "last_error", "readings"), _CLAIM, only=_STILL_PENDING)
_LEASE: Final = Update(_queue, ("available_at",), _CLAIM, more="claim_token = claim_token + 1", only=_STILL_PENDING)
_PUT_OFF: Final = Update(
    _queue,
    ("available_at", "last_error", "attempts"),
    _CLAIM,
    more="claim_token = claim_token + 1",  # what nobody has claimed yet would be due at once
    only=_STILL_PENDING,
)
_REOPEN: Final = Update(
    _queue,
    ("available_at",),
    ("account", "awaits"),
    more=f"{_PENDING}, awaits = NULL",
    only=f"status = '{InboxStatus.PARKED.value}'",
)
_DECIDED: Final = InboxStatus.DECIDED.value

_DECISION_NAMES: Final = columns_of(RecordedDecision)
_DECIDE: Final = Insert(table_of(RecordedDecision), _DECISION_NAMES)
_decision: Final = itemgetter(*_DECISION_NAMES)

#: What of an outcome is a column of its decision; the rest is its details.
_OUTCOME_COLUMNS: Final = frozenset({"outcome", "reason", "at", "payment", "number"})


def due(
    unit: Unit, now: datetime, limit: int, *, since: str = "", only: Sequence[str] | None = None
) -> list[InboxMessage]:
    """Lock up to `limit` due pending messages in order of arrival.

    `since` is the first id that is looked at. They hold what deciding them needs, and are none that another claims.
    Rows that cannot be read are set aside, dead, and hold up no other.
    """
    is_sqlite = unit.dialect == "sqlite"
    at = "?" if is_sqlite else "%s::timestamptz"
    where = [_PENDING, f"(available_at <= {at} OR claim_token = 0 OR available_at > {at})"]
    parameters: list[Any] = instants(unit.dialect, [now, now + CLOCK_WAS_WRONG])
    if since:
        where.append("message_id >= ?" if is_sqlite else "message_id >= %s::uuid")
        parameters.append(since.replace("-", "") if is_sqlite else since)
    if only is not None:
        where.append(_among(unit, "message_id"))
        parameters.append(_ids(unit, only))
    return _locked(unit, " AND ".join(where), [*parameters, limit])


def claimed(unit: Unit, message_id: str, token: int) -> InboxMessage:
    """Lock a claimed message and return it; raise LeaseLost where the claim ended."""
    where = f"{_STILL_PENDING} AND claim_token = {int(token)} AND {_among(unit, 'message_id')}"
    found = _locked(unit, where, [_ids(unit, [message_id]), 1], is_patient=True)
    if not found:
        raise LeaseLost
    return found[0]


def _locked(unit: Unit, where: str, parameters: Sequence[Any], *, is_patient: bool = False) -> list[InboxMessage]:
    """Lock rows of the queue, and read their messages."""
    is_sqlite = unit.dialect == "sqlite"
    query = f"SELECT {_QUEUED.expression(unit)} FROM inbox_queue WHERE {where} "  # noqa: S608 - our own names
    query += "ORDER BY inbox_queue.message_id "  # not what stands behind SELECT, which is text
    query += "LIMIT ?" if is_sqlite else f"LIMIT %s FOR UPDATE{'' if is_patient else ' SKIP LOCKED'}"
    aside: list[UnreadableRecord] = []
    queued = {row.message_id: row for row in _QUEUED.records(unit, QueuedMessage, query, parameters, aside)}
    unread: list[UnreadableRecord] = []
    found: dict[str, InboxMessage] = {}
    if queued:
        query = f"SELECT {_MESSAGE.expression(unit)} FROM inbox_message WHERE {_among(unit, 'id')}"  # noqa: S608
        found = {m.id: m for m in _MESSAGE.records(unit, InboxMessage, query, (_ids(unit, queued),), unread)}
    if aside or len(found) != len(queued):
        _set_aside(unit, [(each.raw["message_id"], each.words) for each in aside])
        _set_aside(unit, [(each.raw["id"], each.words) for each in unread])
        gone = [each if not is_sqlite else each.replace("-", "") for each in queued if each not in found]
        _set_aside(unit, [(each, "its message is gone, or its id cannot be read") for each in gone])
    messages = []
    for message_id, row in queued.items():
        message = found.get(message_id)
        if message is not None:
            message.__dict__.update(zip(_WAITING, _waiting(row.__dict__), strict=True))
            message.outcomes = []
            messages.append(message)
    return messages


def _set_aside(unit: Unit, unreadable: Sequence[tuple[Any, str]]) -> None:
    """Mark pending messages of unreadable rows dead, by their ids as stored."""
    mark = "?" if unit.dialect == "sqlite" else "%s"
    for raw_id, words in unreadable:
        unit.run(
            f"UPDATE inbox_queue SET status = '{InboxStatus.DEAD.value}', last_error = {mark}, "  # noqa: S608 - our own names
            f"claim_token = claim_token + 1 WHERE {_PENDING} AND {_is_raw_id(unit)}",
            (words, raw_id),
        )


def _is_raw_id(unit: Unit) -> str:
    """Return a condition on the id as stored, which is the one parameter.

    On SQLite it may be bytes that are no text.
    """
    return "CAST(message_id AS BLOB) = CAST(? AS BLOB)" if unit.dialect == "sqlite" else "message_id = %s::uuid"


def lease(unit: Unit, messages: Sequence[InboxMessage], until: datetime) -> None:
    """Lease locked messages until an instant, each with a new claim token."""
    _LEASE(unit, ((until, message.id, message.claim_token) for message in messages))
    for message in messages:
        message.claim_token += 1


def finish(unit: Unit, messages: Sequence[InboxMessage]) -> None:
    """Append the decisions; raises LeaseLost where another worker claimed one since.

    A decided message leaves the queue; a parked or dead one stays there.
    """
    done = [(m.id, m.claim_token) for m in messages if m.status == _DECIDED]
    kept = [
        (m.status, m.attempts, m.awaits, m.last_error, m.readings + 1, m.id, m.claim_token)
        for m in messages
        if m.status != _DECIDED
    ]
    if _DONE(unit, done) + _KEEP(unit, kept) != len(messages):
        raise LeaseLost
    _DECIDE(unit, (_decision(row) for message in messages for row in _decided(unit, message)))


def _decided(unit: Unit, message: InboxMessage) -> list[dict[str, Any]]:
    """Return the sealed rows of the message's `outcomes`: one more reading of it."""
    rows = []
    message.readings += 1
    for number, entry in enumerate(message.outcomes, start=1):
        row = {
            "message_id": message.id,
            "reading": message.readings,
            "number": number,
            "statement": entry.get("number"),
            "payment_id": entry.get("payment"),
            "at": message.decided_at,
            "outcome": entry["outcome"],
            "reason": entry["reason"],
            "details": {name: value for name, value in entry.items() if name not in _OUTCOME_COLUMNS} or None,
        }
        row["seal"] = unit.sealer.seal(hashing.decision(row, message.envelope_digest, len(message.outcomes)))
        rows.append(row)
    return rows


def postpone(unit: Unit, messages: Sequence[tuple[InboxMessage, datetime, str | None]]) -> None:
    """Delay each message until an instant, with its error; raises LeaseLost."""
    rows = ((at, error, m.attempts, m.id, m.claim_token) for m, at, error in messages)
    if _PUT_OFF(unit, rows) != len(messages):
        raise LeaseLost


def release(unit: Unit, messages: Sequence[InboxMessage], now: datetime) -> None:
    """End claims of messages that were not tried.

    What others have claimed since stays theirs.
    """
    _PUT_OFF(unit, ((now, m.last_error, m.attempts, m.id, m.claim_token) for m in messages))


def reopen_awaiting(unit: Unit, awaited: Sequence[tuple[str, str]], now: datetime) -> int:
    """Make messages parked for these payments pending again; return how many.

    Payments are given by account and name.
    """
    # In the order of the index of those, which alone is asked: PostgreSQL believes of a table that it knows little of
    # that most rows wait, and would go through all of it in search of the first.
    if not unit.rows("SELECT 1 FROM inbox_queue WHERE awaits IS NOT NULL ORDER BY account, awaits LIMIT 1"):
        return 0
    return _REOPEN(unit, ((now, account, name) for account, name in awaited))


# -- payments

_PAYMENT_NAMES: Final = columns_of(Payment)
_PAYMENT: Final = Columns(table_of(Payment), _PAYMENT_NAMES)
_ADD: Final = Insert(table_of(Payment), _PAYMENT_NAMES)
_payment: Final = itemgetter(*_PAYMENT_NAMES)

#: What a message that moves a payment changes, and what few do. Nobody changes the rest through the worker.
_OFTEN_CHANGED: Final = (
    *("state", "phase", "state_as_of", "version", "head_hash", "facts", "failure_reason", "expires_at", "changed_at"),
    "counts",
)
_RARELY_CHANGED: Final = (
    *("provider_ref", "reference", "alias", "names", "amount_minor", "currency", "authorised_minor", "captured_minor"),
    *("refunded_minor", "charged_back_minor", "disputed_minor", "stated", "parts", "capture_by"),
    *("review", "review_note", "review_opened_at", "disputed", "accepted", "reviews", "return_url"),
    *("description", "merchant_metadata"),
)
_AS_READ: Final = ("id", "version")
_MOVE: Final = Update(table_of(Payment), (*_OFTEN_CHANGED, "seal"), _AS_READ)
_CHANGE: Final = Update(table_of(Payment), (*_OFTEN_CHANGED, *_RARELY_CHANGED, "seal"), _AS_READ)
_often_changed: Final = itemgetter(*_OFTEN_CHANGED)
_rarely_changed: Final = itemgetter(*_RARELY_CHANGED)

_ADD_NAME: Final = Insert(table_of(PaymentName), ("account", "kind", "name", "payment_id"))

#: A payment as it was read: its version, and what may change.
AsRead = tuple[int, tuple[Any, ...], tuple[Any, ...]]


def as_read(payment: Payment) -> AsRead:
    """Return what `change` compares with."""
    return payment.version, _often_changed(payment.__dict__), _rarely_changed(payment.__dict__)


#: The order in which everybody locks, in words that fit no index: one in that order would be gone through to its end.
_BY_ID: Final = "payment.id::text"


def by_ref(unit: Unit, keys: Sequence[Key]) -> list[Payment]:
    """Lock and return the payments with these provider references."""
    names_of: dict[tuple[str, str], list[str]] = {}
    for account, kind, name in keys:
        names_of.setdefault((account, kind), []).append(name)
    if unit.dialect != "sqlite":
        # Each name is looked up: of a join with the names PostgreSQL believes that reading the table is no slower.
        named = " OR ".join(["account = %s AND kind = %s AND provider_ref = ANY(%s::text[])"] * len(names_of))
        query = f"SELECT {_PAYMENT.expression(unit)} FROM payment WHERE {named} ORDER BY {_BY_ID} FOR UPDATE"  # noqa: S608
        given = [word for pair, names in names_of.items() for word in (*pair, array("text", names))]
        return _PAYMENT.records(unit, Payment, query, given)
    found: list[Payment] = []
    for (account, kind), names in names_of.items():
        named = "account = ? AND kind = ? AND provider_ref IN (SELECT value FROM json_each(?))"
        query = f"SELECT {_PAYMENT.expression(unit)} FROM payment WHERE {named}"  # noqa: S608 - our own names
        found += _PAYMENT.records(unit, Payment, query, (account, kind, json.dumps(names)))
    return found


def by_name(unit: Unit, keys: Sequence[Key]) -> dict[Key, str]:
    """Return the ids of the payments with these further names; not locked."""
    where = "n.account = k.account AND n.kind = k.kind AND n.name = k.name"
    if unit.dialect == "sqlite":
        given: Sequence[Any] = [json.dumps(keys)]
        source = f"{_KEYS_OF_SQLITE} CROSS JOIN payment_name n ON {where}"  # in this order: each name is looked up
        payment = "n.payment_id"
    else:
        given = _arrays(keys)
        payment = "found.payment_id"
        source = (
            f"{_KEYS_OF_POSTGRESQL} CROSS JOIN LATERAL "  # noqa: S608 - our own names
            f"(SELECT n.payment_id::text AS payment_id FROM payment_name n WHERE {where} LIMIT 1) AS found"
        )
    rows = unit.rows(f"SELECT k.account, k.kind, k.name, {payment} FROM {source}", given)  # noqa: S608 - our own names
    return {(account, kind, name): _with_dashes(payment_id) for account, kind, name, payment_id in rows}


def add_names(unit: Unit, names: Iterable[tuple[str, str, str, str]]) -> None:
    """Insert further names of payments; IntegrityError where one is another's."""
    _ADD_NAME(unit, names)


def by_id(unit: Unit, payment_ids: Iterable[str]) -> list[Payment]:
    """Those of the payments that exist; locked."""
    query = f"SELECT {_PAYMENT.expression(unit)} FROM payment WHERE {_among(unit, 'id')}"  # noqa: S608 - our own names
    lock = "" if unit.dialect == "sqlite" else f" ORDER BY {_BY_ID} FOR UPDATE"
    return _PAYMENT.records(unit, Payment, query + lock, (_ids(unit, payment_ids),))


def held(unit: Unit, keys: Iterable[Key], payment_ids: Iterable[str]) -> dict[Key | str, str]:
    """Return payments that another session has locked, by name and id; does not wait.

    On SQLite nobody else writes, so that there is none.
    """
    if unit.dialect == "sqlite":
        return {}
    keys, ids = list(keys), list(payment_ids)
    query = (
        f"SELECT p.id::text, p.account, p.kind, p.provider_ref FROM payment AS p WHERE p.id = ANY(%s::uuid[]) "  # noqa: S608
        f"OR (p.account, p.kind, p.provider_ref) IN (SELECT account, kind, name FROM {_KEYS_OF_POSTGRESQL})"
    )
    given = [array("uuid", ids), *_arrays(keys or [("", "", "")])]
    rows = unit.rows(query, given)
    free = (
        "SELECT p.id::text FROM payment AS p JOIN payment_poll AS q ON q.payment_id = p.id "
        "WHERE p.id = ANY(%s::uuid[]) FOR UPDATE SKIP LOCKED"
    )
    found = {row[0] for row in unit.rows(free, [array("uuid", [row[0] for row in rows])])}
    names: dict[Key | str, str] = {}
    for payment_id, account, kind, ref in rows:
        if payment_id not in found:
            names[payment_id] = payment_id
            names[account, kind, ref] = payment_id
    return names


#: Names that several payments may have; the newest is meant.
UNBOUND: Final = "p.reference = k.name AND coalesce(p.provider_ref, '') = ''"
REFERENCE: Final = "p.reference = k.name"
ALIAS: Final = "p.alias = k.name"


def newest(unit: Unit, keys: Sequence[Key], name: str) -> dict[Key, str | None]:
    """Find the newest payment for each key, by a name; not locked.

    The name is UNBOUND, REFERENCE or ALIAS.
    """
    # Ids are compared so that no index in their order is taken: it would be gone through to the account's last row.
    where = f"WHERE p.account = k.account AND p.kind = k.kind AND {name}"
    if unit.dialect == "sqlite":
        given: Sequence[Any] = [json.dumps(keys)]
        query = f"SELECT k.account, k.kind, k.name, (SELECT max(+p.id) FROM payment p {where}) FROM {_KEYS_OF_SQLITE}"  # noqa: S608
    else:
        given = _arrays(keys)
        query = (
            f"SELECT k.account, k.kind, k.name, last.id FROM {_KEYS_OF_POSTGRESQL} CROSS JOIN LATERAL "  # noqa: S608
            f"(SELECT p.id::text FROM payment p {where} ORDER BY p.id::text DESC LIMIT 1) AS last"
        )
    found: dict[Key, str | None] = dict.fromkeys(keys)
    for account, kind, word, payment_id in unit.rows(query, given):
        found[account, kind, word] = payment_id and _with_dashes(payment_id)
    return found


#: Payments of one reference that are looked at for the oldest; a merchant who uses one for all has many.
NAMESAKES_LIMIT: Final = 200

_HAS_REFERENCE: Final = (
    f"FROM payment p WHERE p.account = k.account AND p.kind = k.kind AND p.reference = k.name LIMIT {NAMESAKES_LIMIT}"
)
_MAY_BE_PAID: Final = "phase NOT IN ('failed', 'cancelled', 'expired')"


def namesakes(unit: Unit, keys: Sequence[Key]) -> dict[Key, tuple[str, ...]]:
    """Find the oldest payments with each reference, ended unpaid or not.

    The keys are account, kind and reference; the ids are those of the oldest payment and the oldest not ended unpaid.

    Not locked; nothing for a key without payments.
    """
    if unit.dialect == "sqlite":  # both in one text, so that each reference is looked up once
        given: Sequence[Any] = [json.dumps(keys)]
        unended = f"ifnull(min(id) FILTER (WHERE {_MAY_BE_PAID}), '')"
        had = f"SELECT min(id) || ' ' || {unended} FROM (SELECT p.id, p.phase {_HAS_REFERENCE})"  # noqa: S608
        columns, source = f"({had})", _KEYS_OF_SQLITE
    else:
        given = _arrays(keys)
        columns = "concat_ws(' ', had.oldest, had.unended)"
        source = (
            f"{_KEYS_OF_POSTGRESQL} CROSS JOIN LATERAL (SELECT min(id) AS oldest, "  # noqa: S608 - our own names
            f"min(id) FILTER (WHERE {_MAY_BE_PAID}) AS unended "
            f"FROM (SELECT p.id::text AS id, p.phase {_HAS_REFERENCE}) AS few) AS had"
        )
    rows = unit.rows(f"SELECT k.account, k.kind, k.name, {columns} FROM {source}", given)  # noqa: S608 - our own names
    return {
        (account, kind, name): tuple(dict.fromkeys(_with_dashes(each) for each in (found or "").split()))
        for account, kind, name, found in rows
    }


def unbound_ids(unit: Unit, account: str, kinds: Sequence[str], since: datetime, limit: int) -> list[str]:
    """Ids of payments whose create calls may still wait for an answer, up to `limit`."""
    is_sqlite = unit.dialect == "sqlite"
    marks = ", ".join("?" if is_sqlite else "%s" for _ in kinds)
    at, some = ("?", "?") if is_sqlite else ("%s::timestamptz", "%s")
    query = (
        f"SELECT {'id' if is_sqlite else 'id::text'} FROM payment WHERE account = {some} AND kind IN ({marks}) "  # noqa: S608
        f"AND provider_ref IS NULL AND state IS NULL AND created_at >= {at} LIMIT {some}"
    )
    rows = unit.rows(query, [account, *kinds, *instants(unit.dialect, [since]), limit])
    return [_with_dashes(row[0]) for row in rows]


def is_unbound(payment: Payment, account: str, kinds: Sequence[str], since: datetime) -> bool:
    """Return whether `unbound` would find the payment."""
    is_unnamed = payment.provider_ref is None and payment.state is None
    return is_unnamed and payment.account == account and payment.kind in kinds and payment.created_at >= since


def add(unit: Unit, payments: Sequence[Payment]) -> None:
    """Insert sealed payments; IntegrityError where a name is taken.

    The name is account, kind and provider_ref. `add_polls` inserts what belongs to each.
    """
    for payment in payments:
        payment.seal = unit.sealer.seal(hashing.payment(payment))
    _ADD(unit, (_payment(payment.__dict__) for payment in payments))


def change(unit: Unit, payments: Iterable[tuple[Payment, AsRead]]) -> None:
    """Store sealed payments that differ from what was read; leave the others alone.

    Raises LeaseLost where one moved since it was read.
    """
    moved, changed = [], []
    for payment, (version, often, rarely) in payments:
        now = payment.__dict__
        now_often, now_rarely = _often_changed(now), _rarely_changed(now)
        if now_rarely != rarely:
            payment.seal = unit.sealer.seal(hashing.payment(payment))
            changed.append((*now_often, *now_rarely, payment.seal, payment.id, version))
        elif now_often != often:
            payment.seal = unit.sealer.seal(hashing.payment(payment))
            moved.append((*now_often, payment.seal, payment.id, version))
    if _MOVE(unit, moved) + _CHANGE(unit, changed) != len(moved) + len(changed):
        raise LeaseLost


# -- when payments were heard of, and when they are asked about

_POLL_NAMES: Final = columns_of(PaymentPoll)
_POLL: Final = Columns(table_of(PaymentPoll), _POLL_NAMES)
_ADD_POLL: Final = Insert(table_of(PaymentPoll), _POLL_NAMES)
_poll: Final = itemgetter(*_POLL_NAMES)

#: What every message changes, and what one that moves the payment changes besides. The poller alone changes the rest.
_HEARD: Final = ("heard_at", "statements", "seal")
_NEXT: Final = ("next_poll_at", "poll_priority", "polls")
_POLL_AS_READ: Final = ("payment_id", "statements")
_HEAR: Final = Update(table_of(PaymentPoll), _HEARD, _POLL_AS_READ)
_PLAN: Final = Update(table_of(PaymentPoll), (*_HEARD, *_NEXT), _POLL_AS_READ)
_heard: Final = itemgetter(*_HEARD)
_next: Final = itemgetter(*_NEXT)

#: A payment's poll as it was read: its number of statements, and the next question.
PollAsRead = tuple[int, tuple[Any, ...]]


def poll_as_read(poll: PaymentPoll) -> PollAsRead:
    """Return what `change_polls` compares with."""
    return poll.statements, _next(poll.__dict__)


def polls(unit: Unit, payment_ids: Sequence[str]) -> list[PaymentPoll]:
    """Lock and return what belongs to payments that are locked already.

    Raises UnreadableRow where one has no row: what it says would be lost.
    """
    query = f"SELECT {_POLL.expression(unit)} FROM payment_poll WHERE {_among(unit, 'payment_id')}"  # noqa: S608
    lock = "" if unit.dialect == "sqlite" else " ORDER BY payment_poll.payment_id::text FOR UPDATE"
    found = _POLL.records(unit, PaymentPoll, query + lock, (_ids(unit, payment_ids),))
    if len(found) != len(payment_ids):
        missing = sorted(set(payment_ids) - {poll.payment_id for poll in found})
        raise UnreadableRow(f"payment {missing[0]} cannot be read: {GONE}")
    return found


def add_polls(unit: Unit, new: Sequence[PaymentPoll]) -> None:
    """Insert what belongs to new payments, sealed."""
    for poll in new:
        poll.seal = unit.sealer.seal(hashing.payment_poll(poll))
    _ADD_POLL(unit, (_poll(poll.__dict__) for poll in new))


def change_polls(unit: Unit, changed: Iterable[tuple[PaymentPoll, PollAsRead]]) -> None:
    """Store them sealed; raises LeaseLost where another has heard of one since."""
    heard, planned = [], []
    for poll, (statements, was) in changed:
        poll.seal = unit.sealer.seal(hashing.payment_poll(poll))
        now = poll.__dict__
        if _next(now) == was:
            heard.append((*_heard(now), poll.payment_id, statements))
        else:
            planned.append((*_heard(now), *_next(now), poll.payment_id, statements))
    if _HEAR(unit, heard) + _PLAN(unit, planned) != len(heard) + len(planned):
        raise LeaseLost


# -- history, and what is owed

_TRANSITION_NAMES: Final = columns_of(Transition)
_APPEND: Final = Insert(table_of(Transition), _TRANSITION_NAMES)
_transition: Final = itemgetter(*_TRANSITION_NAMES)


def append(unit: Unit, transitions: Sequence[Transition]) -> None:
    """Append transitions; IntegrityError where another worker took a number."""
    _APPEND(unit, (_transition(transition.__dict__) for transition in transitions))


def occurrences(unit: Unit, payment_ids: Iterable[str]) -> dict[tuple[str, str, str, int], int]:
    """Return the numbers of all outbox messages of the payments.

    By payment, effect, sink and occurrence.
    """
    payment = "payment_id" if unit.dialect == "sqlite" else "payment_id::text"
    query = f"SELECT {payment}, effect, sink, occurrence, number FROM outbox_message WHERE {_among(unit, 'payment_id')}"  # noqa: S608
    rows = unit.rows(query, (_ids(unit, payment_ids),))
    return {(_with_dashes(found), effect, sink, nth): number for found, effect, sink, nth, number in rows}


# -- words of both databases

_KEYS_OF_POSTGRESQL: Final = unnest(("text", "text", "text"), ("account", "kind", "name"), "k")
_KEYS_OF_SQLITE: Final = (
    "(SELECT json_extract(value, '$[0]') AS account, json_extract(value, '$[1]') AS kind, "
    "json_extract(value, '$[2]') AS name FROM json_each(?)) AS k"
)


def _arrays(keys: Sequence[Key]) -> list[str]:
    return [array("text", column) for column in zip(*keys, strict=True)]


def _among(unit: Unit, column: str) -> str:
    """Return the condition that the column is among the ids of `_ids`."""
    if unit.dialect == "sqlite":
        return f"{column} IN (SELECT value FROM json_each(?))"  # noqa: S608 - our own names
    return f"{column} = ANY(%s::uuid[])"


def _ids(unit: Unit, ids: Iterable[str]) -> str:
    if unit.dialect == "sqlite":
        return json.dumps([each.replace("-", "") for each in ids])
    return array("uuid", list(ids))


def _with_dashes(text: str) -> str:
    return text if "-" in text else f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
