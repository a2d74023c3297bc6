"""How fast each API key calls, for all processes that serve together; and what people did is never changed.

It runs beside the program of 0005, and locks nothing that this one uses.
"""

import sqlalchemy as sa
from alembic import op

import storage.types

revision = "0006"
down_revision = "0005"

#: Whether it runs beside the program of the revision before; see storage/migrate.py.
is_online = True


_APPEND_ONLY = "an operator action is never changed: what people did is append-only"


def upgrade() -> None:
    """Forward. What it holds may be lost at any time, so that PostgreSQL need not log it."""
    op.create_table(
        "api_rate",
        sa.Column("key_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("full_at", storage.types.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_api_rate"),
        prefixes=["UNLOGGED"] if op.get_bind().dialect.name == "postgresql" else [],
    )
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER operator_action_no_{verb.lower()} BEFORE {verb} ON operator_action "
                f"BEGIN SELECT RAISE(ABORT, '{_APPEND_ONLY}'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION operator_action_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{_APPEND_ONLY}' USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    op.execute(
        "CREATE TRIGGER operator_action_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON operator_action "
        "FOR EACH STATEMENT EXECUTE FUNCTION operator_action_append_only()"
    )
