"""Effects travel under ids that outlive a restored backup, go out by number, and the feed's cursors can be checked.

On PostgreSQL it runs beside the program of 0006; what that one owes meanwhile travels under its row's id, as before.
"""

import sqlalchemy as sa
from alembic import op
from alembic.migration import MigrationContext
from alembic.operations import Operations

from storage.errors import SchemaOutdated
from storage.online import Online

revision = "0007"
down_revision = "0006"

#: Whether it runs beside the program of the revision before; see storage/migrate.py.
is_online = True

_INDEX = "ix_outbox_message_webhook_id"
_ON = "INDEX ON outbox_message (webhook_id)"


def upgrade() -> None:
    """Forward. No row is rewritten. A repeat goes on where the last run ended."""
    if op.get_bind().dialect.name == "sqlite":
        _columns(Operations(op.get_context()))
        op.execute(f"CREATE {_ON.replace('INDEX', f'INDEX {_INDEX}', 1)}")
        return
    context = op.get_context()
    config = context.config
    if config is None:
        raise SchemaOutdated("this migration is run by receipted migrate alone")
    with context.autocommit_block():
        online = Online(op.get_bind().engine, config.attributes["still_alone"])
        online.short("columns", lambda connection: _columns(Operations(MigrationContext.configure(connection))))
        online.index(_INDEX, _ON)
    op.execute("DROP TABLE migration_step")


def _columns(do: Operations) -> None:
    do.add_column("outbox_message", sa.Column("webhook_id", sa.Uuid(as_uuid=False), nullable=True))
    do.add_column("outbox_message", sa.Column("number", sa.Integer(), nullable=False, server_default=sa.text("0")))
    do.add_column("event", sa.Column("mark", sa.String(length=12), nullable=True))
