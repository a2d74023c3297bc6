"""Parsing of Stable Genius's events, and of intents alone or by the page."""

from collections.abc import Mapping
from datetime import datetime
from re import compile as pattern
from typing import Final

from providers.contract import Reading, Statement
from providers.decoding import (
    Unreadable,
    exact_minor,
    fact,
    instant,
    json_object,
    name,
    name_asked,
    says_live,
    word,
    words_under,
)
from providers.http import page_url
from providers.listing import Extent, extent, last_id, read_each, things_in
from providers.stable_genius.lifecycle import PAYMENT_INTENT
from statemachine.errors import InvalidAmount
from statemachine.money import currency_code
from statemachine.observation import Observation
from statemachine.phases import ANSWERS, Source

#: The only currency that payment intents have; it gives an amount its minor unit where none is named.
_CURRENCY: Final = "USD"

_FACTS: Final = (
    *("payment_address", "chain", "token", "qr_payload", "merchant_id"),
    *("net_amount", "fee", "fee_rate", "tx_hash", "sender_address", "block_number"),
    *("confirmed_at", "expired_at", "cancelled_at", "settled_at"),
)

#: An intent's id, or an address on the chain (20 bytes in hexadecimal).
_RELATED: Final = pattern(r"pi_\w+|0x[0-9a-fA-F]{40}")


def parse(statement: Statement, reference_key: str) -> Reading:
    """Parse an intent or its event into one observation, other events into hints.

    Total on any bytes.

    A page of the list has one for each intent, the same as a GET of that intent would have.
    `reference_key` names the metadata entry that carries the merchant's reference.
    Sources: docs.stablegenius.co/api-reference/webhook-events, /get-payment-intent and /list-payment-intents.
    """
    if statement.http_status is not None and not 200 <= statement.http_status < 300:
        return Reading(note=f"an answer with status {statement.http_status} says nothing about a state")
    try:
        told = json_object(statement.body)
        if statement.source is Source.LIST:
            return _page(told, statement, reference_key)
        if statement.source in ANSWERS:
            return Reading(observations=(_answer(told, statement, reference_key),))
        return _event(told, statement, reference_key)
    except (Unreadable, InvalidAmount) as fault:
        return Reading(unreadable=str(fault))


def page_extent(body: bytes, size: int) -> Extent:
    """Return the number of intents on a page and the next position.

    Raises Unreadable.

    Source: docs.stablegenius.co/api-reference/list-payment-intents.
    """
    told = json_object(body)
    intents = things_in(told)
    return extent(len(intents), size, has_more=told.get("has_more"), cursor=last_id(intents))


def _page(told: Mapping[str, object], statement: Statement, reference_key: str) -> Reading:
    intents = things_in(told)
    if not intents:
        return Reading(note="a page of the list without payment intents")

    def read(intent: Mapping[str, object]) -> Observation:
        return _intent(intent, statement, statement.received_at, reference_key, is_live=says_live(intent))

    return Reading(observations=tuple(read_each(intents, statement, PAYMENT_INTENT, read)))


def _answer(told: Mapping[str, object], statement: Statement, reference_key: str) -> Observation:
    seen = _intent(told, statement, statement.received_at, reference_key, is_live=says_live(told))
    if statement.ref is not None and seen.provider_ref != statement.ref:
        raise Unreadable("the answer is about another payment intent than the one asked about")
    return seen


def _event(told: Mapping[str, object], statement: Statement, reference_key: str) -> Reading:
    event, data = word(told.get("type")), told.get("data")
    if event is None:
        raise Unreadable("the event has no type")
    if event.startswith("payment_intent."):
        if not isinstance(data, dict):
            raise Unreadable("the event has no data object")
        at, is_live = instant(told.get("created_at")), says_live(told, data)
        return Reading(observations=(_intent(data, statement, at, reference_key, is_live=is_live),))
    if event in ("settlement.completed", "settlement.failed"):
        # A settlement names no intents in the documentation, and settles many: ask about all that are open.
        return Reading(hints=_related(data), hints_account=True)
    if event == "transaction.created":
        related = _related(data)
        if not related:
            return Reading(note="a transfer that names neither an intent nor an address")
        return Reading(hints=related, hints_money=True)
    return Reading(note=f"events of type {event} are not used")


def _related(data: object) -> tuple[str, ...]:
    return words_under(data, lambda _key, text: _RELATED.fullmatch(text) is not None)


def _intent(
    data: Mapping[str, object],
    statement: Statement,
    as_of: datetime | None,
    reference_key: str,
    *,
    is_live: bool | None,
) -> Observation:
    ref = name_asked(data.get("id"), statement.ref)
    if ref is None:
        raise Unreadable("the payment intent has no id")
    status = word(data.get("status"))
    if status is None and data.get("status") is not None:
        raise Unreadable("the payment intent's status is no word")
    told_currency = data.get("currency")
    if told_currency is not None and not isinstance(told_currency, str):
        raise Unreadable("the payment intent's currency is no text")
    currency = currency_code(told_currency) if told_currency is not None else None
    amount = data.get("amount")
    metadata = data.get("metadata")
    return Observation(
        source=statement.source,
        kind=PAYMENT_INTENT,
        provider_ref=ref,
        alias=name(data.get("payment_address")),
        reference=name(metadata.get(reference_key)) if isinstance(metadata, dict) else None,
        status=status,
        amount_minor=None if amount is None else exact_minor(amount, currency or _CURRENCY),
        currency=currency,
        is_live=is_live,
        as_of=as_of,
        expires_at=instant(data.get("expires_at")),
        facts=_facts(data),
    )


def _facts(data: Mapping[str, object]) -> dict[str, str | None]:
    found: dict[str, str | None] = {
        field: text for field in _FACTS if field in data and (text := fact(data[field])) is not None
    }
    image = page_url(data.get("qr_image_url"), allow_loopback=True)  # an image is looked at, and nobody pays there
    return found if image is None else {**found, "qr_image_url": image}
