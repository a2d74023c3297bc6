"""The migration 0003 on PostgreSQL: its steps beside the program of 0002, each of which may be repeated.

What that program writes meanwhile is completed by triggers, what it has written in batches. Then the tables as they
are become the first partition of those of the same name: a constraint says beforehand what the partition's bounds say,
so that nobody looks into the rows while they are locked, and no row is copied.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from storage.ids import first_id
from storage.online import Online

APPEND_ONLY = "a transition is never changed: history is append-only"

#: By table: what it is partitioned by.
TABLES = {"inbox_message": "id", "transition": "payment_id", "delivery_attempt": "outbox_id"}

_PRIMARY = {
    "inbox_message": "id",
    "transition": "payment_id, number",
    "delivery_attempt": "outbox_id, number",
}

#: By table: its indexes besides the primary key.
INDEXES = {
    "inbox_message": {
        "ix_inbox_message_pending": "(id) WHERE status = 'pending'",
        "ix_inbox_message_awaits": "(account, awaits) WHERE awaits IS NOT NULL",
        "ix_inbox_message_redelivered": "(account, last_redelivered_at) WHERE last_redelivered_at IS NOT NULL",
        "ix_inbox_message_payment_id": "(payment_id)",
    },
    "transition": {"ix_transition_id": "(id)", "ix_transition_cause": "(cause)"},
    "delivery_attempt": {},
}

#: The oldest partition ends with a month that is at least so far away, so that what is written during the migration,
#: or after one that was broken off, is in it.
_AHEAD = timedelta(days=31)
_TOO_NEAR = timedelta(days=7)

#: What the program of 0002 records is known from its own commit on.
_KNOWN = (
    """
CREATE FUNCTION inbox_message_known() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO known_delivery (account, delivery_key, message_id, digest)
    VALUES (NEW.account, NEW.delivery_key, NEW.id, NEW.digest) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$
""",
    """
CREATE TRIGGER inbox_message_known AFTER INSERT ON inbox_message
FOR EACH ROW EXECUTE FUNCTION inbox_message_known()
""",
)

_ALL_KNOWN = """
INSERT INTO known_delivery (account, delivery_key, message_id, digest)
SELECT account, delivery_key, id, digest FROM inbox_message WHERE id > :after AND id <= :end ON CONFLICT DO NOTHING
"""

#: What else a row of each table says; a JSON value is compared as it is written.
_SAID = {
    "transition": "id payment_id number from_state to_state phase via::text forced cause evidence source actor reason "
    "as_of recorded_at prev_hash hash",
    "delivery_attempt": "id outbox_id number started_at duration_ms http_status outcome error",
}


#: History stays closed but for this: an account that is not there yet becomes that of the row's payment.
_ACCOUNT_OF = """
CREATE FUNCTION {table}_account() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    known varchar;
BEGIN
    SELECT account INTO known FROM {owner} WHERE id = NEW.{by};
    IF TG_OP = 'INSERT' THEN
        IF NEW.account = '' THEN
            NEW.account := known;
        END IF;
        RETURN NEW;
    END IF;
    IF OLD.account = '' AND NEW.account = known AND ROW({new}) IS NOT DISTINCT FROM ROW({old}) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '{refusal}' USING ERRCODE = 'integrity_constraint_violation';
END $$
"""

_ALL_ACCOUNTS = """
UPDATE {table} SET account = (SELECT account FROM {owner} AS owner WHERE owner.id = {table}.{by})
WHERE id > :after AND id <= :end AND account = ''
"""

#: The trigger that keeps history closed, and its function.
_CLOSED = "transition_append_only"

_OWNERS = {"transition": "payment", "delivery_attempt": "outbox_message"}


def upgrade(online: Online, new_tables: Callable[[Connection], None]) -> None:
    """Every step in turn, each as far as it is not done yet."""
    online.short("new tables", new_tables)
    for table, column in (
        ("outbox_message", "cause"),
        ("outbox_message", "payment_id"),
        ("transition", "cause"),
        ("transition", "payment_id"),
        ("delivery_attempt", "outbox_id"),
    ):
        online.short(f"without fk {table} {column}", f"ALTER TABLE {table} DROP CONSTRAINT fk_{table}_{column}")
    online.short("known from now on", *_KNOWN)
    online.batches("all known", "inbox_message", _ALL_KNOWN)
    online.short("scrubbed_at", "ALTER TABLE inbox_message ADD COLUMN scrubbed_at timestamptz")
    _fill_accounts(online)
    for table, name, unique, definition in (
        ("inbox_message", "ix_inbox_message_first_pending", "", "(id) WHERE status = 'pending'"),
        ("transition", "transition_first_pkey", "UNIQUE ", "(payment_id, number)"),
        ("transition", "ix_transition_first_id", "", "(id)"),
        ("delivery_attempt", "delivery_attempt_first_pkey", "UNIQUE ", "(outbox_id, number)"),
    ):
        online.index(name, f"{unique}INDEX ON {table} {definition}")
    bound = _bounded(online)
    online.short("switch", lambda connection: _switch(connection, bound))


def _trigger(name: str, when: str, function: str) -> str:
    return f"CREATE TRIGGER {name} {when} EXECUTE FUNCTION {function}()"


def _fill_accounts(online: Online) -> None:
    for table, owner in _OWNERS.items():
        by = TABLES[table]
        old, new = (", ".join(f"{row}.{name}" for name in _SAID[table].split()) for row in ("OLD", "NEW"))
        function = _ACCOUNT_OF.format(table=table, owner=owner, by=by, refusal=APPEND_ONLY, old=old, new=new)
        works = [
            f"ALTER TABLE {table} ADD COLUMN account varchar(64) NOT NULL DEFAULT ''",
            function,
            _trigger(f"{table}_account", f"BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW", f"{table}_account"),
        ]
        if table == "transition":
            works += [
                "DROP TRIGGER transition_append_only ON transition",
                _trigger(_CLOSED, "BEFORE DELETE OR TRUNCATE ON transition FOR EACH STATEMENT", _CLOSED),
            ]
        online.short(f"account of {table}", *works)
        online.batches(f"all accounts of {table}", table, _ALL_ACCOUNTS.format(table=table, owner=owner, by=by))


def _bounded(online: Online) -> datetime:
    """Where the oldest partition ends: nothing beyond it is in the tables, and the database knows that."""
    checks = [f"below {table}" for table in TABLES], [f"surely below {table}" for table in TABLES]
    now, found = online.now(), online.position("bound")
    bound = datetime.fromisoformat(found) if found else None
    if bound is not None and bound - now < _TOO_NEAR and not online.is_done("switch"):
        drop = [f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS ck_{table}_first" for table in TABLES]
        online.undone(["bound", *checks[0], *checks[1]], *drop)
        bound = None
    if bound is None:
        later = now + _AHEAD
        bound = datetime(later.year + later.month // 12, later.month % 12 + 1, 1, tzinfo=UTC)
        online.decided("bound", bound.isoformat())
    end = first_id(bound)
    for table, by in TABLES.items():
        online.short(
            f"below {table}",
            "SET LOCAL enable_seqscan = off",  # who does not know better takes a third of the rows for those beyond
            f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",
            f"CREATE TABLE IF NOT EXISTS {table}_rest (LIKE {table})",
            # What a clock that was wrong has made lies beyond, and is seen again when the rest is attached.
            *(["ALTER TABLE transition DISABLE TRIGGER transition_append_only"] if table == "transition" else []),
            f"WITH gone AS (DELETE FROM {table} WHERE {by} >= '{end}' RETURNING *) "  # noqa: S608 - our names
            f"INSERT INTO {table}_rest SELECT * FROM gone",
            *(["ALTER TABLE transition ENABLE TRIGGER transition_append_only"] if table == "transition" else []),
            f"ALTER TABLE {table} ADD CONSTRAINT ck_{table}_first CHECK ({by} < '{end}') NOT VALID",
        )
    for table in TABLES:
        online.alone(f"surely below {table}", f"ALTER TABLE {table} VALIDATE CONSTRAINT ck_{table}_first")
    return bound


def _switch(connection: Connection, bound: datetime) -> None:
    """The tables as they are become the first partition of those of the same name. Nothing is read or copied."""
    do = connection.exec_driver_sql
    do(f"LOCK TABLE {', '.join(TABLES)} IN ACCESS EXCLUSIVE MODE")
    do("DROP TRIGGER inbox_message_known ON inbox_message")
    do("DROP FUNCTION inbox_message_known()")
    do("ALTER TABLE inbox_message DROP CONSTRAINT uq_inbox_message_account_delivery_key")
    do("DROP INDEX ix_inbox_message_pending")
    do("DROP TRIGGER transition_append_only ON transition")
    for table in _OWNERS:
        do(f"DROP TRIGGER {table}_account ON {table}")
        do(f"DROP FUNCTION {table}_account()")
        do(f"ALTER TABLE {table} ALTER COLUMN account DROP DEFAULT")
        do(f"ALTER TABLE {table} DROP CONSTRAINT pk_{table}")
        do(f"ALTER TABLE {table} DROP CONSTRAINT uq_{table}_{TABLES[table]}_number")
        do(f"ALTER TABLE {table} ADD PRIMARY KEY USING INDEX {table}_first_pkey")
    do("ALTER INDEX pk_inbox_message RENAME TO inbox_message_first_pkey")
    for name in ("awaits", "redelivered", "payment_id"):
        do(f"ALTER INDEX ix_inbox_message_{name} RENAME TO ix_inbox_message_first_{name}")
    do("ALTER INDEX ix_transition_cause RENAME TO ix_transition_first_cause")
    for table, by in TABLES.items():
        do(f"ALTER TABLE {table} RENAME TO {table}_first")
        do(f"CREATE TABLE {table} (LIKE {table}_first) PARTITION BY RANGE ({by})")
        do(f"ALTER TABLE {table} ADD CONSTRAINT pk_{table} PRIMARY KEY ({_PRIMARY[table]})")
        for name, definition in INDEXES[table].items():
            do(f"CREATE INDEX {name} ON {table} {definition}")
        do(f"ALTER TABLE {table} ATTACH PARTITION {table}_rest DEFAULT")
        if do(f"SELECT EXISTS (SELECT FROM {table}_first)").scalar():  # noqa: S608 - our names
            # The constraint says what the partition's bounds say, so that nobody looks into the rows.
            do(
                f"ALTER TABLE {table} ATTACH PARTITION {table}_first "
                f"FOR VALUES FROM (MINVALUE) TO ('{first_id(bound)}')"
            )
            do(f"ALTER TABLE {table}_first DROP CONSTRAINT ck_{table}_first")
        else:
            do(f"DROP TABLE {table}_first")
    do(_trigger(_CLOSED, "BEFORE UPDATE OR DELETE ON transition FOR EACH ROW", _CLOSED))
    for table in ("transition", "transition_rest", "transition_first"):
        if do(f"SELECT to_regclass('{table}')").scalar():
            do(_trigger("transition_not_truncated", f"BEFORE TRUNCATE ON {table} FOR EACH STATEMENT", _CLOSED))
