"""What a reconciliation found different, derived from what was decided about its messages. Changes nothing."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from poller.reconciliation import tells
from providers.decoding import instant
from statemachine.phases import Outcome, Phase, Source
from storage import reconciliations
from storage.database import Unit
from storage.reconciliations import Heard
from storage.tables import Payment, Transition
from storage.tables_support import Reconciliation
from storage.types import InboxStatus

_MANY: Final = 500

#: By which of our calls a message came.
_CALLS: Final = {Source.LIST.value: "list", Source.POLL.value: "fetch"}


@dataclass(frozen=True, slots=True)
class Report:
    """What a walk came to: what differed, one entry for each payment, and how much of everything there was."""

    drift: list[dict[str, Any]]
    counts: dict[str, int]

    @property
    def alarms(self) -> bool:
        """Whether anything differed that somebody should have told."""
        return self.counts["alarming"] > 0


@dataclass(slots=True)
class _Draft:
    """What the walk's messages did to one payment."""

    first: Heard
    last: Heard
    transitions: list[Transition] = field(default_factory=list)
    effects: list[str] = field(default_factory=list)
    reviews: list[str] = field(default_factory=list)
    decided_at: list[str] = field(default_factory=list)  #: of every outcome that is about it
    reason: str = ""


def report(unit: Unit, row: Reconciliation, grace: timedelta) -> Report:
    """The walk's report; the same whenever and however often it is made, as long as its messages are not replayed.

    A payment differs where a message of the walk moved it, opened a review of it, made an effect owed, or is how we
    first heard of it. All else is counted only. What changed less than `grace` before we found it is fresh: a webhook
    may have been about to tell it. That alarms nobody, and nor does an open payment that was created elsewhere, of
    which nothing has happened yet that anybody would have told.
    """
    counts: Counter[str] = Counter()
    drafts: dict[str, _Draft] = {}
    for page in _pages(unit, row):
        moved: dict[str, list[Transition]] = {}
        for transition in reconciliations.transitions(unit, [heard.id for heard in page]):
            moved.setdefault(transition.cause, []).append(transition)
        for heard in page:
            _count(counts, heard)
            _collect(drafts, heard, moved.get(heard.id, []))
    drift = [entry for ids in _chunks(list(drafts)) for entry in _entries(unit, drafts, ids, grace)]
    for name in ("is_adopted", "is_fresh", "is_alarming"):
        counts[name.removeprefix("is_")] = sum(entry[name] for entry in drift)
    counts["effects"] = sum(len(entry["effects"]) for entry in drift)
    counts["reviews"] = sum(len(entry["reviews"]) for entry in drift)
    counts["drift"] = len(drift)
    return Report(drift, dict(counts))


def _pages(unit: Unit, row: Reconciliation) -> Iterator[list[Heard]]:
    after = ""
    while page := reconciliations.messages(unit, row, after=after, limit=_MANY):
        yield page
        after = page[-1].id


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[at : at + _MANY] for at in range(0, len(ids), _MANY))


def _count(counts: Counter[str], heard: Heard) -> None:
    if heard.status == InboxStatus.PENDING:
        counts["unapplied"] += 1
    elif heard.status == InboxStatus.DEAD:
        counts["dead"] += 1
    for outcome in heard.outcomes:
        is_nobodys = outcome["outcome"] == Outcome.PARKED and "payment" not in outcome
        counts["unknown_here" if is_nobodys else outcome["outcome"]] += 1


def _collect(drafts: dict[str, _Draft], heard: Heard, moved: Iterable[Transition]) -> None:
    """Add what the message did; payments that it left as they were get no draft."""
    numbers = {(transition.payment_id, transition.number): transition for transition in moved}
    for outcome in heard.outcomes:
        payment_id = outcome.get("payment")
        if payment_id is None:
            continue
        transition = numbers.get((payment_id, outcome.get("transition", 0)))
        is_change = transition is not None or "review" in outcome or "effects" in outcome
        is_stateless = outcome["outcome"] == Outcome.UNCHANGED and not tells(outcome)
        if not is_change and not is_stateless and payment_id not in drafts:
            continue
        draft = drafts.setdefault(payment_id, _Draft(heard, heard))
        draft.decided_at.append(outcome["at"])
        if not is_change:
            continue
        draft.last, draft.reason = heard, outcome["reason"]
        draft.effects += outcome.get("effects", ())
        draft.reviews += [outcome["review"]] if "review" in outcome else []
        draft.transitions += [transition] if transition is not None else []


def _entries(unit: Unit, drafts: dict[str, _Draft], ids: Sequence[str], grace: timedelta) -> Iterator[dict[str, Any]]:
    kept = reconciliations.payments(unit, ids)
    for payment_id in ids:
        draft, payment = drafts[payment_id], kept[payment_id]
        was = draft.transitions[0].from_state if draft.transitions else payment.state
        is_adopted = was is None and payment.created_at.isoformat() in draft.decided_at
        if draft.transitions or draft.effects or draft.reviews or is_adopted:
            yield _entry(unit, draft, payment, is_adopted=is_adopted, grace=grace)


def _entry(unit: Unit, draft: _Draft, payment: Payment, *, is_adopted: bool, grace: timedelta) -> dict[str, Any]:
    first = draft.transitions[0] if draft.transitions else None
    last = draft.transitions[-1] if draft.transitions else None
    found_at = last.recorded_at if last else datetime.fromisoformat(draft.decided_at[-1])
    since = _since(draft.last, last, payment) if last else None
    known_until = since or _known_until(unit, draft, first, payment, is_adopted=is_adopted)
    phase = last.phase if last else payment.phase
    is_fresh = known_until is not None and found_at - known_until < grace
    is_new_and_open = is_adopted and phase == Phase.OPEN and not draft.reviews
    return {
        "payment": payment.id,
        "kind": payment.kind,
        "provider_ref": payment.provider_ref,
        "reference": payment.reference,
        "was": first.from_state if first else payment.state,
        "is": last.to_state if last else payment.state,
        "phase": phase,
        "is_adopted": is_adopted,
        "since": since.isoformat() if since else None,
        "found_at": found_at.isoformat(),
        "unknown_for_seconds": _seconds(since, found_at),
        "at_most_seconds": _seconds(known_until, found_at),
        "is_fresh": is_fresh,
        "is_alarming": not is_fresh and not is_new_and_open,
        "effects": list(dict.fromkeys(draft.effects)),
        "reviews": list(dict.fromkeys(draft.reviews)),
        "found_by": _CALLS.get(draft.last.source, draft.last.source),
        "message": draft.last.id,
        "reason": draft.reason,
    }


def _since(heard: Heard, moved: Transition, payment: Payment) -> datetime | None:
    """When it became so by the provider's own time; None where the answer does not tell.

    The provider's fact of that name, such as `paid_at`; else the time of the statement, unless that is merely when we
    asked. Never later than we heard of it.
    """
    told = instant(payment.facts.get(f"{moved.to_state.lower()}_at"))
    if told is None and moved.as_of is not None and moved.as_of != heard.provider_time:
        told = moved.as_of
    return None if told is None else min(told, moved.recorded_at)


def _known_until(
    unit: Unit, draft: _Draft, first: Transition | None, payment: Payment, *, is_adopted: bool
) -> datetime | None:
    """Until when what we knew was true for certain, so that we cannot have been wrong for longer; None: no telling."""
    if is_adopted:
        return instant(payment.facts.get("created_at"))
    before = reconciliations.transition_before(unit, first) if first else None
    changed_at = before.recorded_at if before else (payment.created_at if first else payment.changed_at)
    answered_at = reconciliations.last_answered(unit, payment.id, draft.first.id)
    return max(changed_at, answered_at) if answered_at else changed_at


def _seconds(start: datetime | None, end: datetime) -> float | None:
    return None if start is None else round(max((end - start).total_seconds(), 0.0), 3)
