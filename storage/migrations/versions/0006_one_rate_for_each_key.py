"""How fast each API key calls, for all processes that serve together.

It runs beside the program of 0005, and locks nothing that this one uses.
"""

import sqlalchemy as sa
from alembic import op

import storage.types

revision = "0006"
down_revision = "0005"

#: Whether it runs beside the program of the revision before; see storage/migrate.py.
is_online = True


def upgrade() -> None:
    """Forward. What it holds may be lost at any time, so that PostgreSQL need not log it."""
    op.create_table(
        "api_rate",
        sa.Column("key_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("full_at", storage.types.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_api_rate"),
        prefixes=["UNLOGGED"] if op.get_bind().dialect.name == "postgresql" else [],
    )
