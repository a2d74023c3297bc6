"""Parsing of Payfield's callbacks and answers; one body holds one operation."""

from collections.abc import Mapping
from typing import Final

from providers.contract import Reading, Statement
from providers.decoding import Unreadable, exact_minor, fact, instant, json_object, name_asked, says_live, word
from providers.http import page_url
from statemachine.errors import InvalidAmount
from statemachine.money import currency_code
from statemachine.observation import Observation
from statemachine.phases import ANSWERS, Source

_KINDS: Final = frozenset({"payin", "payout"})

#: In place of a kind: a payout's success must not be taken for that of a payin with the same id, which may be the only
#: one of the two that is known here. Asking costs one question; believing the wrong one costs the goods.
ASK: Final = "ask"

#: What an unknown operation is tracked as, or waited for as, until the provider was asked: a guess, and so no state.
_LIKELIEST: Final = "payin"

#: What an error has and an operation has not; an id of ours that comes back with it proves nothing.
_ERROR_FIELDS: Final = ("error", "errors", "code")


def parse(statement: Statement, default_kind: str, *, allow_loopback: bool = False) -> Reading:
    """Parse a statement; total on any bytes. Amounts are exact or it is unreadable.

    Amounts are decimal strings (NEW) or JSON numbers (OLD) of major units. A callback does not say whether it is
    about a payin or a payout: `transaction_type` does where it is there, else the URL that was used or the question
    that was asked, else the account's default, which may be to believe no more than that there is something to ask
    about. The id is the merchant's, by which the API returns the operation.
    Source: https://bdt-hrs-external-documentation.pages.dev/docs/02-payouts/2.3-webhook-delivery
    """
    try:
        body = json_object(statement.body)
        kind = _kind(body, statement, default_kind)
        if kind is None:
            return Reading(note="a transaction_type that we do not use")
        if kind == ASK:
            return Reading(observations=(_something(statement, _ref(body, statement), says_live(body)),))
        return Reading(observations=(_observation(body, statement, kind, _facts(body, allow_loopback)),))
    except Unreadable as fault:
        return Reading(unreadable=str(fault))


def _kind(body: Mapping[str, object], statement: Statement, default_kind: str) -> str | None:
    told = body.get("transaction_type")
    if told is None:
        return statement.kind or default_kind
    if statement.source in ANSWERS and statement.kind is not None and told != statement.kind:
        raise Unreadable("the answer is about another kind of operation than was asked about")
    return told if isinstance(told, str) and told in _KINDS else None


def _something(statement: Statement, ref: str, is_live: bool | None) -> Observation:
    """Return a hint: an operation with this id exists, and the provider is asked."""
    return Observation(
        source=statement.source,
        kind=_LIKELIEST,
        is_kind_guessed=True,
        provider_ref=ref,
        reference=ref,
        is_live=is_live,
    )


def _observation(
    body: Mapping[str, object], statement: Statement, kind: str, facts: Mapping[str, str | None]
) -> Observation:
    ref = _ref(body, statement)
    amount, currency = _money(body)
    is_answer = statement.source in ANSWERS
    status = word(body.get("status"))
    if status is None and not is_answer:
        raise Unreadable("status is missing or not text")
    if status is None and any(body.get(field) is not None for field in _ERROR_FIELDS):
        raise Unreadable("an error, whatever the HTTP status says")
    return Observation(
        source=statement.source,
        kind=kind,
        is_kind_guessed=not is_answer and body.get("transaction_type") is None,
        provider_ref=ref,
        reference=ref,
        status=status,
        amount_minor=amount,
        currency=currency,
        is_live=says_live(body),
        as_of=instant(body.get("updated_at")) or (statement.received_at if is_answer else None),
        expires_at=instant(_part(body, "payment_page_expires_at")),
        facts=facts,
    )


def _ref(body: Mapping[str, object], statement: Statement) -> str:
    """Return the merchant's id, spelt as a create call's answer spells it."""
    told, is_create = name_asked(body.get("external_id"), statement.ref), statement.source is Source.CREATE
    if told is None and body.get("external_id") is not None:
        raise Unreadable("external_id is no name of a payment")
    if told is not None and not is_create and statement.ref is not None and told != statement.ref:
        raise Unreadable("the answer is about another operation than was asked about")
    ref = told if is_create else told or statement.ref
    if ref is None:
        raise Unreadable("external_id is missing")
    return ref


def _money(body: Mapping[str, object]) -> tuple[int | None, str | None]:
    amount, currency = body.get("amount"), body.get("currency")
    if currency is not None and not isinstance(currency, str):
        raise Unreadable("currency is not text")
    if amount is None and currency is None:
        return None, None
    try:
        code = currency_code(currency or "")
        if amount is None:
            return None, code
        return exact_minor(amount, code), code
    except InvalidAmount as fault:
        raise Unreadable(fault.message) from None


def _facts(body: Mapping[str, object], allow_loopback: bool) -> dict[str, str | None]:
    link = _part(body, "payment_link") or _part(body, "payment_page_url")
    found = {
        "operation_id": fact(body.get("id")),
        "payment_link": page_url(link, allow_loopback=allow_loopback),
        "shop_code": fact(body.get("shop_code")),
        "finalization_date": fact(body.get("finalization_date")),
    }
    return {name: text for name, text in found.items() if text is not None}


def _part(body: Mapping[str, object], name: str) -> object:
    """Return a field that stands inside `paymentData` or beside it, by currency."""
    details = body.get("paymentData")
    return (details.get(name) if isinstance(details, dict) else None) or body.get(name)
