"""Fields that Banked's v2 and v3 bodies have in common."""

from collections.abc import Mapping
from typing import Final

from providers.contract import Statement
from providers.decoding import Unreadable, fact, name_asked, whole_minor, word
from providers.http import page_url
from providers.masking import masked_words
from statemachine.errors import InvalidAmount
from statemachine.money import currency_code

#: The last word of an event, and the states in which a resource may be when that is announced.
_FITTING: Final[Mapping[str, frozenset[str]]] = {
    "initiated": frozenset({"initiated"}),
    "pending": frozenset({"pending", "awaiting_details", "awaiting_payment"}),
    "sent": frozenset({"sent", "externally processed"}),
    "failed": frozenset({"failed"}),
    "canceled": frozenset({"canceled"}),
}


def ref_of(body: Mapping[str, object], statement: Statement) -> str:
    """Return the resource's id; raise Unreadable if absent or not the one asked about."""
    told = name_asked(body.get("id"), statement.ref)
    if told is None and body.get("id") is not None:
        raise Unreadable("id is no name of a payment")
    if told is not None and statement.ref is not None and told != statement.ref:
        raise Unreadable("the answer is about another resource than was asked about")
    ref = told or statement.ref
    if ref is None:
        raise Unreadable("id is missing")
    return ref


def money_of(body: Mapping[str, object]) -> tuple[int | None, str | None]:
    """Return minor units and currency, each if stated; raise Unreadable for fractions."""
    amount, currency = body.get("amount"), body.get("currency")
    if currency is not None and not isinstance(currency, str):
        raise Unreadable("currency is not text")
    try:
        code = None if currency is None else currency_code(currency)
        return None if amount is None else whole_minor(amount), code
    except InvalidAmount as fault:
        raise Unreadable(fault.message) from None


def reason_of(value: object) -> str | None:
    """Return Banked's error, text or object, as one masked line.

    The object's fields are not documented.
    """
    if isinstance(value, dict):
        named = (word(value.get(field)) for field in ("code", "reason", "type", "title", "message"))
        value = next((text for text in named if text), "an error without a code")
    return masked_words(value) or None


def agreed(announced: str, state: str | None) -> str | None:
    """Return the state of a webhook; None ("ask") where its event contradicts it.

    Refunds have finer states than their events: those are shown, and the event only has to fit.
    """
    if announced not in _FITTING:
        return state  # an event that announces no state leaves it to the resource
    if state is None:
        return announced
    return state if state.lower() in _FITTING[announced] else None


def facts_of(body: Mapping[str, object], *, allow_loopback: bool = False) -> dict[str, str | None]:
    """Return the facts to keep; `latest_error` is removed when the provider resets it."""
    found = {
        "payment_link": page_url(body.get("url") or body.get("checkout_url"), allow_loopback=allow_loopback),
        "end_to_end_id": fact(body.get("end_to_end_id")),
        "sent_at": fact(body.get("sent_at")),
        "live": fact(body.get("live")),
        "payment_session_id": fact(body.get("payment_session_id")),
    }
    facts: dict[str, str | None] = {name: text for name, text in found.items() if text is not None}
    if "latest_error" in body:
        facts["latest_error"] = reason_of(body["latest_error"])
    return facts
