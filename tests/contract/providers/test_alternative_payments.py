"""Alternative Payments under the contract that every provider keeps."""

from datetime import datetime

import pytest

from providers.alternative_payments.options import AlternativePaymentsOptions
from providers.alternative_payments.provider import AlternativePayments
from statemachine.phases import Source
from tests.contract.providers.provider_contract import CHECKS, Answered, Case, vectors

REF = "0b0a3c5e-4d0f-4a2f-9d5e-0f3b8f0a6c11"
REQUEST = b'{"id":"%s","reference_id":"order-1","status":"%s","url":"https://checkout.example/1"}'


def sign(secret: bytes, _body: bytes, _at: datetime) -> dict[str, str]:
    return {"Authorization": "Bearer " + secret.decode("latin-1")}


def answered(status: str, source: Source = Source.POLL) -> Answered:
    body = REQUEST % (REF.encode(), status.encode())
    return Answered(kind="payment_request", ref=REF, status=status, body=body, source=source)


CASE = Case(
    provider=AlternativePayments(AlternativePaymentsOptions()),
    sign=sign,
    body=b'{"topic":"payment_succeeded","data":{"id":"pay_1","reference_id":"order-1"}}',
    other_body=b'{"topic":"payment_succeeded","data":{"id":"pay_2","reference_id":"order-2"}}',
    answers=(
        answered("pending", Source.CREATE),
        *(answered(status) for status in ("pending", "paid", "expired", "cancelled")),
        answered("cancelled", Source.CANCEL),
    ),
    bodies=vectors("alternative_payments"),
    signs_body=False,
    signs_time=False,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check):
    """Alternative Payments keeps the promise that the check's first line states."""
    check(CASE)


@pytest.mark.parametrize("body", vectors("alternative_payments"))
@pytest.mark.parametrize("source", [Source.WEBHOOK, Source.CALLBACK, Source.RETURN])
def test_an_unsigned_webhook_is_never_believed(body, source):
    """Whatever a webhook says, even in the words of an answer, it is a hint and never an observation."""
    from providers.contract import Statement
    from tests.contract.providers.provider_contract import NOW

    reading = CASE.provider.parse(Statement(source, body, NOW))
    assert reading.observations == ()
    assert reading.hints_account
