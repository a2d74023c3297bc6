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

#: Indexes of tables that may be large: name, and what follows CREATE.
_INDEXES: Final[tuple[tuple[str, str], ...]] = ()


def upgrade() -> None:
    """Forward. A repeat goes on where the last run ended."""
    if op.get_bind().dialect.name == "sqlite":
        _new(Operations(op.get_context()))
        for name, definition in _INDEXES:
            op.execute(f"CREATE {definition.replace('INDEX', f'INDEX {name}', 1)}")
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
    op.execute("DROP TABLE migration_step")


def _new(do: Operations) -> None:
    for table, column in _COLUMNS:
        do.add_column(table, column)
    _people(do)


def _people(do: Operations) -> None:
    """Who may use the console, and their sessions."""
