"""Banked's v3 bodies: an envelope with an event id; status in `status_details`."""

from collections.abc import Mapping
from typing import Final

from providers.banked.fields import agreed, facts_of, money_of, reason_of, ref_of
from providers.contract import Statement
from providers.decoding import Unreadable, name, says_live, word
from statemachine.observation import Observation
from statemachine.phases import ANSWERS

_KINDS: Final = {"payment": "payin", "payin": "payin", "refund": "refund", "payout": "payout", "mandate": "mandate"}

#: The mandate page's example has `type` "active" where its table says mandate_active; no other resource does that.
_BARE_MANDATE: Final = frozenset(
    {"created", "pending", "active", "suspended", "cancelled", "declined", "expired", "failed"}
)

_ENDED_BADLY: Final = frozenset({"failed", "canceled"})


def data_of(body: Mapping[str, object]) -> Mapping[str, object] | None:
    """Return the resource of a v3 envelope, else None; raise Unreadable if empty."""
    data = body.get("data")
    if isinstance(data, dict) and ("type" in body or body.get("version") == "v3"):
        return data
    if body.get("version") == "v3":
        raise Unreadable("a v3 envelope without data")
    return None


def kind_of(body: Mapping[str, object]) -> str | None:
    """Return the kind of an envelope by its type; None for a kind that we do not use."""
    told = word(body.get("type"))
    if told is None:
        raise Unreadable("a v3 envelope without a type")
    if told in _BARE_MANDATE:
        return "mandate"
    return "batch" if told.startswith("batch_") else _KINDS.get(told.partition("_")[0])


def observation(
    envelope: Mapping[str, object],
    data: Mapping[str, object],
    statement: Statement,
    kind: str,
    *,
    allow_loopback: bool = False,
) -> Observation:
    """Parse a v3 resource; raise Unreadable.

    Payins have upper-case states, refunds and payouts lower-case.
    """
    is_answer = statement.source in ANSWERS
    details = data.get("status_details")
    status, reason = (details.get("status"), details.get("reason")) if isinstance(details, dict) else (None, None)
    announced = (word(envelope.get("type")) or "").rpartition("_")[2]
    shown = word(status) or word(data.get("status")) or word(data.get("state"))
    state = _in_its_case(agreed(announced, shown), kind)
    amount, currency = money_of(data)
    has_failed = state is not None and state.lower() in _ENDED_BADLY
    return Observation(
        source=statement.source,
        kind=kind,
        provider_ref=ref_of(data, statement),
        reference=_reference(data),
        status=state,
        amount_minor=amount,
        currency=currency,
        is_live=says_live(envelope, data),
        as_of=statement.received_at if is_answer else None,
        failure_reason=reason_of(reason) if has_failed else None,
        facts=facts_of(data, allow_loopback=allow_loopback),
    )


def _in_its_case(state: str | None, kind: str) -> str | None:
    if state is None:
        return None
    return state.upper() if kind == "payin" else state.lower()


def _reference(data: Mapping[str, object]) -> str | None:
    identification = data.get("payment_identification")
    inner = identification.get("end_to_end_identification") if isinstance(identification, dict) else None
    return name(inner) or name(data.get("reference"))
