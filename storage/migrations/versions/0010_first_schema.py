"""The first schema.

Before the first release there were nine revisions, 0001 to 0009; their numbers are not used again, so that a database
of one of them is refused instead of taken for this one.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

from storage.types import UtcDateTime

revision = "0010"
down_revision = None

_ID: Final = sa.Uuid(as_uuid=False)
_INSTANT: Final = UtcDateTime(timezone=True)
_JSON: Final = sa.JSON(none_as_null=True)
_INT: Final = sa.Integer()
_BIG: Final = sa.BigInteger()

#: Per cent of a page that inserts fill: a row that is changed then stays on its page, and its indexes as they are.
_ROOM_FOR_UPDATES: Final = 50


def upgrade() -> None:
    """Create every table, and the triggers for append-only history and for events."""
    _create_inbox()
    _create_payments()
    _create_outbox()
    _create_api()
    _create_polling()
    _create_operating()
    if _is_sqlite():
        _create_sqlite_triggers()
    else:
        _create_default_partitions()
        _create_postgresql_triggers()


def _create_inbox() -> None:
    """Create the inbox, known deliveries and the quarantine."""
    op.create_table(
        "inbox_message",
        sa.Column("id", _ID, nullable=False),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("delivery_key", sa.String(255), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("headers", _JSON, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("envelope_digest", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=True),
        sa.Column("received_at", _INSTANT, nullable=False),
        sa.Column("provider_time", _INSTANT, nullable=True),
        sa.Column("kind", sa.String(32), nullable=True),
        sa.Column("ref", sa.String(255), nullable=True),
        sa.Column("http_status", _INT, nullable=True),
        sa.Column("about", _ID, nullable=True),
        sa.Column("variant_of", _ID, nullable=True),
        sa.Column("scrubbed_at", _INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_inbox_message"),
        postgresql_partition_by="RANGE (id)",
    )
    op.create_table(
        "inbox_queue",
        sa.Column("message_id", _ID, nullable=False),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("available_at", _INSTANT, nullable=False),
        sa.Column("attempts", _INT, nullable=False),
        sa.Column("claim_token", _INT, nullable=False),
        sa.Column("readings", _INT, nullable=False),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("awaits", sa.String(300), nullable=True),
        sa.PrimaryKeyConstraint("message_id", name="pk_inbox_queue"),
        sqlite_with_rowid=False,
    )
    _index("ix_inbox_queue_awaits", "inbox_queue", "account", "awaits", where="awaits IS NOT NULL")
    _index("ix_inbox_queue_pending", "inbox_queue", "message_id", where="status = 'pending'")
    stuck = "status = 'parked' OR status = 'dead'"
    _index("ix_inbox_queue_stuck", "inbox_queue", "status", "message_id", where=stuck)
    op.create_table(
        "inbox_redelivery",
        sa.Column("message_id", _ID, nullable=False),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("redeliveries", _INT, nullable=False),
        sa.Column("last_redelivered_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("message_id", name="pk_inbox_redelivery"),
        sqlite_with_rowid=False,
    )
    _index("ix_inbox_redelivery_account", "inbox_redelivery", "account", "last_redelivered_at")
    op.create_table(
        "decision",
        sa.Column("message_id", _ID, nullable=False),
        sa.Column("reading", _INT, nullable=False),
        sa.Column("number", _INT, nullable=False),
        sa.Column("statement", _INT, nullable=True),
        sa.Column("payment_id", _ID, nullable=True),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("details", _JSON, nullable=True),
        sa.Column("seal", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("message_id", "reading", "number", name="pk_decision"),
        sqlite_with_rowid=False,
        postgresql_partition_by="RANGE (message_id)",
    )
    _index("ix_decision_payment", "decision", "payment_id", where="payment_id IS NOT NULL")
    op.create_table(
        "known_delivery",
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("delivery_key", sa.String(255), nullable=False),
        sa.Column("message_id", _ID, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("account", "delivery_key", name="pk_known_delivery"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rejected_delivery",
        sa.Column("id", _ID, nullable=False),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("received_at", _INSTANT, nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("client", sa.String(64), nullable=False),
        sa.Column("headers", _JSON, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=True),
        sa.Column("about", _ID, nullable=True),
        sa.Column("seal", sa.String(64), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_rejected_delivery"),
    )
    _index("ix_rejected_delivery_account", "rejected_delivery", "account", "id")


def _create_payments() -> None:
    """Create payments and their history."""
    op.create_table(
        "payment",
        sa.Column("id", _ID, nullable=False),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("provider_ref", sa.String(255), nullable=True),
        sa.Column("reference", sa.String(255), nullable=True),
        sa.Column("alias", sa.String(255), nullable=True),
        sa.Column("names", _JSON, nullable=True),
        sa.Column("amount_minor", _BIG, nullable=True),
        sa.Column("currency", sa.String(3), nullable=True),
        sa.Column("authorised_minor", _BIG, nullable=True),
        sa.Column("captured_minor", _BIG, nullable=True),
        sa.Column("refunded_minor", _BIG, nullable=True),
        sa.Column("charged_back_minor", _BIG, nullable=True),
        sa.Column("disputed_minor", _BIG, nullable=True),
        sa.Column("stated", _JSON, nullable=True),
        sa.Column("parts", _JSON, nullable=True),
        sa.Column("counts", _JSON, nullable=True),
        sa.Column("state", sa.String(64), nullable=True),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("state_as_of", _INSTANT, nullable=True),
        sa.Column("version", _INT, nullable=False),
        sa.Column("head_hash", sa.String(64), nullable=False),
        sa.Column("review", sa.String(32), nullable=True),
        sa.Column("review_note", sa.String(), nullable=True),
        sa.Column("review_opened_at", _INSTANT, nullable=True),
        sa.Column("disputed", _JSON, nullable=True),
        sa.Column("accepted", _JSON, nullable=True),
        sa.Column("reviews", _INT, nullable=False),
        sa.Column("facts", _JSON, nullable=False),
        sa.Column("failure_reason", sa.String(), nullable=True),
        sa.Column("expires_at", _INSTANT, nullable=True),
        sa.Column("capture_by", _INSTANT, nullable=True),
        sa.Column("return_url", sa.String(), nullable=True),
        sa.Column("description", sa.String(), nullable=True),
        sa.Column("merchant_metadata", _JSON, nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("changed_at", _INSTANT, nullable=False),
        sa.Column("seal", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_payment"),
        sa.UniqueConstraint("account", "kind", "provider_ref", name="uq_payment_account_kind_provider_ref"),
    )
    _index("ix_payment_account", "payment", "account", "id")
    _index("ix_payment_alias", "payment", "account", "alias", where="alias IS NOT NULL")
    _index(
        "ix_payment_moving",
        "payment",
        "phase",
        "id",
        where="phase = 'open' OR phase = 'processing' OR phase = 'authorised'",
    )
    _index("ix_payment_reference", "payment", "account", "kind", "reference")
    _index("ix_payment_review", "payment", "review", where="review IS NOT NULL")
    _index("ix_payment_unnamed", "payment", "account", "created_at", where="provider_ref IS NULL")
    _index(
        "ix_payment_unpaid",
        "payment",
        "phase",
        "id",
        where="phase = 'failed' OR phase = 'cancelled' OR phase = 'expired' OR phase = 'refunded'",
    )
    op.create_table(
        "payment_name",
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("payment_id", _ID, nullable=False),
        sa.PrimaryKeyConstraint("account", "kind", "name", name="pk_payment_name"),
        sqlite_with_rowid=False,
    )
    _index("ix_payment_name_payment", "payment_name", "payment_id")
    op.create_table(
        "payment_poll",
        sa.Column("payment_id", _ID, nullable=False),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("heard_at", _INSTANT, nullable=False),
        sa.Column("statements", _INT, nullable=False),
        sa.Column("seal", sa.String(64), nullable=False),
        sa.Column("next_poll_at", _INSTANT, nullable=True),
        sa.Column("poll_priority", _INT, nullable=False),
        sa.Column("asked_at", _INSTANT, nullable=True),
        sa.Column("polls", _INT, nullable=False),
        sa.Column("poll_error", sa.String(), nullable=True),
        sa.Column("poll_failures", _INT, nullable=False),
        sa.PrimaryKeyConstraint("payment_id", name="pk_payment_poll"),
        sqlite_with_rowid=False,
        postgresql_with={"fillfactor": _ROOM_FOR_UPDATES},
    )
    of_account = ("payment_poll", "account", "poll_priority", "next_poll_at")
    _index("ix_payment_poll_next", *of_account, where="next_poll_at IS NOT NULL")
    op.create_table(
        "transition",
        sa.Column("payment_id", _ID, nullable=False),
        sa.Column("number", _INT, nullable=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("from_state", sa.String(64), nullable=True),
        sa.Column("to_state", sa.String(64), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("captured_minor", _BIG, nullable=True),
        sa.Column("refunded_minor", _BIG, nullable=True),
        sa.Column("charged_back_minor", _BIG, nullable=True),
        sa.Column("via", _JSON, nullable=False),
        sa.Column("forced", sa.Boolean(), nullable=False),
        sa.Column("cause", _ID, nullable=False),
        sa.Column("evidence", sa.String(64), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("actor", sa.String(128), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("as_of", _INSTANT, nullable=True),
        sa.Column("recorded_at", _INSTANT, nullable=False),
        sa.Column("prev_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("payment_id", "number", name="pk_transition"),
        postgresql_partition_by="RANGE (payment_id)",
    )
    _index("ix_transition_cause", "transition", "cause")
    _index("ix_transition_id", "transition", "id")


#: Every outbox message with its status; NULL, which no message has, where it is neither waiting nor delivered.
_OUTBOX_VIEW: Final = """
CREATE VIEW outbox AS SELECT m.id, m.payment_id, m.account, m.effect, m.sink, m.occurrence, m.cause, m.payload,
m.created_at, m.seal, m.webhook_id, m.number,
coalesce(q.status, CASE WHEN d.outbox_id IS NOT NULL THEN 'delivered' END) AS status,
coalesce(q.attempts, d.attempts) AS attempts,
coalesce(q.lease_ends_at, q.next_attempt_at, d.delivered_at) AS next_attempt_at,
coalesce(q.claim_token, 0) AS claim_token, d.delivered_at, q.last_error, coalesce(q.seal, d.seal) AS status_seal
FROM outbox_message AS m LEFT JOIN outbox_queue AS q ON q.outbox_id = m.id
LEFT JOIN outbox_delivered AS d ON d.outbox_id = m.id
"""

#: The pending and the dead ones. What the queue has too is the queue's: its indexes serve these columns.
_OUTBOX_WAITING_VIEW: Final = """
CREATE VIEW outbox_waiting AS SELECT q.outbox_id AS id, q.payment_id, q.account, q.effect, q.sink, m.occurrence,
m.cause, m.payload, m.created_at, m.seal, m.webhook_id, q.number, q.status, q.attempts,
coalesce(q.lease_ends_at, q.next_attempt_at) AS next_attempt_at, q.claim_token,
CAST(NULL AS timestamptz) AS delivered_at, q.last_error, q.seal AS status_seal
FROM outbox_queue AS q JOIN outbox_message AS m ON m.id = q.outbox_id
"""


def _create_outbox() -> None:
    """Create the outbox, delivery attempts and the feed of events."""
    op.create_table(
        "outbox_message",
        sa.Column("id", _ID, nullable=False),
        sa.Column("payment_id", _ID, nullable=True),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("effect", sa.String(32), nullable=False),
        sa.Column("sink", sa.String(64), nullable=False),
        sa.Column("occurrence", _INT, nullable=False),
        sa.Column("cause", _ID, nullable=False),
        sa.Column("payload", sa.String(), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("seal", sa.String(64), nullable=False),
        sa.Column("webhook_id", _ID, nullable=True),
        sa.Column("number", _INT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outbox_message"),
        sa.UniqueConstraint(
            "payment_id", "effect", "sink", "occurrence", name="uq_outbox_message_payment_id_effect_sink_occurrence"
        ),
    )
    _index("ix_outbox_message_webhook_id", "outbox_message", "webhook_id")
    _index(
        "uq_outbox_message_account",
        "outbox_message",
        "cause",
        "effect",
        "sink",
        where="payment_id IS NULL",
        unique=True,
    )
    op.create_table(
        "outbox_queue",
        sa.Column("outbox_id", _ID, nullable=False),
        sa.Column("payment_id", _ID, nullable=True),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("effect", sa.String(32), nullable=False),
        sa.Column("sink", sa.String(64), nullable=False),
        sa.Column("number", _INT, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempts", _INT, nullable=False),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("seal", sa.String(64), nullable=False),
        sa.Column("claim_token", _INT, nullable=False),
        sa.Column("lease_ends_at", _INSTANT, nullable=True),
        sa.Column("next_attempt_at", _INSTANT, nullable=False),
        sa.Column("is_first", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("outbox_id", name="pk_outbox_queue"),
        sqlite_with_rowid=False,
        postgresql_with={"fillfactor": 50},
    )
    pending = "status = 'pending'"
    of_sink = ("outbox_queue", "sink", "next_attempt_at", "outbox_id")
    _index("ix_outbox_queue_first", *of_sink, where=f"{pending} AND is_first")
    _index("ix_outbox_queue_again", *of_sink, where=f"{pending} AND NOT is_first")
    _index("ix_outbox_queue_pending", "outbox_queue", "payment_id", where=pending)
    _index("ix_outbox_queue_dead", "outbox_queue", "outbox_id", where="status = 'dead'")
    op.create_table(
        "outbox_delivered",
        sa.Column("outbox_id", _ID, nullable=False),
        sa.Column("attempts", _INT, nullable=False),
        sa.Column("delivered_at", _INSTANT, nullable=False),
        sa.Column("seal", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("outbox_id", name="pk_outbox_delivered"),
        sqlite_with_rowid=False,
    )
    op.execute(_OUTBOX_VIEW)
    op.execute(_OUTBOX_WAITING_VIEW)
    op.create_table(
        "delivery_attempt",
        sa.Column("outbox_id", _ID, nullable=False),
        sa.Column("number", _INT, nullable=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("started_at", _INSTANT, nullable=False),
        sa.Column("duration_ms", _INT, nullable=False),
        sa.Column("http_status", _INT, nullable=True),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("answer", sa.String(), nullable=True),
        sa.Column("seal", sa.String(64), nullable=True),
        sa.PrimaryKeyConstraint("outbox_id", "number", name="pk_delivery_attempt"),
        postgresql_partition_by="RANGE (outbox_id)",
    )
    op.create_table(
        "event",
        sa.Column("subject", _ID, nullable=False),
        sa.Column("effect", sa.String(32), nullable=False),
        sa.Column("occurrence", _INT, nullable=False),
        sa.Column("number", _BIG, nullable=True),
        sa.Column("outbox_id", _ID, nullable=False),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("payment_id", _ID, nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("mark", sa.String(12), nullable=True),
        sa.PrimaryKeyConstraint("subject", "effect", "occurrence", name="pk_event"),
    )
    _index("ix_event_unnumbered", "event", "outbox_id", where="number IS NULL")
    _index("uq_event_number", "event", "number", unique=True)
    op.create_table(
        "event_feed",
        sa.Column("name", sa.String(16), nullable=False),
        sa.Column("last_number", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_event_feed"),
    )


def _create_api() -> None:
    """Create API keys, their rates and idempotency keys."""
    op.create_table(
        "api_key",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("environment", sa.String(8), nullable=False),
        sa.Column("scopes", _JSON, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("prefix", sa.String(24), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("expires_at", _INSTANT, nullable=True),
        sa.Column("revoked_at", _INSTANT, nullable=True),
        sa.Column("replaced_by", _ID, nullable=True),
        sa.Column("last_used_at", _INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_key"),
    )
    _index("uq_api_key_digest", "api_key", "digest", unique=True)
    op.create_table(
        "api_rate",
        sa.Column("key_id", _ID, nullable=False),
        sa.Column("full_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_api_rate"),
        prefixes=[] if _is_sqlite() else ["UNLOGGED"],  # may be lost at any time: every bucket is full then
    )
    op.create_table(
        "idempotency_key",
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("claim_token", _INT, nullable=False),
        sa.Column("lease_ends_at", _INSTANT, nullable=False),
        sa.Column("http_status", _INT, nullable=True),
        sa.Column("answer", sa.String(), nullable=True),
        sa.Column("answered_at", _INSTANT, nullable=True),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("expires_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("scope", "key", name="pk_idempotency_key"),
    )
    _index("ix_idempotency_key_expires_at", "idempotency_key", "expires_at")


def _create_polling() -> None:
    """Create budgets, plans, webhook health and reconciliations."""
    op.create_table(
        "account_budget",
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("next_free_at", _INSTANT, nullable=False),
        sa.Column("paused_until", _INSTANT, nullable=True),
        sa.Column("patient_at", _INSTANT, nullable=True),
        sa.Column("urgent_run", _INT, nullable=False, server_default="0"),
        sa.Column("kept_slots", _JSON, nullable=False, server_default="[]"),
        sa.Column("failures", _INT, nullable=False, server_default="0"),
        sa.Column("broken_at", _INSTANT, nullable=True),
        sa.Column("probe_at", _INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("account", name="pk_account_budget"),
    )
    op.create_table(
        "journal",
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("since", _INSTANT, nullable=False),
        sa.Column("position", sa.String(), nullable=True),
        sa.Column("next_at", _INSTANT, nullable=False),
        sa.Column("read_at", _INSTANT, nullable=True),
        sa.Column("events", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("unpushed", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("failures", _INT, nullable=False, server_default="0"),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("account", name="pk_journal"),
    )
    op.create_table(
        "hinted_id",
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("ref", sa.String(200), nullable=False),
        sa.Column("hinted_at", _INSTANT, nullable=False),
        sa.Column("next_at", _INSTANT, nullable=False),
        sa.Column("attempts", _INT, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("account", "kind", "ref", name="pk_hinted_id"),
    )
    op.create_index("ix_hinted_id_next_at", "hinted_id", ["account", "next_at"])
    op.create_table(
        "poll_plan",
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("planned_at", _INSTANT, nullable=False),
        sa.Column("price_seconds", sa.Float(), nullable=False),
        sa.Column("watched", _INT, nullable=False),
        sa.Column("wanted_per_second", sa.Float(), nullable=False),
        sa.Column("floor_per_second", sa.Float(), nullable=False),
        sa.Column("stretch", sa.Float(), nullable=False),
        sa.Column("allowed_per_second", sa.Float(), nullable=True),
        sa.Column("learned_to", _ID, nullable=True),
        sa.PrimaryKeyConstraint("account", name="pk_poll_plan"),
    )
    op.create_table(
        "hazard",
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("state", sa.String(64), nullable=False),
        sa.Column("exposure", _JSON, nullable=False),
        sa.Column("changes", _JSON, nullable=False),
        sa.Column("learned_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("account", "kind", "state", name="pk_hazard"),
    )
    op.create_table(
        "push_watch",
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("due_at", _INSTANT, nullable=False),
        sa.Column("claim_token", _INT, nullable=False),
        sa.Column("measured_at", _INSTANT, nullable=True),
        sa.Column("message_id", _ID, nullable=True),
        sa.Column("transition_id", _ID, nullable=True),
        sa.Column("rejected_id", _ID, nullable=True),
        sa.Column("redelivered_at", _INSTANT, nullable=True),
        sa.Column("heard_at", _INSTANT, nullable=True),
        sa.Column("resumed_at", _INSTANT, nullable=True),
        sa.Column("rhythm", _JSON, nullable=False),
        sa.Column("unverified", _JSON, nullable=False),
        sa.Column("alarms", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("account", name="pk_push_watch"),
    )
    op.create_table(
        "push_quality",
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("pushed", _INT, nullable=False),
        sa.Column("late", _INT, nullable=False),
        sa.Column("lost", _INT, nullable=False),
        sa.Column("deliveries", _INT, nullable=False),
        sa.Column("duplicates", _INT, nullable=False),
        sa.Column("reordered", _INT, nullable=False),
        sa.Column("rejected", _INT, nullable=False),
        sa.Column("lags", _JSON, nullable=False),
        sa.Column("skews", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("account", "kind", "event", "day", name="pk_push_quality"),
    )
    op.create_table(
        "reconciliation",
        sa.Column("id", _ID, nullable=False),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("since", _INSTANT, nullable=False),
        sa.Column("until", _INSTANT, nullable=False),
        sa.Column("asked_by", sa.String(128), nullable=False),
        sa.Column("began_at", _INSTANT, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("position", sa.String(), nullable=True),
        sa.Column("listed", _INT, nullable=False),
        sa.Column("pages", _INT, nullable=False),
        sa.Column("to_ask", _INT, nullable=False),
        sa.Column("asked", _INT, nullable=False),
        sa.Column("failed", _INT, nullable=False),
        sa.Column("unasked", _JSON, nullable=False),
        sa.Column("held_by", sa.String(128), nullable=False),
        sa.Column("held_at", _INSTANT, nullable=False),
        sa.Column("lease_ends_at", _INSTANT, nullable=False),
        sa.Column("resume_at", _INSTANT, nullable=False),
        sa.Column("claim_token", _INT, nullable=False),
        sa.Column("finished_at", _INSTANT, nullable=True),
        sa.Column("drift", _JSON, nullable=False),
        sa.Column("counts", _JSON, nullable=False),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_reconciliation"),
    )
    _index("ix_reconciliation_account", "reconciliation", "account", "id")
    _index("uq_reconciliation_running", "reconciliation", "account", where="status = 'running'", unique=True)


def _create_operating() -> None:
    """Create console users, operator actions, audits and runs of retention."""
    op.create_table(
        "console_person",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("password_hash", sa.String(255), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("password_changed_at", _INSTANT, nullable=False),
        sa.Column("is_temporary", sa.Boolean(), nullable=False),
        sa.Column("disabled_at", _INSTANT, nullable=True),
        sa.Column("oidc_subject", sa.String(64), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_console_person"),
    )
    _index("uq_console_person_oidc_subject", "console_person", "oidc_subject", unique=True)
    _index("uq_console_person_name", "console_person", "name", unique=True)
    op.create_table(
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
    _index("ix_console_session_expires_at", "console_session", "expires_at")
    _index("ix_console_session_person_id", "console_session", "person_id")
    _index("uq_console_session_digest", "console_session", "digest", unique=True)
    op.create_table(
        "console_factor",
        sa.Column("person_id", _ID, nullable=False),
        sa.Column("sealed_key", sa.String(400), nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("confirmed_at", _INSTANT, nullable=True),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("recovery_digests", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("person_id", name="pk_console_factor"),
    )
    op.create_table(
        "console_attempt",
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("tried", _INT, nullable=False),
        sa.Column("began_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_console_attempt"),
    )
    _index("ix_console_attempt_began_at", "console_attempt", "began_at")
    op.create_table(
        "operator_action",
        sa.Column("id", _ID, nullable=False),
        sa.Column("account", sa.String(64), nullable=True),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("number", _BIG, nullable=True),
        sa.Column("seal", sa.String(64), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_operator_action"),
    )
    _index("ix_operator_action_subject", "operator_action", "subject", "id")
    _index("uq_operator_action_number", "operator_action", "number", unique=True)
    op.create_table(
        "audit_run",
        sa.Column("id", _ID, nullable=False),
        sa.Column("began_at", _INSTANT, nullable=False),
        sa.Column("ended_at", _INSTANT, nullable=False),
        sa.Column("messages", _INT, nullable=False),
        sa.Column("payments", _INT, nullable=False),
        sa.Column("faults", _INT, nullable=False),
        sa.Column("seal", sa.String(64), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_audit_run"),
    )
    op.create_table(
        "retention_run",
        sa.Column("id", _ID, nullable=False),
        sa.Column("rule", sa.String(16), nullable=False),
        sa.Column("days", _INT, nullable=False),
        sa.Column("asked_by", sa.String(128), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("began_at", _INSTANT, nullable=False),
        sa.Column("changed_at", _INSTANT, nullable=False),
        sa.Column("resume_at", _INSTANT, nullable=False),
        sa.Column("since_id", _ID, nullable=True),
        sa.Column("until_id", _ID, nullable=False),
        sa.Column("position", sa.String(400), nullable=True),
        sa.Column("held_back", _JSON, nullable=False),
        sa.Column("partition", sa.String(64), nullable=True),
        sa.Column("seen", _INT, nullable=False),
        sa.Column("rows", _INT, nullable=False),
        sa.Column("statements", _INT, nullable=False),
        sa.Column("seal", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_retention_run"),
    )
    _index("ix_retention_run_rule", "retention_run", "rule", "id")


# -- Partitions and triggers ------------------------------------------------------------------------------------------

_TRANSITION_REFUSAL: Final = "a transition is never changed: history is append-only"
_ACTION_REFUSAL: Final = "an operator action is never changed: what people did is append-only"
_OWED_REFUSAL: Final = "an outbox message is never changed: what is owed, and was delivered, is append-only"

#: Tables whose rows are never changed nor deleted, except partitioned ones.
_APPEND_ONLY: Final = (
    ("operator_action", _ACTION_REFUSAL),
    ("outbox_message", _OWED_REFUSAL),
    ("outbox_delivered", _OWED_REFUSAL),
)
_MESSAGE_REFUSAL: Final = "an inbox message is never changed: evidence is append-only"
_DECISION_REFUSAL: Final = "a decision is never changed: a replay adds another"

#: Partitioned tables whose rows are never changed, and the words of the refusal.
_IMMUTABLE: Final = (
    ("transition", _TRANSITION_REFUSAL),
    ("inbox_message", _MESSAGE_REFUSAL),
    ("decision", _DECISION_REFUSAL),
)

#: Columns of a message that keep their values while retention empties its body.
_KEPT_OF_SCRUBBED: Final = (
    *("id", "account", "source", "delivery_key", "digest", "envelope_digest", "key_id", "received_at"),
    *("provider_time", "kind", "ref", "http_status", "about", "variant_of"),
)

_EVENT_COLUMNS: Final = "subject, effect, occurrence, outbox_id, account, payment_id, created_at"
_EVENT_VALUES: Final = (
    "coalesce(NEW.payment_id, NEW.cause), NEW.effect, NEW.occurrence, NEW.id, NEW.account, NEW.payment_id, "
    "NEW.created_at"
)


def _create_default_partitions() -> None:
    """Create the partitions of rows outside every other partition.

    Partitions of a period are made by `storage.partitions`.
    """
    for table in ("inbox_message", "decision", "transition", "delivery_attempt"):
        op.execute(f"CREATE TABLE {table}_rest PARTITION OF {table} DEFAULT")


def _create_sqlite_triggers() -> None:
    same = " AND ".join(f"NEW.{name} IS OLD.{name}" for name in (*_KEPT_OF_SCRUBBED, "headers"))
    is_scrubbed = f"OLD.scrubbed_at IS NULL AND NEW.scrubbed_at IS NOT NULL AND length(NEW.body) = 0 AND {same}"
    for table, refusal in (*_IMMUTABLE, *_APPEND_ONLY):
        for verb in ("UPDATE", "DELETE"):
            unless = f"WHEN NOT ({is_scrubbed}) " if (table, verb) == ("inbox_message", "UPDATE") else ""
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} {unless}"
                f"BEGIN SELECT RAISE(ABORT, '{refusal}'); END"
            )
    # SQLite applies the ON CONFLICT of the statement that fires a trigger to the trigger's own statements, so this
    # looks first; there is one writer at a time.
    op.execute(
        "CREATE TRIGGER outbox_message_is_event AFTER INSERT ON outbox_message WHEN NOT EXISTS ("  # noqa: S608 - constants
        "SELECT 1 FROM event WHERE subject = coalesce(NEW.payment_id, NEW.cause) "
        "AND effect = NEW.effect AND occurrence = NEW.occurrence) "
        f"BEGIN INSERT INTO event ({_EVENT_COLUMNS}) VALUES ({_EVENT_VALUES}); END"
    )
    op.execute("INSERT INTO event_feed (name, last_number) VALUES ('effects', 0)")


def _create_postgresql_triggers() -> None:
    now, before = (", ".join(f"{row}.{name}" for name in _KEPT_OF_SCRUBBED) for row in ("NEW", "OLD"))
    is_scrubbed = (
        "OLD.scrubbed_at IS NULL AND NEW.scrubbed_at IS NOT NULL AND length(NEW.body) = 0 "
        f"AND NEW.headers::text = OLD.headers::text AND ({now}) IS NOT DISTINCT FROM ({before})"
    )
    for table, refusal in (*_IMMUTABLE, *_APPEND_ONLY):
        passes = f"IF TG_OP = 'UPDATE' THEN IF {is_scrubbed} THEN RETURN NEW; END IF; END IF; "
        op.execute(
            f"CREATE FUNCTION {table}_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN {passes if table == 'inbox_message' else ''}"
            f"RAISE EXCEPTION '{refusal}' USING ERRCODE = 'integrity_constraint_violation'; END $$"
        )
    for table, _ in _APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_append_only()"
        )
    # For each row, so that the partitions have it too; TRUNCATE knows no rows, and every partition has its own trigger.
    for table, _ in _IMMUTABLE:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
            f"FOR EACH ROW EXECUTE FUNCTION {table}_append_only()"
        )
        for part in (table, f"{table}_rest"):
            op.execute(
                f"CREATE TRIGGER {table}_not_truncated BEFORE TRUNCATE ON {part} "
                f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_append_only()"
            )
    op.execute(
        "CREATE FUNCTION outbox_message_is_event() RETURNS trigger LANGUAGE plpgsql AS $$\n"  # noqa: S608 - constants
        f"BEGIN\n    INSERT INTO event ({_EVENT_COLUMNS}) VALUES ({_EVENT_VALUES}) "
        "ON CONFLICT (subject, effect, occurrence) DO NOTHING;\n    RETURN NULL;\nEND $$"
    )
    op.execute(
        "CREATE TRIGGER outbox_message_is_event AFTER INSERT ON outbox_message "
        "FOR EACH ROW EXECUTE FUNCTION outbox_message_is_event()"
    )


# -- Helpers ----------------------------------------------------------------------------------------------------------


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def _index(name: str, table: str, *columns: str, where: str | None = None, unique: bool = False) -> None:
    only = None if where is None else sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=only, postgresql_where=only)
