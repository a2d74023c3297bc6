"""What operating needs: the console's people and their sessions, and what is looked for by those who watch.

On PostgreSQL it runs beside the program of 0004; on SQLite it is one transaction.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op
from alembic.migration import MigrationContext
from alembic.operations import Operations

import storage.types
from storage.errors import SchemaOutdated
from storage.online import Online

revision = "0005"
down_revision = "0004"

#: Whether it runs beside the program of the revision before; see storage/migrate.py.
is_online = True

_INSTANT = storage.types.UtcDateTime(timezone=True)
_ID = sa.Uuid(as_uuid=False)
_JSON = sa.JSON(none_as_null=True)

#: Columns that may be empty, added to tables that are there; no row is rewritten.
_COLUMNS: Final[tuple[tuple[str, sa.Column[object]], ...]] = ()

#: Phases of which few payments are.
_UNPAID: Final = "phase = 'failed' OR phase = 'cancelled' OR phase = 'expired' OR phase = 'refunded'"

#: Indexes of tables that may be large: name, and what follows CREATE.
_INDEXES: Final[tuple[tuple[str, str], ...]] = (
    ("ix_payment_moving", "INDEX ON payment (phase, id) WHERE phase = 'open' OR phase = 'processing'"),
    ("ix_operator_action_subject", "INDEX ON operator_action (subject, id)"),
    ("ix_outbox_message_dead", "INDEX ON outbox_message (status, id) WHERE status = 'dead'"),
    ("ix_payment_unpaid", f"INDEX ON payment (phase, id) WHERE {_UNPAID}"),
)

#: Likewise of tables that are partitioned on PostgreSQL: name, table, and what follows the table's name.
_PARTITIONED: Final[tuple[tuple[str, str, str], ...]] = (
    ("ix_inbox_message_payment", "inbox_message", "(payment_id) WHERE payment_id IS NOT NULL"),
    ("ix_inbox_message_stuck", "inbox_message", "(status, id) WHERE status = 'parked' OR status = 'dead'"),
)

#: It had an entry for each message that was not decided yet, made on the way in and taken away by the decision.
_DROPPED: Final = "DROP INDEX ix_inbox_message_payment_id"


def upgrade() -> None:
    """Forward. A repeat goes on where the last run ended."""
    if op.get_bind().dialect.name == "sqlite":
        _new(Operations(op.get_context()))
        for name, definition in _INDEXES:
            op.execute(f"CREATE {definition.replace('INDEX', f'INDEX {name}', 1)}")
        for name, table, what in _PARTITIONED:
            op.execute(f"CREATE INDEX {name} ON {table} {what}")
        op.execute(_DROPPED)
        return
    context = op.get_context()
    config = context.config
    if config is None:
        raise SchemaOutdated("this migration is run by receipted migrate alone")
    with context.autocommit_block():
        online = Online(op.get_bind().engine, config.attributes["still_alone"])
        online.short("new", lambda connection: _new(Operations(MigrationContext.configure(connection))))
        for name, definition in _INDEXES:
            online.index(name, definition)
        for name, table, what in _PARTITIONED:
            online.partitioned_index(name, table, what)
        online.short("dropped", _DROPPED)
    op.execute("DROP TABLE migration_step")


def _new(do: Operations) -> None:
    for table, column in _COLUMNS:
        do.add_column(table, column)
    _people(do)
    _audits(do)


def _audits(do: Operations) -> None:
    """When the history was proved."""
    do.create_table(
        "audit_run",
        sa.Column("id", _ID, nullable=False),
        sa.Column("began_at", _INSTANT, nullable=False),
        sa.Column("ended_at", _INSTANT, nullable=False),
        sa.Column("messages", sa.Integer(), nullable=False),
        sa.Column("payments", sa.Integer(), nullable=False),
        sa.Column("faults", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_run"),
    )


def _people(do: Operations) -> None:
    """Who may use the console, and their sessions."""
    do.create_table(
        "console_person",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("password_hash", sa.String(255), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("password_changed_at", _INSTANT, nullable=False),
        sa.Column("is_temporary", sa.Boolean(), nullable=False),
        sa.Column("disabled_at", _INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_console_person"),
    )
    do.create_index("uq_console_person_name", "console_person", ["name"], unique=True)
    do.create_table(
        "console_session",
        sa.Column("id", _ID, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("person_id", _ID, nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("last_seen_at", _INSTANT, nullable=False),
        sa.Column("expires_at", _INSTANT, nullable=False),
        sa.Column("revoked_at", _INSTANT, nullable=True),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("user_agent", sa.String(120), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_console_session"),
    )
    do.create_index("uq_console_session_digest", "console_session", ["digest"], unique=True)
    do.create_index("ix_console_session_person_id", "console_session", ["person_id"])
    do.create_index("ix_console_session_expires_at", "console_session", ["expires_at"])
    do.create_table(
        "console_attempt",
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("tried", sa.Integer(), nullable=False),
        sa.Column("began_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_console_attempt"),
    )
    do.create_index("ix_console_attempt_began_at", "console_attempt", ["began_at"])
