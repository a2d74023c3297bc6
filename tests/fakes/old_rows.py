"""Rows of the schema 0002 on PostgreSQL, as many as are wanted, made by the server itself; nothing is sealed."""

from storage.database import Database

_PAYMENTS = """
INSERT INTO payment (id, account, kind, provider_ref, phase, version, head_hash, reviews, statements, facts,
    created_at, changed_at, seal, heard_at, polls, poll_priority, poll_failures)
SELECT uuidv7(-interval '1 second' * ({count} - g)), 'acme', 'payment_intent', 'pi_' || g, 'paid', 1, 'h', 0, 1, '{{}}',
    now(), now(), '', now(), 0, 4, 0
FROM generate_series(1, {count}) AS g
"""

_MESSAGES = """
INSERT INTO inbox_message (id, account, source, delivery_key, body, headers, digest, envelope_digest, received_at,
    status, attempts, available_at, claim_token, outcomes, redeliveries, payment_id)
SELECT uuidv7(-interval '1 second' * ({count} - row_number() OVER ())), account, 'webhook', provider_ref,
    convert_to(repeat('x', 400), 'UTF8'), '[["content-type", "application/json"]]', md5(provider_ref), '', now(),
    'decided', 0, now(), 1, '[]', 0, id
FROM payment
"""

_TRANSITIONS = """
INSERT INTO transition (id, payment_id, number, to_state, phase, via, forced, cause, evidence, source, reason,
    recorded_at, prev_hash, hash)
SELECT uuidv7(), payment_id, 1, 'paid', 'paid', '[]', false, id, '', 'webhook', 'a test', now(), '', 'h'
FROM inbox_message
"""

_OWED = """
INSERT INTO outbox_message (id, payment_id, account, effect, sink, occurrence, cause, payload, created_at, seal, status,
    attempts, next_attempt_at, claim_token)
SELECT uuidv7(), payment_id, account, 'payment.paid', 'shop', 0, id, '{}', now(), '', 'delivered', 1, now(), 1
FROM inbox_message
"""

_ATTEMPTS = """
INSERT INTO delivery_attempt (id, outbox_id, number, started_at, duration_ms, outcome)
SELECT uuidv7(), id, 1, now(), 5, 'delivered' FROM outbox_message
"""


def fill(database: Database, count: int) -> None:
    """So many payments, each with its message, transition, effect and attempt."""
    with database.engine.connect() as opened:
        connection = opened.execution_options(receipted_write=True, receipted_patience=None)
        with connection.begin():
            for statement in (_PAYMENTS, _MESSAGES):
                connection.exec_driver_sql(statement.format(count=count))
            for statement in (_TRANSITIONS, _OWED, _ATTEMPTS):
                connection.exec_driver_sql(statement)


def counts(database: Database) -> dict[str, int]:
    """How many rows each of the tables has, and of those that must be complete, how many are not."""
    with database.engine.connect() as connection:
        tables = ("payment", "inbox_message", "transition", "outbox_message", "delivery_attempt", "known_delivery")
        found = {
            table: connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()  # noqa: S608 - our names
            for table in tables
        }
        found["unknown"] = connection.exec_driver_sql(
            "SELECT count(*) FROM inbox_message AS m WHERE NOT EXISTS (SELECT FROM known_delivery AS k "
            "WHERE k.account = m.account AND k.delivery_key = m.delivery_key AND k.message_id = m.id)"
        ).scalar_one()
        found["without account"] = connection.exec_driver_sql(
            "SELECT (SELECT count(*) FROM transition WHERE account <> 'acme') "
            "+ (SELECT count(*) FROM delivery_attempt WHERE account <> 'acme')"
        ).scalar_one()
    return found


def expected(count: int) -> dict[str, int]:
    """What `counts` says of so many payments in the newest schema."""
    tables = ("payment", "inbox_message", "transition", "outbox_message", "delivery_attempt", "known_delivery")
    return {**dict.fromkeys(tables, count), "unknown": 0, "without account": 0}
