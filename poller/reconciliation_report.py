"""Report the drift that a reconciliation found, from decisions about its messages.

Reads only.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from poller.reconciliation import BATCH_SIZE, in_batches, settles_state
from providers.decoding import instant
from statemachine.phases import Outcome, Phase, Source
from storage import reconciliations
from storage.database import Unit
from storage.reconciliations import Heard
from storage.tables import Payment, Transition
from storage.tables_support import Reconciliation
from storage.types import InboxStatus

#: The call of ours that brought a message, by its source.
_FOUND_BY: Final = {Source.LIST.value: "list", Source.POLL.value: "fetch"}


@dataclass(frozen=True, slots=True)
class DriftReport:
    """Drift of one reconciliation: an entry for each payment, and counts."""

    drift: list[dict[str, Any]]
    counts: dict[str, int]

    @property
    def is_alarming(self) -> bool:
        """True if there is drift that a push should have reported."""
        return self.counts["alarming"] > 0


@dataclass(slots=True)
class _Draft:
    """Effects of the reconciliation's messages on one payment."""

    first: Heard
    last: Heard
    transitions: list[Transition] = field(default_factory=list)
    effects: list[str] = field(default_factory=list)
    reviews: list[str] = field(default_factory=list)
    decided_at: list[str] = field(default_factory=list)  #: of every outcome about it
    reason: str = ""


def build_report(unit: Unit, row: Reconciliation, grace: timedelta) -> DriftReport:
    """Build the report; repeatable as long as the messages are not replayed.

    A payment differs where a message of the reconciliation moved it, opened a review of it, made an effect owed, or is
    how it first became known. All else is counted only. What changed less than `grace` before it was found is fresh: a
    webhook may have been about to report it. Fresh drift does not alarm, and nor does an open payment that was created
    elsewhere, about which no push is due yet.
    """
    counts: Counter[str] = Counter()
    drafts: dict[str, _Draft] = {}
    for page in _pages(unit, row):
        moved: dict[str, list[Transition]] = {}
        for transition in reconciliations.transitions(unit, [message.id for message in page]):
            moved.setdefault(transition.cause, []).append(transition)
        for message in page:
            _count(counts, message)
            _collect(drafts, message, moved.get(message.id, []))
    drift = [entry for ids in in_batches(list(drafts)) for entry in _entries(unit, drafts, ids, grace)]
    for name in ("is_adopted", "is_fresh", "is_alarming"):
        counts[name.removeprefix("is_")] = sum(entry[name] for entry in drift)
    counts["effects"] = sum(len(entry["effects"]) for entry in drift)
    counts["reviews"] = sum(len(entry["reviews"]) for entry in drift)
    counts["drift"] = len(drift)
    return DriftReport(drift, dict(counts))


def _pages(unit: Unit, row: Reconciliation) -> Iterator[list[Heard]]:
    after = ""
    while page := reconciliations.messages(unit, row, after=after, limit=BATCH_SIZE):
        yield page
        after = page[-1].id


def _count(counts: Counter[str], message: Heard) -> None:
    if message.status == InboxStatus.PENDING:
        counts["unapplied"] += 1
    elif message.status == InboxStatus.DEAD:
        counts["dead"] += 1
    for outcome in message.outcomes:
        is_nobodys = outcome["outcome"] == Outcome.PARKED and "payment" not in outcome
        counts["unknown_here" if is_nobodys else outcome["outcome"]] += 1


def _collect(drafts: dict[str, _Draft], message: Heard, moved: Iterable[Transition]) -> None:
    """Add the effects of the message; payments that it left unchanged get no draft."""
    numbers = {(transition.payment_id, transition.number): transition for transition in moved}
    for outcome in message.outcomes:
        payment_id = outcome.get("payment")
        if payment_id is None:
            continue
        transition = numbers.get((payment_id, outcome.get("transition", 0)))
        is_change = transition is not None or "review" in outcome or "effects" in outcome
        is_stateless = outcome["outcome"] == Outcome.UNCHANGED and not settles_state(outcome)
        if not is_change and not is_stateless and payment_id not in drafts:
            continue
        draft = drafts.setdefault(payment_id, _Draft(message, message))
        draft.decided_at.append(outcome["at"])
        if not is_change:
            continue
        draft.last, draft.reason = message, outcome["reason"]
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
        "found_by": _FOUND_BY.get(draft.last.source, draft.last.source),
        "message": draft.last.id,
        "reason": draft.reason,
    }


def _since(message: Heard, moved: Transition, payment: Payment) -> datetime | None:
    """Return when the state changed by the provider's own time; None where unknown.

    The provider's fact of that name, such as `paid_at`; else the time of the statement, unless that is merely when we
    asked. Never later than it was recorded.
    """
    stated = instant(payment.facts.get(f"{moved.to_state.lower()}_at"))
    if stated is None and moved.as_of is not None and moved.as_of != message.provider_time:
        stated = moved.as_of
    return None if stated is None else min(stated, moved.recorded_at)


def _known_until(
    unit: Unit, draft: _Draft, first: Transition | None, payment: Payment, *, is_adopted: bool
) -> datetime | None:
    """Return until when the known state was certainly true; None where unknown.

    The state cannot have been wrong for longer.
    """
    if is_adopted:
        return instant(payment.facts.get("created_at"))
    before = reconciliations.transition_before(unit, first) if first else None
    changed_at = before.recorded_at if before else (payment.created_at if first else payment.changed_at)
    answered_at = reconciliations.last_answered(unit, payment.id, draft.first.id)
    return max(changed_at, answered_at) if answered_at else changed_at


def _seconds(start: datetime | None, end: datetime) -> float | None:
    return None if start is None else round(max((end - start).total_seconds(), 0.0), 3)
