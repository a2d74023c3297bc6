"""Banked's v2 bodies: a flat copy of the resource; webhooks add event and type."""

from collections.abc import Mapping
from typing import Final

from providers.banked.fields import agreed, facts_of, money_of, reason_of, ref_of
from providers.contract import Statement
from providers.decoding import Unreadable, name, says_live, word
from statemachine.observation import Observation
from statemachine.phases import ANSWERS

#: By `webhook_type`, and by what comes before the underscore in `webhook_event`.
_KINDS: Final = {
    "payment_session": "payment_session",
    "payment": "payment_session",
    "payout": "payout",
    "refund": "refund",
    "mandate": "mandate",
    "batch_payment_session": "batch",
    "batch": "batch",
}


def kind_of(body: Mapping[str, object], used: str | None) -> str | None:
    """Return the kind of a webhook: by type, event, or else the callback URL.

    The type is also read as the provider misspells it.

    The oldest bodies have neither type nor event, and are payment sessions. None for a kind that we do not use.
    """
    told = body.get("webhook_type") or body.get("webook_type")
    if isinstance(told, str):
        return _KINDS.get(told)
    event = word(body.get("webhook_event"))
    if event is not None:
        return _KINDS.get(event.partition("_")[0])
    return used or "payment_session"


def _says_kind(body: Mapping[str, object]) -> bool:
    told = body.get("webhook_type") or body.get("webook_type")
    return isinstance(told, str) or word(body.get("webhook_event")) is not None


def observation(
    body: Mapping[str, object], statement: Statement, kind: str, *, allow_loopback: bool = False
) -> Observation:
    """Parse a v2 body; raise Unreadable.

    A webhook has no time of its change, an answer has that of asking.
    """
    is_answer = statement.source in ANSWERS
    announced = (word(body.get("webhook_event")) or "").rpartition("_")[2]
    status = agreed(announced, word(body.get("state")))
    if status is None and not is_answer and "webhook_event" not in body and "state" not in body:
        raise Unreadable("neither state nor webhook_event")
    amount, currency = money_of(body)
    return Observation(
        source=statement.source,
        kind=kind,
        is_kind_guessed=not is_answer and not _says_kind(body),
        provider_ref=ref_of(body, statement),
        reference=name(body.get("reference")),
        status=status,
        amount_minor=amount,
        currency=currency,
        is_live=says_live(body),
        as_of=statement.received_at if is_answer else None,
        failure_reason=reason_of(body.get("state_reason")) if status == "failed" else None,
        facts=facts_of(body, allow_loopback=allow_loopback),
    )
