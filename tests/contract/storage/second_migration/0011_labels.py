"""Labels of payments, and the references of messages by account.

A second migration as later versions may need: a column that is filled in batches, an index, and one of partitions.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

from storage.online_migration import OnlineSteps, online_steps

revision = "0011"
down_revision = "0010"

#: Runs beside the program of the revision before; see storage/migrate.py.
is_online = True

_COLUMN: Final = "ALTER TABLE payment ADD COLUMN label varchar(255)"

#: Payments that the program of the revision before inserts meanwhile.
_LABEL_INSERTED: Final = (
    """
    CREATE FUNCTION payment_label() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.label := NEW.reference;
        RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER payment_label BEFORE INSERT ON payment FOR EACH ROW EXECUTE FUNCTION payment_label()",
)

_LABEL_BATCH: Final = "UPDATE payment SET label = reference WHERE id > :after AND id <= :end"


def upgrade() -> None:
    """Add the column and both indexes; a repeat continues where the last run ended."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute(_COLUMN)
        op.execute("UPDATE payment SET label = reference")
        op.create_index("ix_payment_label", "payment", ["label"])
        op.create_index("ix_inbox_message_ref", "inbox_message", ["account", "ref"], sqlite_where=sa.text("ref <> ''"))
        return
    with online_steps(op.get_context()) as steps:
        _upgrade_online(steps)


def _upgrade_online(steps: OnlineSteps) -> None:
    steps.run("label", _COLUMN, *_LABEL_INSERTED)
    steps.run_batches("labels", "payment", _LABEL_BATCH)
    steps.create_index("ix_payment_label", "INDEX ON payment (label)")
    steps.create_partitioned_index("ix_inbox_message_ref", "inbox_message", "(account, ref) WHERE ref <> ''")
