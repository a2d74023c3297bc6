"""What a database says when it refuses a row repeats nothing of the row, in whatever way it is shown."""

import json

import pytest
from sqlalchemy.exc import DBAPIError

from receipted.logs import exceptions_as_data
from storage.columns import table_of
from storage.database import values
from storage.tables import InboxMessage, Payment
from tests.support import keeping
from tests.support.builders import a_message, a_payment

SECRET = "order-of-ada-lovelace"


def refused(database, change):
    """The fault as it leaves storage, and all that a log would say of it and what led to it."""
    with pytest.raises(DBAPIError) as caught, database.write() as unit:
        change(unit)
    told = exceptions_as_data(None, "error", {"event": "x", "exc_info": caught.value})
    return caught.value, f"{caught.value} {caught.value!r} {caught.value.orig!r} {json.dumps(told)}"


def twice(unit):
    for _ in range(2):
        keeping.keep(unit, a_payment(provider_ref=SECRET))


def without_account(unit):
    kept = a_message(delivery_key=SECRET, body=SECRET.encode())
    kept.account = None
    unit.execute(table_of(InboxMessage).insert(), values(kept))


def unkeepable(text):
    payment = a_payment()
    payment.provider_ref = text
    return lambda unit: unit.execute(table_of(Payment).insert(), values(payment))


def no_id(unit):
    unit.execute(table_of(Payment).select().where(table_of(Payment).c.id == SECRET)).all()


@pytest.mark.parametrize("change", [twice, without_account])
def test_a_row_that_is_refused_is_not_repeated(database, change):
    """A unique constraint, and a column that must not be empty: PostgreSQL quotes the key, or the row."""
    fault, told = refused(database, change)

    assert SECRET not in told
    assert SECRET.encode().hex() not in told
    assert "constraint" in str(fault).lower()


@pytest.mark.parametrize("text", [SECRET + "\x00", SECRET * 100], ids=["nul", "long"])
def test_a_value_that_is_refused_is_not_repeated(postgresql, text):
    """What PostgreSQL alone refuses: a text with NUL, and one that is longer than its column."""
    database = postgresql.cleaned()
    _, told = refused(database, unkeepable(text))
    _, asked = refused(database, no_id)
    database.close()

    assert SECRET not in told + asked
