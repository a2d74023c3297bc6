"""Asking well: plans, hazards, what push is worth, reconciliations, a breaker; effects about an account."""

import sqlalchemy as sa
from alembic import op

import storage.types

revision = "0002"
down_revision = "0001"


def _make_payment_optional() -> None:
    """An effect may be about an account. SQLite cannot alter a column, so that its table is copied."""
    if op.get_bind().dialect.name == "sqlite":
        with op.batch_alter_table("outbox_message") as outbox:
            outbox.alter_column("payment_id", existing_type=sa.Uuid(as_uuid=False), nullable=True)
    else:
        op.alter_column("outbox_message", "payment_id", existing_type=sa.Uuid(as_uuid=False), nullable=True)


def upgrade() -> None:
    """Forward."""
    op.create_table(
        "hazard",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=64), nullable=False),
        sa.Column("exposure", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("changes", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("learned_at", storage.types.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("account", "kind", "state", name=op.f("pk_hazard")),
    )
    op.create_table(
        "poll_plan",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("planned_at", storage.types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("price_seconds", sa.Float(), nullable=False),
        sa.Column("watched", sa.Integer(), nullable=False),
        sa.Column("wanted_per_second", sa.Float(), nullable=False),
        sa.Column("floor_per_second", sa.Float(), nullable=False),
        sa.Column("stretch", sa.Float(), nullable=False),
        sa.Column("allowed_per_second", sa.Float(), nullable=True),
        sa.Column("learned_to", sa.Uuid(as_uuid=False), nullable=True),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_poll_plan")),
    )
    op.create_table(
        "push_quality",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("pushed", sa.Integer(), nullable=False),
        sa.Column("late", sa.Integer(), nullable=False),
        sa.Column("lost", sa.Integer(), nullable=False),
        sa.Column("deliveries", sa.Integer(), nullable=False),
        sa.Column("duplicates", sa.Integer(), nullable=False),
        sa.Column("reordered", sa.Integer(), nullable=False),
        sa.Column("rejected", sa.Integer(), nullable=False),
        sa.Column("lags", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("skews", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("account", "kind", "event", "day", name=op.f("pk_push_quality")),
    )
    op.create_table(
        "push_watch",
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("due_at", storage.types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("claim_token", sa.Integer(), nullable=False),
        sa.Column("measured_at", storage.types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("message_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("transition_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("rejected_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("redelivered_at", storage.types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("heard_at", storage.types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("resumed_at", storage.types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("rhythm", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("unverified", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("alarms", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_push_watch")),
    )
    op.create_table(
        "reconciliation",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("since", storage.types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("until", storage.types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("asked_by", sa.String(length=128), nullable=False),
        sa.Column("began_at", storage.types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("position", sa.String(), nullable=True),
        sa.Column("listed", sa.Integer(), nullable=False),
        sa.Column("pages", sa.Integer(), nullable=False),
        sa.Column("to_ask", sa.Integer(), nullable=False),
        sa.Column("asked", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("unasked", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("held_by", sa.String(length=128), nullable=False),
        sa.Column("held_at", storage.types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("lease_ends_at", storage.types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("resume_at", storage.types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("claim_token", sa.Integer(), nullable=False),
        sa.Column("finished_at", storage.types.UtcDateTime(timezone=True), nullable=True),
        sa.Column("drift", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("counts", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reconciliation")),
    )
    op.create_index("ix_reconciliation_account", "reconciliation", ["account", "id"], unique=False)
    op.create_index(
        "uq_reconciliation_running",
        "reconciliation",
        ["account"],
        unique=True,
        sqlite_where=sa.text("status = 'running'"),
        postgresql_where=sa.text("status = 'running'"),
    )
    op.add_column("account_budget", sa.Column("patient_at", storage.types.UtcDateTime(timezone=True), nullable=True))
    op.add_column("account_budget", sa.Column("urgent_run", sa.Integer(), nullable=False, server_default="0"))
    op.add_column(
        "account_budget", sa.Column("kept_slots", sa.JSON(none_as_null=True), nullable=False, server_default="[]")
    )
    op.add_column("account_budget", sa.Column("failures", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("account_budget", sa.Column("broken_at", storage.types.UtcDateTime(timezone=True), nullable=True))
    op.add_column("account_budget", sa.Column("probe_at", storage.types.UtcDateTime(timezone=True), nullable=True))
    op.add_column("payment", sa.Column("poll_priority", sa.Integer(), nullable=False, server_default="4"))
    op.add_column("payment", sa.Column("poll_failures", sa.Integer(), nullable=False, server_default="0"))
    op.create_index(
        "ix_payment_unnamed",
        "payment",
        ["account", "created_at"],
        unique=False,
        sqlite_where=sa.text("provider_ref IS NULL"),
        postgresql_where=sa.text("provider_ref IS NULL"),
    )
    op.drop_index("ix_payment_next_poll_at", table_name="payment")
    op.create_index(
        "ix_payment_next_poll",
        "payment",
        ["account", "poll_priority", "next_poll_at"],
        unique=False,
        sqlite_where=sa.text("next_poll_at IS NOT NULL"),
        postgresql_where=sa.text("next_poll_at IS NOT NULL"),
    )
    _make_payment_optional()
    op.create_index(
        "uq_outbox_message_account",
        "outbox_message",
        ["cause", "effect", "sink"],
        unique=True,
        sqlite_where=sa.text("payment_id IS NULL"),
        postgresql_where=sa.text("payment_id IS NULL"),
    )
    op.create_index(
        "ix_inbox_message_redelivered",
        "inbox_message",
        ["account", "last_redelivered_at"],
        unique=False,
        sqlite_where=sa.text("last_redelivered_at IS NOT NULL"),
        postgresql_where=sa.text("last_redelivered_at IS NOT NULL"),
    )
