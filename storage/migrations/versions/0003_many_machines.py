"""Many machines: time partitions on PostgreSQL, known deliveries apart from messages, the account on every row.

On PostgreSQL it runs beside the program of 0002 until its last step, `switch`; on SQLite it is one transaction that
copies three tables.
"""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import op
from alembic.migration import MigrationContext
from alembic.operations import Operations

import storage.types
from storage import many_machines
from storage.errors import SchemaOutdated
from storage.online import Online

revision = "0003"
down_revision = "0002"

#: Whether it runs beside the program of the revision before; see storage/migrate.py.
is_online = True

_INSTANT = storage.types.UtcDateTime(timezone=True)
_ID = sa.Uuid(as_uuid=False)
_JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    """Forward. A repeat goes on where the last run ended."""
    if op.get_bind().dialect.name == "sqlite":
        _new_tables(Operations(op.get_context()))
        _upgrade_sqlite()
        return
    context = op.get_context()
    config = context.config
    if config is None:
        raise SchemaOutdated("this migration is run by receipted migrate alone")
    with context.autocommit_block():
        online = Online(op.get_bind().engine, config.attributes["still_alone"])
        many_machines.upgrade(online, lambda do: _new_tables(Operations(MigrationContext.configure(do))))
    op.execute("DROP TABLE migration_step")


def _new_tables(do: Operations) -> None:
    do.create_table(
        "known_delivery",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("delivery_key", sa.String(length=255), nullable=False),
        sa.Column("message_id", _ID, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("account", "delivery_key", name=do.f("pk_known_delivery")),
        sqlite_with_rowid=False,
    )
    do.create_table(
        "retention_run",
        sa.Column("id", _ID, nullable=False),
        sa.Column("rule", sa.String(length=16), nullable=False),
        sa.Column("days", sa.Integer(), nullable=False),
        sa.Column("asked_by", sa.String(length=128), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("began_at", _INSTANT, nullable=False),
        sa.Column("changed_at", _INSTANT, nullable=False),
        sa.Column("resume_at", _INSTANT, nullable=False),
        sa.Column("since_id", _ID, nullable=True),
        sa.Column("until_id", _ID, nullable=False),
        sa.Column("position", sa.String(length=400), nullable=True),
        sa.Column("held_back", _JSON, nullable=False),
        sa.Column("partition", sa.String(length=64), nullable=True),
        sa.Column("seen", sa.Integer(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("statements", sa.Integer(), nullable=False),
        sa.Column("seal", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=do.f("pk_retention_run")),
    )
    do.create_index("ix_retention_run_rule", "retention_run", ["rule", "id"])
    do.add_column("operator_action", sa.Column("account", sa.String(length=64), nullable=True))


# -- SQLite -----------------------------------------------------------------------------------------------------------


def _inbox_columns() -> list[sa.Column[object] | sa.Constraint]:
    return [
        sa.Column("id", _ID, nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("delivery_key", sa.String(length=255), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("headers", _JSON, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("envelope_digest", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=True),
        sa.Column("received_at", _INSTANT, nullable=False),
        sa.Column("provider_time", _INSTANT, nullable=True),
        sa.Column("kind", sa.String(length=32), nullable=True),
        sa.Column("ref", sa.String(length=255), nullable=True),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("about", _ID, nullable=True),
        sa.Column("variant_of", _ID, nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("available_at", _INSTANT, nullable=False),
        sa.Column("claim_token", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("awaits", sa.String(length=300), nullable=True),
        sa.Column("payment_id", _ID, nullable=True),
        sa.Column("decision", sa.String(length=16), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("outcomes", _JSON, nullable=False),
        sa.Column("decided_at", _INSTANT, nullable=True),
        sa.Column("decision_digest", sa.String(length=64), nullable=True),
        sa.Column("redeliveries", sa.Integer(), nullable=False),
        sa.Column("last_redelivered_at", _INSTANT, nullable=True),
        sa.Column("scrubbed_at", _INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbox_message")),
    ]


def _transition_columns() -> list[sa.Column[object] | sa.Constraint]:
    return [
        sa.Column("payment_id", _ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("from_state", sa.String(length=64), nullable=True),
        sa.Column("to_state", sa.String(length=64), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("via", _JSON, nullable=False),
        sa.Column("forced", sa.Boolean(), nullable=False),
        sa.Column("cause", _ID, nullable=False),
        sa.Column("evidence", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("as_of", _INSTANT, nullable=True),
        sa.Column("recorded_at", _INSTANT, nullable=False),
        sa.Column("prev_hash", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("payment_id", "number", name=op.f("pk_transition")),
    ]


def _attempt_columns() -> list[sa.Column[object] | sa.Constraint]:
    return [
        sa.Column("outbox_id", _ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("started_at", _INSTANT, nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("outbox_id", "number", name=op.f("pk_delivery_attempt")),
    ]


#: By table: its columns, and where a row's account was until now.
_COPIED: dict[str, tuple[Callable[[], list[sa.Column[object] | sa.Constraint]], str]] = {
    "inbox_message": (_inbox_columns, "account"),
    "transition": (_transition_columns, "(SELECT account FROM payment WHERE payment.id = payment_id)"),
    "delivery_attempt": (
        _attempt_columns,
        "(SELECT account FROM outbox_message WHERE outbox_message.id = outbox_id)",
    ),
}


def _upgrade_sqlite() -> None:
    op.execute(
        "INSERT INTO known_delivery (account, delivery_key, message_id, digest) "
        "SELECT account, delivery_key, id, digest FROM inbox_message"
    )
    with op.batch_alter_table("outbox_message") as outbox:
        outbox.drop_constraint("fk_outbox_message_cause", type_="foreignkey")
        outbox.drop_constraint("fk_outbox_message_payment_id", type_="foreignkey")
    for verb in ("update", "delete"):
        op.execute(f"DROP TRIGGER transition_no_{verb}")
    for index in ("awaits", "payment_id", "pending", "redelivered"):
        op.drop_index(f"ix_inbox_message_{index}", table_name="inbox_message")
    op.drop_index("ix_transition_cause", table_name="transition")
    for table in ("delivery_attempt", "transition", "inbox_message"):
        columns, account = _COPIED[table]
        op.rename_table(table, f"{table}_before")
        op.create_table(table, *columns())
        names = [part.name for part in columns() if isinstance(part, sa.Column) and part.name != "scrubbed_at"]
        taken = [account if name == "account" else name for name in names]
        op.execute(f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(taken)} FROM {table}_before")  # noqa: S608 - our names
        op.drop_table(f"{table}_before")
    for table, indexes in many_machines.INDEXES.items():
        for name, definition in indexes.items():
            op.execute(f"CREATE INDEX {name} ON {table} {definition}")
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER transition_no_{verb.lower()} BEFORE {verb} ON transition "
            f"BEGIN SELECT RAISE(ABORT, '{many_machines.APPEND_ONLY}'); END"
        )
