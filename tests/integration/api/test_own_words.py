"""A payment's description and metadata: what the merchant said of it, in answers, effects, history and audit."""

import pytest

from service.commands import (
    MAX_DESCRIPTION_CHARS,
    MAX_METADATA_KEY_CHARS,
    MAX_METADATA_KEYS,
    MAX_METADATA_VALUE_CHARS,
)
from tests.support.api import create, error

OWN_WORDS = {"description": "2 tickets, row 7", "metadata": {"cart": "c-88", "étage": "=1+1 <b>\u202e"}}

FULL = {f"{number:02}".ljust(MAX_METADATA_KEY_CHARS, "k"): "v" * MAX_METADATA_VALUE_CHARS for number in range(50)}


def said(payment):
    return {name: payment[name] for name in ("description", "metadata")}


def test_a_payment_is_told_with_what_it_was_created_with(api):
    made = create(api.client(), reference="order-1", **OWN_WORDS).json()

    assert said(made) == OWN_WORDS
    assert said(api.client().get(f"/v1/payments/{made['id']}").json()) == OWN_WORDS
    assert said(api.client().get("/v1/payments").json()["data"][0]) == OWN_WORDS


def test_a_payment_without_any_has_none(api):
    assert said(create(api.client()).json()) == {"description": None, "metadata": {}}


def test_as_much_as_is_allowed_is_kept(api):
    """The limits are those of Stripe's metadata."""
    own = {"description": "d" * MAX_DESCRIPTION_CHARS, "metadata": FULL}

    assert len(FULL) == MAX_METADATA_KEYS
    assert said(create(api.client(), **own).json()) == own


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"description": "a\x00b"}, "description"),
        ({"description": "d" * (MAX_DESCRIPTION_CHARS + 1)}, "description"),
        ({"metadata": "cart"}, "metadata"),
        ({"metadata": ["cart"]}, "metadata"),
        ({"metadata": {"": "empty"}}, "metadata"),
        ({"metadata": {"a\x00b": "zero"}}, "metadata"),
        ({"metadata": {"cart": "a\x00b"}}, "metadata.cart"),
        ({"metadata": {"cart": "v" * (MAX_METADATA_VALUE_CHARS + 1)}}, "metadata.cart"),
        ({"metadata": {"cart": 88}}, "metadata.cart"),
        ({"metadata": {"cart": None}}, "metadata.cart"),
        ({"metadata": {"k" * (MAX_METADATA_KEY_CHARS + 1): "long"}}, "metadata"),
        ({"metadata": {**FULL, "one": "more"}}, "metadata"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_beyond_the_limits_is_refused_before_anything_is_done(shared, wrong, param):
    refused = error(create(shared.client(), **wrong), 400)

    assert refused["code"] == "invalid_value"
    assert refused["param"].startswith(param)
    assert shared.client().get("/v1/payments").json()["data"] == []


def test_the_same_wish_is_the_same_payment_and_another_is_a_conflict(api):
    """The order of the names makes no difference; another value does."""
    first = create(api.client(), reference="order-2", key="one", metadata={"a": "1", "b": "2"}).json()
    again = create(api.client(), reference="order-2", key="two", metadata={"b": "2", "a": "1"}).json()
    other = create(api.client(), reference="order-2", key="three", metadata={"a": "1", "b": "3"})

    assert first["id"] == again["id"]
    assert error(other, 409)["param"] == "reference"
    assert said(api.client().get(f"/v1/payments/{first['id']}").json())["metadata"] == {"a": "1", "b": "2"}


def test_a_tracked_payment_is_described_and_described_anew(api):
    """A description or metadata takes the place of both; a call with neither leaves them."""
    made = create(api.client(), reference="order-3", metadata={"cart": "c-1"}).json()
    name = {"account": made["account"], "provider_ref": made["provider_ref"], "kind": made["kind"]}

    described = [
        said(api.client().post("/v1/payments/track", json={**name, **own}).json())
        for own in ({}, {"metadata": {"cart": "c-2"}}, {"description": "two"}, {})
    ]

    assert described == [
        {"description": None, "metadata": {"cart": "c-1"}},
        {"description": None, "metadata": {"cart": "c-2"}},
        {"description": "two", "metadata": {}},
        {"description": "two", "metadata": {}},
    ]
