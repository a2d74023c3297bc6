"""The proof of one payment: what is wrong with its rows is found, and what retention took is no fault."""

import pytest
from sqlalchemy import text

from audit.verify import Audit, AuditedAccount
from providers.signing import Window
from storage.errors import NotFound
from storage.ids import new_id
from storage.types import RetentionRule
from tests.integration.test_retention import run, told
from tests.support.audit_case import Shop
from tests.support.pipeline_world import KEY, World


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request, template, tmp_path):
    server = request.getfixturevalue("postgresql") if request.param == "postgresql" else None
    world = World(template, tmp_path / "shop.db", database=server and server.copy())
    yield Shop(world)
    world.close()
    if server is not None:
        server.drop(world.database)


def proof(shop, payment):
    members = shop.world.members.items()
    accounts = {name: AuditedAccount(member.provider, {KEY.id: KEY}, Window()) for name, member in members}
    return Audit(shop.world.database, accounts).of_payment(payment)


def problems(shop, payment):
    return [(fault.table, fault.problem) for fault in proof(shop, payment).faults]


def spoil(shop, statement, **values):
    with shop.world.database.engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        else:
            for table in ("transition", "inbox_message", "decision", "outbox_message", "outbox_delivered"):
                connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {table}_no_update")
                connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {table}_no_delete")
        assert connection.execute(text(statement), values).rowcount


def test_each_payment_holds_by_itself(shop):
    first, second = told(shop, "order-1"), told(shop, "order-2")

    for payment in (first, second):
        report = proof(shop, payment)
        assert (report.faults, report.payments, report.transitions) == ([], 1, 3)
        assert report.signatures == 1
        assert report.outbox > 0
    with pytest.raises(NotFound):
        proof(shop, new_id())


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("UPDATE payment SET amount_minor = 1", "payment"),
        ("UPDATE transition SET reason = 'another' WHERE number = 2", "transition"),
        ("DELETE FROM transition WHERE number = 3", "inbox_message"),
        ("UPDATE decision SET outcome = 'noted' WHERE outcome = 'advanced'", "decision"),
        ("UPDATE outbox_message SET payload = '{}'", "outbox_message"),
        ("DELETE FROM outbox_message", "inbox_message"),
        ("UPDATE outbox_delivered SET attempts = attempts + 1", "outbox_message"),
        ("DELETE FROM outbox_delivered", "outbox_message"),
        ("DELETE FROM delivery_attempt WHERE number = 1", "outbox_message"),
    ],
)
def test_what_was_tampered_with_is_named(shop, statement, table):
    payment = told(shop)
    spoil(shop, statement)

    assert table in {found for found, _ in problems(shop, payment)}


def test_what_retention_took_is_no_fault(shop):
    payment = told(shop)
    assert run(shop, RetentionRule.BODIES)
    report = proof(shop, payment)

    assert report.faults == []
    assert report.retained["bodies"] > 0


def test_a_body_that_nobody_was_to_take_is_a_fault(shop):
    payment = told(shop)
    spoil(shop, "UPDATE inbox_message SET body = :none, scrubbed_at = received_at", none=b"")

    assert ("inbox_message", "its body is gone, and no run of retention took it") in problems(shop, payment)
