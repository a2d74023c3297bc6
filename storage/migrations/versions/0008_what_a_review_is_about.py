"""What a review is about and what a resolution accepted; and every payment that a message was decided about.

It runs beside the program of 0007, and rewrites no row.
"""

import sqlalchemy as sa
from alembic import op
from alembic.migration import MigrationContext
from alembic.operations import Operations

from storage.errors import SchemaOutdated
from storage.online import Online

revision = "0008"
down_revision = "0007"

#: Whether it runs beside the program of the revision before; see storage/migrate.py.
is_online = True

_ID = sa.Uuid(as_uuid=False)


def upgrade() -> None:
    """Forward. A repeat goes on where the last run ended."""
    if op.get_bind().dialect.name == "sqlite":
        _claims(Operations(op.get_context()))
        _message_payment(Operations(op.get_context()))
        return
    context = op.get_context()
    config = context.config
    if config is None:
        raise SchemaOutdated("this migration is run by receipted migrate alone")
    with context.autocommit_block():
        online = Online(op.get_bind().engine, config.attributes["still_alone"])
        online.short("claims", lambda connection: _claims(Operations(MigrationContext.configure(connection))))
        online.short("table", lambda connection: _message_payment(Operations(MigrationContext.configure(connection))))
    op.execute("DROP TABLE migration_step")


def _claims(do: Operations) -> None:
    for name in ("disputed", "accepted"):
        do.add_column("payment", sa.Column(name, sa.JSON(none_as_null=True), nullable=True))


def _message_payment(do: Operations) -> None:
    do.create_table(
        "message_payment",
        sa.Column("payment_id", _ID, nullable=False),
        sa.Column("message_id", _ID, nullable=False),
        sa.PrimaryKeyConstraint("payment_id", "message_id", name="pk_message_payment"),
        sqlite_with_rowid=False,
    )
    do.create_index("ix_message_payment_message_id", "message_payment", ["message_id"])
