"""What SQLite does for one page is the same however many rows there are: it is counted in its own instructions.

A plan alone does not tell: of an index that serves the first of two columns SQLite may go through every entry.
"""

from datetime import timedelta

import pytest

from statemachine.phases import Phase
from storage import inbox, outbox, payment_history, search, totals
from storage.search import PageCursor
from storage.tables import InboxMessage, OperatorAction, OutboxMessage, Payment, Transition
from storage.totals import Money
from tests.support.builders import a_message, a_payment
from tests.support.clock import START
from tests.support.databases import copy_of
from tests.support.rows import a_transition, add, add_owed, an_effect, id_at

ROWS = 4000

#: Far more than any of these needs, and less than one instruction for each row.
BOUND = ROWS // 2

MINUTE = timedelta(minutes=1)
IN_REVIEW = search.RowFilter(among={"account": ["acme"]}, present={"review": True})
MONEY = Money("acme", "payin", "USD", Phase.PAID)


@pytest.fixture(scope="module")
def filled(template, tmp_path_factory):
    """So many payments, a minute apart, each with a message, a transition, an effect and what somebody did about it."""
    database = copy_of(template, tmp_path_factory.mktemp("steps") / "steps.db")
    rows = {model: [] for model in (Payment, InboxMessage, Transition, OutboxMessage, OperatorAction)}
    for number in range(ROWS):
        at = START + number * MINUTE
        payment = a_payment(
            id=id_at(at), account="acme", kind="payin", phase="paid", currency="USD", amount_minor=5, created_at=at
        )
        message = a_message(account="acme", message_id=id_at(at))
        message.status, message.payment_id = "decided", payment.id
        action = OperatorAction(id=id_at(at), account="acme", at=at, actor="ada", action="replay", subject=message.id)
        action.reason = "a test"
        rows[Payment].append(payment)
        rows[InboxMessage].append(message)
        rows[Transition].append(a_transition(payment, 1, "paid", at))
        rows[OutboxMessage].append(an_effect(at=at, payment_id=payment.id, cause=message.id, status="delivered"))
        rows[OperatorAction].append(action)
    with database.write() as unit:
        add_owed(unit, rows[OutboxMessage])
        for model, made in rows.items():
            for row in made if model is not OutboxMessage else ():
                add(unit, row)
    yield database, [row.id for row in rows[Payment]], [row.id for row in rows[OutboxMessage]]
    database.close()


PAGES = {
    "the page of a payment": lambda unit, payment, _owed: payment_history.read(unit, payment).rows,
    "messages about a payment": lambda unit, payment, _owed: inbox.concerning(unit, payment),
    "what made an effect owed": lambda unit, _payment, owed: outbox.causes_of(unit, [owed]),
    "a search that finds": lambda unit, payment, _owed: search.payment_ids(unit, payment),
    "a search that finds nothing": lambda unit, _payment, _owed: search.payment_ids(unit, "order-none") == [],
    "places of payments": lambda unit, _payment, _owed: search.places(unit) == [("acme", "payin")],
    "payments behind a sum": lambda unit, _payment, _owed: totals.entries(
        unit, START, START + 10 * MINUTE, [MONEY], after=None, limit=100
    ),
    "an account's payments in review": lambda unit, _payment, _owed: (
        search.payments(unit, IN_REVIEW, search.PageCursor(20)).rows == []
    ),
    "effects that wait": lambda unit, _payment, _owed: (
        search.outbox_messages(unit, search.RowFilter(among={"status": ["pending"]}), search.PageCursor(20)).rows == []
    ),
    "a table of an account's payments in review": lambda unit, _payment, _owed: (
        search.page(unit, search.PAYMENTS, search.RowFilter({"account": "acme"}, {"review": True}), PageCursor(50)).rows
        == []
    ),
    "how many of an account's payments are in review": lambda unit, _payment, _owed: (
        search.count(unit, search.PAYMENTS, search.RowFilter({"account": "acme"}, {"review": True})).number == 0
    ),
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_takes_the_same_steps_however_many_rows_there_are(filled, page):
    """One half of an instruction for each row is not enough to look at every row."""
    database, payments, owed = filled
    steps = 0

    def count():
        nonlocal steps
        steps += 1
        return 0

    with database.read() as unit:
        driver = unit._connection.connection.driver_connection
        driver.set_progress_handler(count, 1)
        try:
            assert page(unit, payments[ROWS // 2], owed[ROWS // 2])
        finally:
            driver.set_progress_handler(None, 0)
    assert 0 < steps < BOUND
