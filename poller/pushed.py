"""What pushes said, compared with what was found by asking. Pure: rows in, figures by day out.

The kept bytes of a push are read again by the provider's `parse`, which is pure, so that what it told is known and not
guessed from what was decided about it.

A change is judged once, when the grace for its push is over. Judged are transitions, and states that were passed
unseen where the lifecycle has no way around them. Not judged is what no push can be missed of: the first state that
was heard of a payment, what our own create and cancel calls were answered, and what a person resolved.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal

from providers.contract import Provider, Statement
from statemachine.lifecycle import Lifecycle
from statemachine.phases import Source
from storage import histogram
from storage.tables import InboxMessage, Transition
from storage.tables_support import PushQuality

_PUSHES: Final = frozenset({Source.WEBHOOK.value, Source.CALLBACK.value})
_ASKED: Final = frozenset({Source.POLL.value, Source.LIST.value})

Verdict = Literal["pushed", "late", "lost"]


@dataclass(frozen=True, slots=True)
class Push:
    """What one delivery of the provider's told."""

    id: str
    payment_id: str | None
    kind: str  #: lifecycle kind; "" where it cannot be told
    state: str  #: of the lifecycle; "" where it told of none
    is_hint: bool  #: it told that something changed about the payment, and not what
    is_variant: bool  #: other content under an identity that was known: it tells nothing
    received_at: datetime
    changed_at: datetime | None  #: the provider's time of the change
    signed_at: datetime | None


class Tally:
    """Figures of one account that are to be added to those that are kept."""

    def __init__(self, account: str) -> None:
        self._account = account
        self.rows: dict[tuple[str, str, date], PushQuality] = {}

    def of(self, kind: str, event: str, at: datetime) -> PushQuality:
        """The figures of one kind and event on one UTC day; "" and "" for those of the whole account."""
        day = at.astimezone(UTC).date()
        found = self.rows.get((kind, event, day))
        if found is None:
            found = PushQuality(account=self._account, kind=kind, event=event, day=day)
            self.rows[kind, event, day] = found
        return found


def read(provider: Provider, message: InboxMessage, kind: str | None) -> Push:
    """What a push told of its payment, whose kind is given where it is known; total, as the provider's parse is.

    Of several observations in one push the first counts; no provider sends several.
    """
    reading = provider.parse(
        Statement(Source(message.source), message.body, message.received_at, kind=message.kind, ref=message.ref)
    )
    told = reading.observations[0] if reading.observations else None
    found = kind or (told.kind if told is not None else None) or ""
    lifecycle = provider.lifecycles.get(found)
    status = told.status if told is not None else None
    is_known = lifecycle is not None and status is not None and lifecycle.knows(status)
    return Push(
        id=message.id,
        payment_id=message.payment_id,
        kind=found if lifecycle is not None else "",
        state=status if is_known and status is not None else "",
        is_hint=bool(reading.hints) or (told is not None and status is None),
        is_variant=message.variant_of is not None,
        received_at=message.received_at,
        changed_at=told.as_of if told is not None else None,
        signed_at=message.provider_time,
    )


def count_pushes(
    tally: Tally,
    new: Iterable[Push],
    of_payment: Mapping[str, Sequence[Push]],
    lifecycles: Mapping[str, Lifecycle],
) -> None:
    """Each new push is counted once, by what had been pushed of its payment before it was recorded.

    A duplicate tells again what was told; a reordered push tells of a state that a push before it had passed.
    """
    for push in new:
        figures = tally.of(push.kind, push.state, push.received_at)
        figures.deliveries += 1
        if push.signed_at is not None:
            histogram.add(tally.of("", "", push.received_at).skews, push.signed_at - push.received_at)
        if push.is_variant:
            figures.duplicates += 1
            continue
        if not push.state:
            continue
        earlier = [p for p in of_payment.get(push.payment_id or "", ()) if p.id < push.id and p.state]
        if _is_repeat(push, earlier, lifecycles[push.kind]):
            figures.duplicates += 1
            continue
        if _is_overtaken(push, earlier, lifecycles[push.kind]):
            figures.reordered += 1
        if push.changed_at is not None:
            histogram.add(figures.lags, push.received_at - push.changed_at)


def count_redeliveries(tally: Tally, push: Push, message: InboxMessage, since: datetime | None) -> None:
    """The times that the provider has sent the same bytes again since that instant are counted as duplicates.

    Exact for a message that is younger than `since`. Of an older one it is known that it came again, and not how
    often, and it counts once: a lower bound, and exact while nothing comes again twice between two measurements.
    """
    at = message.last_redelivered_at
    if at is None:
        return
    times = message.redeliveries if since is None or message.received_at > since else 1
    figures = tally.of(push.kind, push.state, at)
    figures.deliveries += times
    figures.duplicates += times


def count_changes(
    tally: Tally,
    judged: Iterable[tuple[Transition, str]],
    chains: Mapping[str, Sequence[Transition]],
    of_payment: Mapping[str, Sequence[Push]],
    lifecycles: Mapping[str, Lifecycle],
    grace: timedelta,
) -> None:
    """Each transition whose grace is over is counted once as pushed, late or lost, with its payment's kind."""
    for transition, kind in judged:
        if transition.from_state is None or transition.source not in _PUSHES | _ASKED:
            continue
        pushes = of_payment.get(transition.payment_id, ())
        chain = chains.get(transition.payment_id, ())
        lifecycle = lifecycles.get(kind)
        passed = () if lifecycle is None or transition.forced else certain(lifecycle, transition)
        for state in passed:
            _count(tally, kind, state, transition, verdict(transition, state, chain, pushes, grace))
        if transition.source in _PUSHES:
            _count(tally, kind, transition.to_state, transition, "pushed")
        else:
            told = verdict(transition, transition.to_state, chain, pushes, grace)
            _count(tally, kind, transition.to_state, transition, told)


def verdict(
    found: Transition, state: str, chain: Sequence[Transition], pushes: Sequence[Push], grace: timedelta
) -> Verdict:
    """Whether a push had told of the state when the transition was recorded, did within the grace, or did not.

    A hint tells of what changed after the statement that the payment's state before rests on, and is asked about at
    once: what is found a whole grace later it did not tell.
    """
    visits = [t.recorded_at for t in chain if t.number < found.number and t.to_state == state]
    before = [t.as_of or t.recorded_at for t in chain if t.number < found.number]
    after_visit, after_change = max(visits, default=None), max(before, default=None)
    told = [p.received_at for p in pushes if p.state == state and not p.is_variant and _is_after(p, after_visit)]
    hinted = [p for p in pushes if p.is_hint and not p.is_variant and _is_after(p, after_change)]
    told += [p.received_at for p in hinted if p.received_at >= found.recorded_at - grace]
    first = min(told, default=None)
    if first is None or first > found.recorded_at + grace:
        return "lost"
    return "pushed" if first <= found.recorded_at else "late"


def certain(lifecycle: Lifecycle, transition: Transition) -> list[str]:
    """The states that the transition skipped and that lie on every way to its state: they did happen."""
    return [
        state
        for state in transition.via
        if not _reaches(lifecycle, transition.from_state, transition.to_state, without=state)
    ]


def _count(tally: Tally, kind: str, state: str, transition: Transition, told: Verdict) -> None:
    figures = tally.of(kind, state, transition.recorded_at)
    setattr(figures, told, getattr(figures, told) + 1)


def _is_after(push: Push, at: datetime | None) -> bool:
    return at is None or push.received_at > at


def _is_repeat(push: Push, earlier: Sequence[Push], lifecycle: Lifecycle) -> bool:
    same = [p for p in earlier if p.state == push.state and not p.is_variant]
    if not same:
        return False
    if not _reaches(lifecycle, push.state, push.state):
        return True  # entered once only
    if push.changed_at is not None and any(p.changed_at == push.changed_at for p in same):
        return True
    return earlier[-1].state == push.state


def _is_overtaken(push: Push, earlier: Sequence[Push], lifecycle: Lifecycle) -> bool:
    for other in earlier:
        if other.is_variant or other.state == push.state:
            continue
        is_ahead = _reaches(lifecycle, push.state, other.state)
        if is_ahead and not _reaches(lifecycle, other.state, push.state):
            return True
        times = (push.changed_at, other.changed_at)
        if is_ahead and times[0] is not None and times[1] is not None and times[0] < times[1]:
            return True
    return False


def _reaches(lifecycle: Lifecycle, start: str | None, end: str, *, without: str | None = None) -> bool:
    """Whether one or more moves lead from one state to the other, without entering a third."""
    ways = lifecycle.initial if start is None else lifecycle.moves.get(start, ())
    seen: set[str] = set()
    waiting = [state for state in ways if state != without]
    while waiting:
        state = waiting.pop()
        if state == end:
            return True
        if state not in seen:
            seen.add(state)
            waiting += [following for following in lifecycle.moves.get(state, ()) if following != without]
    return False
