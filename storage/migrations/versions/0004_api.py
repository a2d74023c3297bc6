"""The merchant's API: its keys, answers to repeatable calls, and the numbered feed of effects.

On PostgreSQL it runs beside the program of 0003, and leaves the numbering to whoever reads the feed first; on SQLite it
is one transaction.
"""

import sqlalchemy as sa
from alembic import op
from alembic.migration import MigrationContext
from alembic.operations import Operations

import storage.types
from storage.errors import SchemaOutdated
from storage.online import Online

revision = "0004"
down_revision = "0003"

#: Whether it runs beside the program of the revision before; see storage/migrate.py.
is_online = True

_INSTANT = storage.types.UtcDateTime(timezone=True)
_ID = sa.Uuid(as_uuid=False)
_JSON = sa.JSON(none_as_null=True)

_COLUMNS = "subject, effect, occurrence, outbox_id, account, payment_id, created_at"
_VALUES = (
    "coalesce(NEW.payment_id, NEW.cause), NEW.effect, NEW.occurrence, NEW.id, NEW.account, NEW.payment_id, "
    "NEW.created_at"
)

#: SQLite applies the ON CONFLICT of the statement that fires a trigger to what the trigger does, so it looks instead;
#: nobody else writes meanwhile.
_ON_SQLITE = f"""
CREATE TRIGGER outbox_message_is_event AFTER INSERT ON outbox_message
WHEN NOT EXISTS (
    SELECT 1 FROM event WHERE subject = coalesce(NEW.payment_id, NEW.cause)
    AND effect = NEW.effect AND occurrence = NEW.occurrence
)
BEGIN
    INSERT INTO event ({_COLUMNS}) VALUES ({_VALUES});
END
"""  # noqa: S608 - our own words

_ON_POSTGRESQL = (
    f"""
CREATE FUNCTION outbox_message_is_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event ({_COLUMNS}) VALUES ({_VALUES}) ON CONFLICT (subject, effect, occurrence) DO NOTHING;
    RETURN NULL;
END $$
""",  # noqa: S608 - our own words
    """
CREATE TRIGGER outbox_message_is_event AFTER INSERT ON outbox_message
FOR EACH ROW EXECUTE FUNCTION outbox_message_is_event()
""",
)


#: What was owed before the trigger was there.
_OWED_BEFORE = f"""
INSERT INTO event ({_COLUMNS})
SELECT coalesce(payment_id, cause), effect, occurrence, id, account, payment_id, created_at FROM outbox_message
WHERE id > :after AND id <= :end ORDER BY id
ON CONFLICT (subject, effect, occurrence) DO NOTHING
"""  # noqa: S608 - our own words

_NUMBERED = f"""
INSERT INTO event ({_COLUMNS}, number)
SELECT subject, effect, occurrence, id, account, payment_id, created_at, row_number() OVER (ORDER BY id) FROM (
    SELECT coalesce(payment_id, cause) AS subject, effect, occurrence, id, account, payment_id, created_at,
    row_number() OVER (PARTITION BY coalesce(payment_id, cause), effect, occurrence ORDER BY id) AS nth
    FROM outbox_message
) AS owed WHERE nth = 1
"""  # noqa: S608 - our own words


def upgrade() -> None:
    """Forward. A repeat goes on where the last run ended; what was owed before is told first."""
    if op.get_bind().dialect.name == "sqlite":
        _new_tables(Operations(op.get_context()))
        op.execute(_NUMBERED)
        op.execute("INSERT INTO event_feed (name, last_number) SELECT 'effects', count(*) FROM event")
        op.execute(_ON_SQLITE)
        op.create_index("ix_payment_account", "payment", ["account", "id"])
        return
    context = op.get_context()
    config = context.config
    if config is None:
        raise SchemaOutdated("this migration is run by receipted migrate alone")
    with context.autocommit_block():
        online = Online(op.get_bind().engine, config.attributes["still_alone"])
        online.short(
            "feed", lambda connection: _new_tables(Operations(MigrationContext.configure(connection))), *_ON_POSTGRESQL
        )
        online.batches("all owed", "outbox_message", _OWED_BEFORE)
        online.index("ix_payment_account", "INDEX ON payment (account, id)")
    op.execute("DROP TABLE migration_step")


def _new_tables(do: Operations) -> None:
    do.create_table(
        "api_key",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("environment", sa.String(length=8), nullable=False),
        sa.Column("scopes", _JSON, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("prefix", sa.String(length=24), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("expires_at", _INSTANT, nullable=True),
        sa.Column("revoked_at", _INSTANT, nullable=True),
        sa.Column("replaced_by", _ID, nullable=True),
        sa.Column("last_used_at", _INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=do.f("pk_api_key")),
    )
    do.create_index("uq_api_key_digest", "api_key", ["digest"], unique=True)
    do.create_table(
        "idempotency_key",
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("claim_token", sa.Integer(), nullable=False),
        sa.Column("lease_ends_at", _INSTANT, nullable=False),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("answer", sa.String(), nullable=True),
        sa.Column("answered_at", _INSTANT, nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("expires_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("scope", "key", name=do.f("pk_idempotency_key")),
    )
    do.create_index("ix_idempotency_key_expires_at", "idempotency_key", ["expires_at"])
    do.create_table(
        "event",
        sa.Column("subject", _ID, nullable=False),
        sa.Column("effect", sa.String(length=32), nullable=False),
        sa.Column("occurrence", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=True),
        sa.Column("outbox_id", _ID, nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("payment_id", _ID, nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("subject", "effect", "occurrence", name=do.f("pk_event")),
    )
    do.create_table(
        "event_feed",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=do.f("pk_event_feed")),
    )
    do.create_index("uq_event_number", "event", ["number"], unique=True)
    where = sa.text("number IS NULL")
    do.create_index("ix_event_unnumbered", "event", ["outbox_id"], sqlite_where=where, postgresql_where=where)
