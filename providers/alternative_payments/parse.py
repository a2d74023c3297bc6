"""Parsing of Alternative Payments' answers; webhooks and their log are hints."""

from collections.abc import Mapping
from typing import Final, Literal

from providers.alternative_payments.lifecycle import PAYMENT_REQUEST
from providers.contract import Reading, Statement
from providers.decoding import (
    UNDIVIDED,
    Unreadable,
    exact_minor,
    fact,
    instant,
    json_object,
    json_value,
    name,
    name_asked,
    says_live,
    word,
    words_under,
)
from providers.http import page_url
from providers.listing import Extent, extent, things_in
from statemachine.errors import InvalidAmount
from statemachine.money import currency_code
from statemachine.observation import Observation
from statemachine.phases import ANSWERS, Source

AmountUnit = Literal["minor", "major"]

#: The only currency that payment requests have; it gives an amount its minor unit where none is named.
_CURRENCY: Final = "USD"

#: More names than a page of events can have; what named more would take the worker for too long.
_MAX_HINTS: Final = 2000

_FACTS: Final = ("created_at", "paid_at", "expired_at", "cancelled_at")


def parse(statement: Statement, amount_unit: AmountUnit, *, allow_loopback: bool = False) -> Reading:
    """Parse an answer into one observation, a webhook into hints; total on any bytes.

    A webhook is not signed and has no documented body: every text in it under `id`, `reference_id` or another `*_id`
    is a hint, and the whole account is asked about, since no topic concerns payment requests. A page of the log of
    events is read as its events are, each of them for itself.
    Sources: docs.alternativepayments.io/api-reference/payment-request, /getting-started/webhooks and /webhooks.
    """
    if statement.http_status is not None and not 200 <= statement.http_status < 300:
        return Reading(note=f"an answer with status {statement.http_status} says nothing about a state")
    try:
        if statement.source is Source.LIST:
            return _events(things_in(json_value(statement.body)))
        if statement.source in ANSWERS:
            return Reading(
                observations=(_request(json_object(statement.body), statement, amount_unit, allow_loopback),)
            )
        return Reading(hints=words_under(json_value(statement.body), _is_id), hints_account=True)
    except (Unreadable, InvalidAmount) as fault:
        return Reading(unreadable=str(fault))


def page_extent(body: bytes, size: int) -> Extent:
    """Return the number of events on a page, and the next cursor; raise Unreadable.

    Reads both documented envelopes: cursors beside `data`, and in an object `pagination`.
    Sources: docs.alternativepayments.io/webhooks and /getting-started/quick-start/guides.
    """
    told = json_object(body)
    inner = told.get("pagination")
    cursors = inner if isinstance(inner, dict) else told
    return extent(
        len(things_in(told)), size, has_more=cursors.get("has_next_page"), cursor=word(cursors.get("end_cursor"))
    )


def _events(events: list[object]) -> Reading:
    if not events:
        return Reading(note="a page of the log without events")
    named = dict.fromkeys(text for event in events for text in words_under(event, _is_id))
    if len(named) > _MAX_HINTS:
        raise Unreadable(f"the page names more than {_MAX_HINTS} things")
    return Reading(hints=tuple(named), hints_account=True)


def _is_id(key: str, _text: str) -> bool:
    return key == "id" or key.endswith("_id")


def _request(
    told: Mapping[str, object], statement: Statement, amount_unit: AmountUnit, allow_loopback: bool
) -> Observation:
    ref = name_asked(told.get("id"), statement.ref)
    if ref is None:
        raise Unreadable("the payment request has no id")
    if statement.ref is not None and ref != statement.ref:
        raise Unreadable("the answer is about another payment request than the one asked about")
    status = word(told.get("status"))
    if status is None and told.get("status") is not None:
        raise Unreadable("the payment request's status is no word")
    told_currency = told.get("currency")
    if told_currency is not None and not isinstance(told_currency, str):
        raise Unreadable("the payment request's currency is no text")
    currency = currency_code(told_currency) if told_currency is not None else None
    amount = told.get("amount")
    facts = {field: text for field in _FACTS if (text := fact(told.get(field))) is not None}
    if (page := page_url(told.get("url"), allow_loopback=allow_loopback)) is not None:
        facts["url"] = page
    return Observation(
        source=statement.source,
        kind=PAYMENT_REQUEST,
        provider_ref=ref,
        reference=name(told.get("reference_id")),
        status=status,
        amount_minor=None if amount is None else _minor(amount, currency or _CURRENCY, amount_unit),
        currency=currency,
        is_live=says_live(told),
        as_of=statement.received_at,
        expires_at=instant(told.get("expires_at")),
        facts=facts,
    )


def _minor(amount: object, currency: str, unit: AmountUnit) -> int:
    # A number of minor units is a decimal amount in a currency that has no places.
    return exact_minor(amount, currency if unit == "major" else UNDIVIDED)
