"""Dispatch of a statement to the parser of its body shape."""

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from providers.banked import v2, v3
from providers.banked.errors import created_ref, error_items
from providers.banked.fields import money_of
from providers.banked.lifecycle import REFUND
from providers.banked.options import BankedOptions
from providers.contract import Reading, Statement
from providers.decoding import Unreadable, json_object, json_value, name, says_live, word
from providers.listing import read_each, things_in
from providers.masking import masked_words
from statemachine.observation import Observation
from statemachine.phases import ANSWERS, Phase, Source
from statemachine.sums import Part, PartKind, PartStatus

_NOTES: Final = {"mandate": "a mandate event; mandates are not tracked", "batch": "a batch event; see its sessions"}


def parse(statement: Statement, options: BankedOptions) -> Reading:
    """Parse a statement; total on any bytes.

    An amount that is not in whole minor units makes the body unreadable.

    Read are v3 envelopes, v2 bodies in all their spellings, the resource that a call of ours answers with, an answer
    that failed in part, the empty answer to a DELETE, and pages of a list, with one observation for each resource, the
    same as a GET of it would have. Source: https://docs.banked.com/merchant/webhooks
    """
    if statement.source is Source.CANCEL and statement.ref and not statement.body.strip():
        return Reading(observations=(_deleted(statement, options.deleted_state),))
    try:
        if statement.source is Source.LIST:
            return _page(listed(statement.body), statement, options)
        body = json_object(statement.body)
        if statement.source is Source.REFUND:
            return Reading(observations=(_refunded(body, statement),))
        if statement.source in ANSWERS:
            answered = _answer(body, statement, options.allow_loopback_http)
            return Reading(observations=(answered, *_of_session(body, answered)))
        data = v3.data_of(body)
        kind = v3.kind_of(body) if data is not None else v2.kind_of(body, statement.kind)
        if kind is None:
            return Reading(note="an event of a kind that we do not use")
        if kind in _NOTES:
            return Reading(note=_NOTES[kind])
        is_dev = options.allow_loopback_http
        if data is not None:
            seen = v3.observation(body, data, statement, kind, allow_loopback=is_dev)
            return Reading(observations=(seen, *_of_session(data, seen)))
        seen = v2.observation(body, statement, kind, allow_loopback=is_dev)
        return Reading(observations=(seen, *_of_session(body, seen)))
    except Unreadable as fault:
        return Reading(unreadable=str(fault))


def listed(body: bytes) -> list[object]:
    """Return the resources on a page: a bare list, or `data`; raise Unreadable.

    No documented page shows which.
    """
    value = json_value(body)
    return things_in({"data": value} if isinstance(value, list) else value)


def _page(resources: list[object], statement: Statement, options: BankedOptions) -> Reading:
    if not resources:
        return Reading(note="an empty page")

    def read(resource: Mapping[str, object]) -> Observation:
        return _answer(resource, statement, options.allow_loopback_http)

    return Reading(observations=tuple(read_each(resources, statement, statement.kind, read)))


def _answer(body: Mapping[str, object], statement: Statement, allow_loopback: bool) -> Observation:
    if statement.kind is None:
        raise Unreadable("an answer without the kind that was asked about")
    created = created_ref(body) if statement.source is Source.CREATE else None
    if created is not None and "id" not in body:
        return _partly_created(body, statement, created)
    data = body.get("data")
    inner = data if isinstance(data, dict) and "id" not in body else body
    if statement.kind == "payin" or "status_details" in inner:
        seen = v3.observation({}, inner, statement, statement.kind, allow_loopback=allow_loopback)
    else:
        seen = v2.observation(inner, statement, statement.kind, allow_loopback=allow_loopback)
    return seen if inner is body else replace(seen, is_live=says_live(body, inner))


#: By a refund's state, in the words of v2 and of v3.
_PART_STATUSES: Final[Mapping[str, PartStatus]] = {
    state.name: {
        Phase.REFUNDED: PartStatus.DONE,
        Phase.FAILED: PartStatus.UNDONE,
        Phase.CANCELLED: PartStatus.UNDONE,
    }.get(state.phase, PartStatus.PENDING)
    for state in REFUND.states
}


def _refunded(body: Mapping[str, object], statement: Statement) -> Observation:
    """Read the refund that a call of ours has made, as a part of its session."""
    ref = name(body.get("id"))
    if ref is None or statement.ref is None:
        raise Unreadable("a refund without an id")
    status = _PART_STATUSES.get(word(body.get("state")) or "")
    if status is None:
        raise Unreadable("a refund in a state that is not known")
    amount, currency = money_of(body)
    return Observation(
        source=statement.source,
        kind=statement.kind,
        provider_ref=statement.ref,
        currency=currency,
        parts=(Part(PartKind.REFUND, ref, status, amount),),
        is_live=says_live(body),
        as_of=statement.received_at,
    )


def _of_session(body: Mapping[str, object], refund: Observation) -> tuple[Observation, ...]:
    """Return what a refund's own resource says of the session that it is of."""
    session = name(body.get("payment_session_id")) if refund.kind == "refund" else None
    status = _PART_STATUSES.get(refund.status or "")
    if session is None or status is None or refund.provider_ref is None:
        return ()
    part = Part(PartKind.REFUND, refund.provider_ref, status, refund.amount_minor)
    said = Observation(
        source=refund.source,
        kind="payment_session",
        provider_ref=session,
        currency=refund.currency,
        parts=(part,),
        is_live=refund.is_live,
        as_of=refund.as_of,
    )
    return (said,)


def _partly_created(body: Mapping[str, object], statement: Statement, ref: str) -> Observation:
    """Read a partial success: the resource exists, its state is unknown and asked for."""
    codes = ", ".join(filter(None, (masked_words(item.get("code")) for item in error_items(body))))
    return Observation(
        source=statement.source,
        kind=statement.kind,
        provider_ref=ref,
        is_live=says_live(body),
        as_of=statement.received_at,
        facts={"create_errors": codes} if codes else {},
    )


def _deleted(statement: Statement, deleted_state: str) -> Observation:
    return Observation(
        source=statement.source,
        kind=statement.kind,
        provider_ref=statement.ref,
        status=deleted_state,
        as_of=statement.received_at,
        failure_reason="deleted at our request" if deleted_state == "failed" else None,
    )
