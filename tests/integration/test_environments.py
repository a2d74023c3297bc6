"""What a body says of its mode is compared with the account's environment, which every account has."""

import json

import pytest

from receipted.settings import load
from receipted.wiring import Service
from statemachine.phases import Review
from storage import inbox, outbox, payments
from tests.support.builders import a_message
from tests.support.settings_file import LIVE_ACCOUNT, write_settings


@pytest.mark.parametrize(
    ("account", "mode", "review"),
    [
        ("shop-live", {"live": False}, Review.WRONG_ENVIRONMENT),
        ("shop-live", {"test": True}, Review.WRONG_ENVIRONMENT),
        ("shop-live", {"livemode": True}, None),
        ("shop-live", {}, None),
        ("payfield", {"livemode": True}, Review.WRONG_ENVIRONMENT),
        ("payfield", {"mode": "live"}, Review.WRONG_ENVIRONMENT),
        ("payfield", {"test": "true"}, None),
    ],
)
def test_the_settings_environment_is_what_bodies_must_say(tmp_path, template, account, mode, review):
    (tmp_path / "receipted.db").write_bytes(template.read_bytes())
    service = Service(load.load(write_settings(tmp_path, extra=LIVE_ACCOUNT), {}))
    told = {"external_id": "P1", "transaction_type": "payin", "status": "success", "amount": "5.00", "currency": "BDT"}
    body = json.dumps(told | mode).encode()
    with service.database.write() as unit:
        inbox.record(unit, [a_message(account=account, body=body, received_at=service.clock())])
    service.inbox_worker().step()

    with service.database.read() as unit:
        (payment,) = payments.find(unit)
        effects = {owed.effect for owed in outbox.of_payment(unit, payment.id)}
    service.close()
    assert payment.review == review
    assert effects == {"payment.paid" if review is None else "payment.review_required"}
