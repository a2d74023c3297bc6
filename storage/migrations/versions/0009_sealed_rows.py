"""Seals of what had none: what people did, tries to deliver, quarantined deliveries and audits.

It runs beside the program of 0008, whose rows have no seal, and rewrites no row.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

#: Whether it runs beside the program of the revision before; see storage/migrate.py.
is_online = True

_TABLES: Final = ("operator_action", "delivery_attempt", "rejected_delivery", "audit_run")


def upgrade() -> None:
    """Forward."""
    for table in _TABLES:
        op.add_column(table, sa.Column("seal", sa.String(length=64), nullable=True))
    op.add_column("operator_action", sa.Column("number", sa.BigInteger(), nullable=True))
    op.create_index("uq_operator_action_number", "operator_action", ["number"], unique=True)
