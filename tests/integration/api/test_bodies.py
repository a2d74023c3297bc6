"""A query or body that two readers may read in two ways is refused by every operation."""

import pytest

from api.application import operations
from tests.support.api import error, wish

SOME = "01a1fdca-6b5b-712f-b9f0-87ef6d7b7107"
WITH_BODY = [operation for operation in operations() if operation.body_model is not None]

REPEATED = (
    b'{"reference": "a", "reference": "b"}',
    b'{"account": "a", "acc\\u006funt": "b"}',
    b'{"extra": {"a": 1, "a": 1}}',
    b'{"extra": {"a": [{"b": {"c": 1, "d": 2, "c": 3}}]}}',
)
NO_NUMBERS = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999")


def sent(client, operation, content):
    path = operation.path.format(id=SOME, account="payfield")
    headers = {"idempotency-key": "k", "content-type": "application/json"}
    return client.request(operation.method, path, content=content, headers=headers)


@pytest.fixture(scope="module")
def client(shared):
    return shared.client()


@pytest.mark.parametrize("content", REPEATED, ids=repr)
@pytest.mark.parametrize("operation", WITH_BODY, ids=lambda operation: operation.operation_id)
def test_a_name_that_is_given_twice_is_refused_at_any_depth(client, operation, content):
    assert error(sent(client, operation, content), 400)["code"] == "repeated_field"


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.operation_id)
def test_a_name_that_is_given_twice_in_a_query_is_refused_with_all_else(client, operation):
    """Whether the operation takes that name, another, or no query at all."""
    known = next(iter(operation.query_model.model_fields)) if operation.query_model is not None else "limit"
    for name in (known, "elsewhere"):
        path = operation.path.format(id=SOME, account="payfield")
        refused = error(client.request(operation.method, f"{path}?{name}=1&{name}=2&unknown=1"), 400)

        found = {(fault["code"], fault["param"]) for fault in refused["errors"] if fault["where"] == "query"}
        assert {("repeated_field", name), ("unknown_field", "unknown")} <= found


@pytest.mark.parametrize("number", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize("operation", WITH_BODY, ids=lambda operation: operation.operation_id)
def test_a_number_that_json_has_not_is_refused_at_any_depth(client, operation, number):
    for content in (b'{"note": %s}' % number, b'{"extra": {"a": [1, {"b": %s}]}}' % number):
        assert error(sent(client, operation, content), 400)["code"] == "invalid_json"


def test_the_same_name_in_two_objects_is_no_repetition(api):
    body = wish(extra={"merchant_user_id": "17", "merchant_user_ip": "192.0.2.1", "a": [{"b": 1}, {"b": 1}]})

    assert api.client().post("/v1/payments", json=body, headers={"idempotency-key": "k"}).status_code == 200
